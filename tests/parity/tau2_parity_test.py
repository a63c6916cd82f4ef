"""tau2-bench against its own package: rewards, and the loop. CMPO_ALL_TASKS=1 takes all tasks, and minutes."""

import asyncio
import os

import pytest

from rollouts.domains.tau2 import scripted, tasks
from rollouts.domains.tau2.rules_user import RulesUser
from rollouts.domains.tau2.scoring import Scorer
from tests.builders.tau2_traces import (
    Trace,
    gold_trace,
    mutated_trace,
    official_reward,
    plain,
    play,
    run_officially,
)

ONE_IN = 1 if os.environ.get("CMPO_ALL_TASKS") else 6  # tasks are played: the databases of most are slow to hash
IDLE = {"airline": 19, "retail": 7, "telecom": 0}


@pytest.fixture(scope="module")
def loaded(package):
    """Domain, and whether without a user -> its tasks and a scorer."""
    made = {}

    def load(domain, solo=False):
        if (domain, solo) not in made:
            made[domain, solo] = tasks.load_tasks(package, domain, solo=solo), Scorer(package, domain)
        return made[domain, solo]

    return load


def play_trace(package, task, trace, scorer):
    dialogue, episode = asyncio.run(play(package, task, trace, None if task.solo else trace, scorer=scorer))
    assert dialogue.ok, dialogue.failure_message
    return dialogue, episode.world


@pytest.mark.parametrize(
    ("domain", "solo", "count"),
    [("airline", False, 50), ("retail", False, 114), ("telecom", False, 114), ("telecom", True, 114)],
)
def test_what_the_tasks_want_is_worth_1_in_both_evaluators(package, loaded, domain, solo, count):
    found, scorer = loaded(domain, solo)
    assert len(found) == count
    for task in found[::ONE_IN]:
        dialogue, world = play_trace(package, task, gold_trace(task), scorer)
        assert (dialogue.outcome, world.end) == (1.0, "agent_stop" if solo else "user_stop"), task.id
        assert official_reward(task, world) == 1.0, task.id


@pytest.mark.parametrize("domain", IDLE)
def test_doing_nothing_is_worth_what_the_notes_say(package, loaded, domain):
    found, scorer = loaded(domain)
    rewards = []
    for task in found[::ONE_IN]:
        dialogue, world = play_trace(package, task, Trace([]), scorer)
        assert official_reward(task, world) == dialogue.outcome
        rewards.append(dialogue.outcome)
    assert sum(rewards) == IDLE[domain] if ONE_IN == 1 else sum(rewards) <= IDLE[domain]


@pytest.mark.parametrize(
    ("domain", "solo", "count"),
    [("airline", False, 40), ("retail", False, 60), ("telecom", False, 70), ("telecom", True, 30)],
)
def test_of_other_traces_both_evaluators_think_the_same(package, loaded, domain, solo, count):
    found, scorer = loaded(domain, solo)
    rewards = []
    for seed in range(0, count, ONE_IN):
        task = found[seed % len(found)]
        dialogue, world = play_trace(package, task, mutated_trace(task, seed, found), scorer)
        assert dialogue.outcome == official_reward(task, world), (task.id, seed)
        rewards.append(dialogue.outcome)
    assert 0 < sum(rewards) < len(rewards)


def test_the_agent_in_words_solves_telecom_in_both_loops(package, loaded):
    """The same messages, the same end, the same reward."""
    found, scorer = loaded("telecom")
    for number, task in enumerate(found):
        known = task.source.user_scenario.instructions.known_info

        def make_user(task=task, known=known, number=number):
            return RulesUser(task.labels["intent"], known, number)

        agent = scripted.PlannedAgent(scripted.Knowing)
        dialogue, episode = asyncio.run(play(package, task, agent, make_user(), scorer=scorer))
        assert dialogue.outcome == 1.0, (task.id, plain(episode.world.messages))
        run = run_officially(package, task, scripted.Knowing(task, 0), make_user())
        assert plain(run.messages) == plain(episode.world.messages), task.id
        assert run.termination_reason.value == episode.world.end == "user_stop"
