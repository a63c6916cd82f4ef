"""Episodes of tau2-bench: who may end them, what counts as a step, what the user hears."""

import dataclasses
import json

import pytest

from rollouts.domains.tau2 import scripted, tasks, turn_format
from rollouts.domains.tau2.costs import COSTS
from rollouts.domains.tau2.domain import make
from rollouts.domains.tau2.episode import GREETING, Rules
from rollouts.domains.tau2.rules_user import RulesUser
from rollouts.domains.tau2.world import Action
from rollouts.types import Sample
from tests.builders.tau2_traces import RULES, Answering, Saying, Trace, plain, run_officially, talk

CALL = turn_format.write_calls([Action("get_details_by_id", {"id": "L1002"})])


def test_the_agent_hears_a_greeting_that_nobody_sampled_and_cannot_end_the_dialogue(package, telecom):
    agent, user = (
        Saying("###STOP###", "<think>###TRANSFER###</think>###OUT-OF-SCOPE###"),
        Answering("Hello.", "Go on.", "So?"),
    )
    dialogue, episode = talk(package, telecom[0], agent, user)
    assert agent.heard[0] == [("assistant", GREETING), ("user", "Hello.")]
    assert dialogue.task.opening[0].role == "system" and "<tools>" in dialogue.task.opening[0].content
    assert [len(dialogue.turns), dialogue.end, dialogue.outcome] == [3, "user_stop", 0.0]
    assert user.heard == [GREETING, "###STOP###", "###OUT-OF-SCOPE###", "And now?"]
    assert episode.last_words == "###STOP###" and dialogue.success


def test_a_user_may_stop_with_the_first_words(package, telecom):
    dialogue, _ = talk(package, telecom[0], Saying(), Answering("No. ###OUT-OF-SCOPE###"))
    assert (len(dialogue.turns), dialogue.end, dialogue.outcome) == (0, "user_stop", 0.0)


def test_thoughts_and_what_comes_with_calls_reach_no_user(package, telecom):
    user = Answering("Hello.", "Yes?")
    said = ["<think>Secret.</think>", f"Wait.\n{CALL}", "<think>Hm.</think>Done."]
    agent = Saying(*said)
    dialogue, episode = talk(package, telecom[0], agent, user)
    assert user.heard == [GREETING, "…", "Done."]
    (result,) = agent.heard[2]
    assert result[0] == "tool" and json.loads(result[1])["line_id"] == "L1002"
    notes = [turn.notes for turn in dialogue.turns]
    assert [note["think"] for note in notes] == ["Secret.", "", "Hm."]
    assert [note["said"] for note in notes] == ["…", "", "Done."]
    (call,) = notes[1]["calls"]
    assert call["name"] == "get_details_by_id" and not call["error"] and "L1002" in call["content"]
    assert [message.content for message in episode.world.messages if message.role == "assistant"][1:] == [
        "…",
        "Wait.",
        "Done.",
    ]


@pytest.mark.parametrize(
    "said",
    ["<tool_call>\n{", '<tool_call>\n{"name": "gone", "arguments": {}}\n</tool_call>', "</tool_call><tool_call>"],
)
def test_a_call_that_cannot_be_read_is_words_and_the_agents_error(package, telecom, said):
    user = Answering("Hello.", "What?")
    dialogue, _ = talk(package, telecom[0], Saying(said), user, costs=COSTS)
    assert user.heard[1] == said
    assert dict(zip([cost.name for cost in COSTS], dialogue.turns[0].cost, strict=True)) == {
        "transfer": 0,
        "write": 0,
        "tool_error": 1,
        "message": 1,
        "refund": 0,
    }


@pytest.mark.parametrize(("steps", "turns", "end"), [(4, 2, "user_stop"), (3, 2, "max_steps"), (2, 1, "max_steps")])
def test_steps_are_everybodys_messages_and_a_stop_in_the_last_one_comes_too_late(package, telecom, steps, turns, end):
    """User, agent, user, agent, user: five steps; the greeting is none."""
    rules = Rules(steps + 2, 10, 60)
    dialogue, _ = talk(package, telecom[0], Saying(), Answering("Hello.", "So?"), rules=rules)
    assert (len(dialogue.turns), dialogue.end) == (2, "user_stop" if steps + 2 > 5 else "max_steps")
    rules = Rules(steps, 10, 60)
    dialogue, _ = talk(package, telecom[0], Saying(CALL), Answering("Hello.", "So?"), rules=rules)
    assert dialogue.end == "max_steps" and not dialogue.success and dialogue.outcome == 0.0


def test_limits_are_the_official_ones(package, telecom):
    """The same dialogue, cut at each number of steps, in both loops."""
    task = telecom[3]
    known = task.source.user_scenario.instructions.known_info
    for steps in range(1, 24):
        user = RulesUser(task.labels["intent"], known, 0)
        dialogue, episode = talk(
            package, task, scripted.PlannedAgent(scripted.ByTheBook), user, rules=RULES._replace(max_steps=steps)
        )
        user = RulesUser(task.labels["intent"], known, 0)
        run = run_officially(package, task, scripted.ByTheBook(task, 0), user, max_steps=steps)
        assert run.termination_reason.value == episode.world.end
        assert plain(run.messages) == plain(episode.world.messages)


