"""What a person and a conversation without an episode get of FDS."""

import asyncio
import json

import numpy as np
import pytest

from configs import fds
from rollouts import domains
from rollouts.domains.fds import generator, rules
from rollouts.domains.fds.embedded import oracle
from rollouts.types import Sample

CONFIG = fds.get_config("turns=2.8")
DOMAIN = domains.load(CONFIG)
TURN = "<think>{0}</think><response>Here.</response><action>{0}</action>"


class Silent:
    async def chat(self, messages, *, seed, response_format=None):
        return "Hello"


@pytest.mark.parametrize(
    ("text", "truncated"),
    [(TURN.format("voucher"), False), (TURN.format("chat"), False), (TURN.format("chat"), True), ("No tags.", False)],
)
def test_a_turn_by_its_words_is_the_first_of_an_episode(text, truncated):
    async def act():
        episodes = DOMAIN.episodes(CONFIG, {"user": Silent(), "judge": None})
        episode = episodes.begin(next(generator.deal_scenarios(1)), seed=1, judge_seed=1)
        await episode.open()
        return episode.act(Sample(text, stop="length" if truncated else "end_of_turn"))

    expected, found = asyncio.run(act()), DOMAIN.read_turn(text, truncated=truncated)
    np.testing.assert_array_equal(found.cost, expected.cost)
    assert (found.notes, found.over) == (expected.notes, expected.over)
    assert found.cost.tolist() == [float("voucher" in text), 1.0]


def test_every_ending_ends():
    ends = [rules.user_step(rules.State(turns=1), text, max_turns=9) for _, text in DOMAIN.endings()]
    assert [label for label, _ in DOMAIN.endings()] == ["1", "2", "3", "4", "5", "quit"]
    assert [(state.end, state.outcome) for state in ends] == [
        *(("rated", float(x)) for x in range(1, 6)),
        ("quit", 0.0),
    ]
    assert all(DOMAIN.read_typed("user", text) == text for _, text in DOMAIN.endings())


def test_a_verdict_becomes_notes():
    scores = {"persona": 1.0, "stage": 0.5, "quality": 0.0, "rules": 1.0}
    answer = json.dumps({"reason": "Well <b>done</b>.", **scores})
    assert DOMAIN.note_verdict(answer) == {"scores": scores, "reason": "Well <b>done</b>."}
    assert DOMAIN.show_verdict(answer) == "persona 1, stage 0.5, quality 0, rules 1: Well <b>done</b>."
    notes = DOMAIN.read_turn(TURN.format("chat")).notes | DOMAIN.note_verdict(answer)
    badges = [
        ("chat", "plain"),
        ("persona 1", "good"),
        ("stage 0.5", "fair"),
        ("quality 0", "bad"),
        ("rules 1", "good"),
    ]
    assert DOMAIN.show_turn(notes) == ("Here.", "chat", badges, "Well <b>done</b>.")
    assert DOMAIN.note_verdict("{}") == {} and DOMAIN.show_verdict("{}") == "{}"


def test_the_bound_is_of_who_reads_and_holds_for_any_shift():
    read, known = DOMAIN.bound_agents("hard"), DOMAIN.bound_agents("hard", knows="all")
    assert read.best_at(0.3) == pytest.approx(oracle.compute_frontier("hard").satisfaction_at(0.3))
    assert all(known.best_at(rate) > read.best_at(rate) + 0.01 for rate in (0.1, 0.3, 0.5))
    assert read.label != known.label
    for shift in ("none", "all"):
        config = fds.get_config()
        config.data.shift = shift
        assert DOMAIN.find_bound(config).best_at(0.3) == read.best_at(0.3)


@pytest.mark.parametrize(
    "field, value",
    [("user.url", "http://elsewhere/v1"), ("data.path", "x.parquet"), ("episode.max_turns", 8)],
)
def test_no_bound_is_known_of_another_gym(field, value):
    config = fds.get_config()
    config.update_from_flattened_dict({field: value})
    assert DOMAIN.find_bound(config) is None


def test_only_held_out_scenarios_are_shifted_and_who_calls_stays_the_same():
    def open_source(shift):
        return DOMAIN.open_tasks({**CONFIG.data, "shift": shift}, 3, None)

    plain, shifted = open_source("none"), open_source("facts")
    assert plain.train(0, 8) == shifted.train(0, 8)
    pairs = list(zip(plain.held_out(30, 5), shifted.held_out(30, 5), strict=True))
    for before, after in pairs:
        assert generator.find_customer(before) == generator.find_customer(after)
        assert before.order.complaint == after.order.complaint
    seen = {item.name for before, _ in pairs for item in before.order.items}
    assert not seen & {item.name for _, after in pairs for item in after.order.items}
    assert {str(after.shift) for _, after in pairs} == {"facts"}
    assert DOMAIN.digest([before for before, _ in pairs]) != DOMAIN.digest([after for _, after in pairs])


def test_a_scenario_is_shown_with_its_secrets():
    scenario = next(generator.deal_scenarios(1))
    order, lines = scenario.order, " ".join(DOMAIN.show_task(scenario.description))
    assert f"{order.complaint} (tag: {order.tag})" in lines and order.record.text in lines
    assert "2 x Tomato Pasta at 15.20" in lines and f"worth {scenario.worth / 10:.1f} points" in lines


@pytest.mark.parametrize("name, budget", [("oracle", None), ("reader", 1.5), ("oracle", -0.1)])
def test_who_keeps_to_a_budget_needs_one(name, budget):
    with pytest.raises(ValueError, match="--budget: expected a share of customers from 0 to 1"):
        DOMAIN.scripted_agent(CONFIG, name, budget)
