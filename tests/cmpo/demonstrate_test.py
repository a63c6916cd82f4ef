"""Demonstrations by any agent: which dialogues are kept, by hand, and the whole command."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cmpo import demonstrate
from cmpo.training import demonstrations
from configs import fds as configs
from rollouts.domains.fds import turn_format
from tests.builders import commands, dialogues


def dialogue(name, outcome, voucher=False, end="rated", process=(1.0,), **changes):
    turns = (dialogues.turn(score, action="voucher" if voucher else "chat") for score in process)
    return dialogues.dialogue(*turns, task=dialogues.task(str(name)), outcome=outcome, end=end, **changes)


def kept(dialogues, budget):
    found = demonstrate.select_dialogues(dialogues, lambda dialogue: dialogue.outcome, budget)
    return [(one.task.id, one.outcome, bool(one.cost[0])) for one in found]


def test_the_reward_by_hand():
    config = configs.get_config()
    config.algo.outcome_weight, config.algo.process_weight = 2.0, 0.5
    assert demonstrate.compute_reward(config, dialogue("a", 4.0, process=(1.0, 0.5))) == 2 * 4 + 0.5 * 0.75


def test_vouchers_go_where_they_add_most():
    """Four scenarios and a budget of one voucher in four: b gains 2.5, a 1, c nothing."""
    played = [
        *(dialogue("a", 3.0), dialogue("a", 4.0, True), dialogue("a", 2.0)),
        *(dialogue("b", 2.0), dialogue("b", 4.5, True), dialogue("b", 4.0, True)),
        *(dialogue("c", 4.0), dialogue("c", 4.0, True)),
        *(dialogue("d", 1.0), dialogue("d", 1.5)),
    ]
    assert kept(played, 0.25) == [("a", 3.0, False), ("b", 4.5, True), ("c", 4.0, False), ("d", 1.5, False)]
    assert kept(played, 0.5) == [("a", 4.0, True), ("b", 4.5, True), ("c", 4.0, False), ("d", 1.5, False)]
    assert kept(played, 1.0) == kept(played, 0.5)  # c's adds nothing
    assert [one[2] for one in kept(played, 0.0)] == [False] * 4


def test_a_scenario_with_vouchers_alone_is_measured_by_what_is_usual():
    """Without vouchers 2 is usual; x beats that by 2.5, y by 0.5, and a gains 1."""
    played = [dialogue("a", 2.0), dialogue("a", 3.0, True), dialogue("b", 2.0)]
    played += [dialogue("x", 4.5, True), dialogue("y", 2.5, True), dialogue("z", 1.9, True)]
    assert kept(played, 0.34) == [("a", 2.0, False), ("b", 2.0, False), ("x", 4.5, True)]
    assert kept(played, 0.67) == [("a", 3.0, True), ("b", 2.0, False), ("x", 4.5, True)]
    assert kept([dialogue("x", 4.5, True)], 0.3) == []


def test_only_finished_dialogues_count():
    played = [dialogue("a", 5.0, end="malformed"), dialogue("a", 0.0, end="quit"), dialogue("a", 5.0, failure="x")]
    assert kept(played, 1.0) == []


def test_a_dialogue_that_the_user_ended_before_the_agent_spoke_demonstrates_nothing():
    """It would be a line without the agent, which no run could read."""
    unspoken = dialogue("a", 5.0, process=())
    assert unspoken.success and kept([unspoken, dialogue("b", 2.0)], 1.0) == [("b", 2.0, False)]


def test_a_dialogue_that_is_worth_nothing_demonstrates_nothing():
    """In tau2-bench a dialogue may end properly and solve nothing."""
    assert kept([dialogue("a", 0.0), dialogue("b", 1.0)], 1.0) == [("b", 1.0, False)]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5), st.booleans()), max_size=20),
    st.floats(0, 1),
)
def test_the_budget_holds_and_no_scenario_comes_twice(rows, budget):
    found = kept([dialogue(*row) for row in rows], budget)
    names = [name for name, *_ in found]
    assert len(set(names)) == len(names)
    assert sum(voucher for *_, voucher in found) <= budget * len(found)
    assert {str(name) for name, _, voucher in rows if not voucher} <= set(names)


def test_the_command_writes_what_phase_1_reads(tmp_path):
    out = tmp_path / "new" / "demos.jsonl"
    arguments = ["--config=configs/fds.py", "--agent=oracle", "--scenarios=40", "--repeats=2", f"--out={out}"]
    done = commands.run("cmpo.demonstrate", *arguments)
    assert done.returncode == 0, done.stderr
    conversations = demonstrations.read_conversations(turn_format, out)
    granted = [any("<action>voucher" in message.content for message in talk) for talk in conversations]
    assert 25 < len(conversations) <= 40 and 0 < np.mean(granted) <= 0.3
    assert f"kept: {len(conversations)} dialogues" in done.stdout
