"""What a person and a conversation without an episode get of FDS."""

import asyncio
import json

import numpy as np
import pytest

from configs import fds
from rollouts import domains
from rollouts.domains.fds import generator, rules
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
