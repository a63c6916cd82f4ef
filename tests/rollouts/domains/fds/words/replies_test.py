"""What scripted agents say is read by the customer as what they mean: every phrasing, and replies of several acts."""

import itertools
import random
import re

import pytest

from rollouts.domains.fds import generator
from rollouts.domains.fds.embedded import case as cases
from rollouts.domains.fds.embedded import reading, writing
from rollouts.domains.fds.scenario import COMPLAINTS
from rollouts.domains.fds.scripted import ACTS, Phrasing
from rollouts.domains.fds.shift import parse_shift
from rollouts.domains.fds.words import bank

EVENTS = {"explain": "explain_true", "invent": "explain_false"}
SCENARIOS = [
    *itertools.islice(generator.deal_scenarios(3), 240),
    *itertools.islice(generator.deal_scenarios(3, split="test", shift=parse_shift("phrasing,facts")), 120),
]
CASES = {one.id: cases.read_case(generator.user_prompt(one)) for one in SCENARIOS}
SERVICE = ("listen", "explain", "limit", "steps", "note", "ask", "probe", "offer", "voucher", "close")


def read(text, case, acts):
    return reading.read_reply(text, [], case, "this turn" if "voucher" in acts else "no")


@pytest.mark.parametrize("act", ACTS)
def test_every_phrasing_is_read_as_its_act_for_many_orders(act):
    said, wrong = 0, []
    for template in bank.load_bank("replies"):
        if template.section[0] != act:
            continue
        rest = template.section[1:]
        for complaint in COMPLAINTS if act != "listen" else rest:
            fitting = [
                case
                for case in CASES.values()
                if case.complaint == complaint
                and (act != "explain" or (rest == ("silent",)) == (case.record.kind == "silent"))
            ]
            for case, text in itertools.product(fitting[:8], template.texts):
                reply = text.format(**writing.list_values(case) | {"record": case.record.text})
                said += 1
                if read(reply, case, (act,)) != {EVENTS.get(act, act)}:
                    wrong.append((reply, sorted(read(reply, case, (act,)))))
    assert said > 200 and len(wrong) <= 0.01 * said, wrong[:5]


@pytest.mark.parametrize("count", [2, 3])
def test_replies_of_several_acts_are_read_as_these_acts_and_are_short(count):
    rng, wrong, lengths = random.Random(2), [], []
    for scenario in SCENARIOS * 3:
        acts = rng.sample(SERVICE, count)
        case = CASES[scenario.id]
        item = writing.list_values(case)["item"]
        reply = Phrasing(scenario.order, rng).write_reply(acts, case.complaint, item)
        lengths.append(len(reply.split()))
        if read(reply, case, acts) != {EVENTS.get(act, act) for act in acts}:
            wrong.append((acts, reply, sorted(read(reply, case, acts))))
    assert len(wrong) <= 0.01 * len(lengths), wrong[:5]
    assert sum(lengths) / len(lengths) < 9 * count and sum(length > 25 for length in lengths) < 0.2 * len(lengths)


def test_each_act_has_many_phrasings():
    counts = {}
    for template in bank.load_bank("replies"):
        counts[template.section] = counts.get(template.section, 0) + 1
    assert {section[0] for section in counts} == set(ACTS)
    assert min(counts.values()) >= 5
    assert {section[1] for section in counts if section[0] == "listen"} == set(COMPLAINTS)


def test_no_phrasing_comes_twice_while_there_are_others():
    scenario, case = SCENARIOS[0], CASES[SCENARIOS[0].id]
    phrasing = Phrasing(scenario.order, random.Random(0))
    said = [phrasing.write_reply(["note"], case.complaint, "") for _ in range(9)]
    assert len(set(said[:5])) == 5 and said[5] in said[:5]


def test_who_does_not_know_the_missing_item_names_none():
    scenario = next(one for one in SCENARIOS if len(one.order.items) > 1)
    names = re.compile("|".join(item.name for item in scenario.order.items))
    phrasing = Phrasing(scenario.order, random.Random(0))
    unnamed = [phrasing.write_reply(["listen"], "missing items", "") for _ in range(8)]
    named = [
        Phrasing(scenario.order, random.Random(seed)).write_reply(["listen"], "missing items", "Cola")
        for seed in range(20)
    ]
    assert not any(names.search(text) or "{" in text for text in unnamed)
    assert all("Cola" in text for text in named)