def test_ten_errors_end_a_dialogue_whoever_makes_them(package, telecom):
    wrong = turn_format.write_calls([Action("get_details_by_id", {"id": "X"})])
    dialogue, _ = talk(package, telecom[0], Saying(*[wrong] * 20), Answering("Hello."), costs=COSTS)
    assert (len(dialogue.turns), dialogue.end, dialogue.outcome) == (10, "too_many_errors", 0.0)
    assert dialogue.cost.tolist() == [0, 0, 10, 0, 0]


def test_too_many_turns_end_a_dialogue_and_a_full_context_is_the_agents(package, telecom):
    dialogue, _ = talk(package, telecom[0], Saying(), Answering(*["Go on."] * 90), rules=Rules(100, 10, 3))
    assert (len(dialogue.turns), dialogue.end, dialogue.success) == (3, "max_turns", False)

    class Full(Saying):
        async def reply(self, messages, seed):
            return Sample("", stop="context")

    dialogue, _ = talk(package, telecom[0], Full(), Answering("Hello."))
    assert (dialogue.turns, dialogue.end, dialogue.outcome) == ((), "context", 0.0)


def test_without_a_user_words_are_a_breach_and_done_is_the_end(package):
    (task, *_) = tasks.load_tasks(package, "telecom", solo=True)
    assert task.opening == () and task.told.count("<ticket>") == 1 and "done" in task.tools
    agent = Saying("Hello?")
    dialogue, _ = talk(package, task, agent, None)
    assert agent.heard == [[("system", task.told)]]
    assert (dialogue.end, dialogue.outcome, make(()).breaches) == ("agent_error", 0.0, ("agent_error",))
    done = turn_format.write_calls([Action("done", {}), Action("reboot_device", {})])
    dialogue, episode = talk(package, task, Saying(done), None)
    assert dialogue.end == "agent_stop" and len(episode.world.messages) == 1


def test_a_dialogue_may_have_a_history(package):
    found = {task.id: task for task in tasks.load_tasks(package, "mock")}
    task = found["update_task_with_message_history"]
    agent = Saying()
    talk(package, task, agent, Answering("Thanks."))
    history = task.source.initial_state.message_history
    assert [role for role, _ in agent.heard[0]] == [message.role for message in history] + ["user"][
        : history[-1].role != "user"
    ]
    assert "<tool_call>" in "".join(text for role, text in agent.heard[0] if role == "assistant")


def test_the_same_seed_gives_the_same_dialogue(package, telecom):
    task = telecom[5]
    known = task.source.user_scenario.instructions.known_info

    def transcript(seed):
        agent = scripted.PlannedAgent(scripted.Hasty)
        user = RulesUser(task.labels["intent"], known, seed)
        dialogue, _ = talk(package, task, agent, user, seed=seed)
        return [(turn.messages, turn.text) for turn in dialogue.turns]

    assert transcript(1) == transcript(1) and len({str(transcript(seed)) for seed in range(8)}) > 2


def test_an_error_of_the_world_is_a_failure_and_no_score(package, telecom):
    start = telecom[0].source.initial_state
    broken = start.initialization_actions[0].model_copy(update={"func_name": "no_such_function"})
    state = start.model_copy(update={"initialization_actions": [broken]})
    task = dataclasses.replace(telecom[0], source=telecom[0].source.model_copy(update={"initial_state": state}))
    dialogue, _ = talk(package, task, Saying(), Answering("Hello."))
    assert (dialogue.ok, dialogue.failure) == (False, "world_error")
    assert "no_such_function" in dialogue.failure_message


def test_a_task_that_was_not_begun_is_worth_nothing_though_the_official_evaluator_raises(package):
    """It asserts something of what the agent should have created."""
    found = {task.id: task for task in tasks.load_tasks(package, "mock")}
    trace = Trace([])
    dialogue, _ = talk(package, found["create_task_1_with_env_assertions"], trace, trace)
    assert (dialogue.ok, dialogue.outcome) == (True, 0.0)


@pytest.mark.parametrize("domain", ["airline", "retail"])
def test_a_sum_that_would_hold_everybody_up_is_a_call_that_failed(package, domain):
    """The tool evaluates powers; officially it would be at work for hours."""
    (task, *_) = tasks.load_tasks(package, domain)
    asked = ["9**9**9**9", "2 ** 10", "2 ** 9()"]
    said = turn_format.write_calls([Action("calculate", {"expression": each}) for each in asked])
    agent = Saying(said, "Goodbye.")
    dialogue, episode = talk(package, task, agent, Answering("Hello."), costs=COSTS)
    assert [text for _, text in agent.heard[1]] == [
        "Error: Result too large",
        "1024.0",
        "Error: 'int' object is not callable",
    ]
    assert dialogue.turns[0].cost.tolist() == [0, 0, 2, 0, 0]
    refused, *done = episode.world.messages[-5:-2]
    for message, call in zip(done, episode.world.messages[-6].tool_calls[1:], strict=True):
        official = episode.world.environment.get_response(call)
        assert official.model_dump(exclude={"timestamp"}) == message.model_dump(exclude={"timestamp"})
    assert (refused.role, refused.error, refused.requestor) == ("tool", True, "assistant")
