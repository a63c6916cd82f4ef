"""Customer, judge and evaluators of the embedded gym grade dialogues as a person would; see graded.txt."""

import json
import pathlib
import re
from typing import NamedTuple

import numpy as np
import pytest

from rollouts.domains.fds.embedded import evaluators, latent, tracing, verdicts
from rollouts.domains.fds.embedded.case import Case
from rollouts.domains.fds.embedded.latent import Customer
from rollouts.domains.fds.rubrics import PRINCIPLES
from rollouts.domains.fds.scenario import Item
from rollouts.domains.fds.shift import NO_SHIFT
from rollouts.domains.fds.words import records

TOLERANCES = {"satisfaction": 0.5, "process": 0.15, "communication": 3.0, "logic": 1.5, "compensation": 1.0}
LEAST_AGREEMENT = 0.8
_ITEM = re.compile(r"(\d+) x (.+) at (\d+)\.(\d\d)")


class Graded(NamedTuple):
    """A dialogue with a person's grades."""

    name: str
    case: Case
    turns: list[dict[str, str]]  # as judges get them
    grades: dict[str, float]
    differing: dict[str, float]  # the gym's grade, where the file explains why it is another


def load_dialogues():
    text = pathlib.Path(__file__).with_name("graded.txt").read_text(encoding="utf-8")
    return [read_dialogue(part) for part in re.split(r"^== ", text, flags=re.MULTILINE)[1:]]


def read_dialogue(text):
    name, *lines = text.strip().splitlines()
    fields = [line.split(": ", 1) for line in lines if line]
    told = dict(fields)
    level, demand, claim, details, wants, temper, worth = told["customer"].split()
    supports, record = told["record"].split(" | ")
    supports = {"yes": True, "no": False, "none": None}[supports]
    items, merchant, times, complaint = told["order"].split(" | ")
    customer = Customer(
        int(level), demand, supports, round(10 * float(worth)), claim == "honest", details == "tells", wants, temper
    )
    read = [_ITEM.fullmatch(item).groups() for item in items.split("; ")]
    case = Case(
        customer,
        tuple(Item(item, int(count), int(whole) * 100 + int(cents)) for count, item, whole, cents in read),
        merchant,
        *times.split(),
        complaint,
        complaint,
        records.read_record(record, supports),
        "",
        "plain",
        "calm",
        NO_SHIFT,
    )
    turns, issued = [], "no"
    for who, said in fields:
        if who in ("A", "V"):
            issued = "this turn" if who == "V" else "no" if issued == "no" else "earlier"
            turns.append({"role": "agent", "text": said, "voucher": issued})
        elif who == "C":
            turns.append({"role": "customer", "text": said, "voucher": "no" if issued == "no" else "earlier"})
    grades = {measure: float(grade) for measure, grade in (pair.split() for pair in told["grade"].split(", "))}
    differing = [value.split(" ", 2) for who, value in fields if who == "differs"]
    return Graded(name, case, turns, grades, {measure: float(grade.rstrip(",")) for measure, grade, _ in differing})


def grade_dialogue(one):
    steps = tracing.trace_turns(one.case, one.turns)
    customer, last = one.case.customer, steps[-1].after
    scores = [verdicts.score_turn(customer, step.before, step.events) for step in steps]
    found = {
        "satisfaction": 1.0 if latent.find_end(customer, last) == "quit" else latent.expected_rating(customer, last),
        "process": float(np.mean([score[name] for score in scores for name in PRINCIPLES])),
    }
    rubrics = [name for name in evaluators.EVALUATORS if name in one.grades]
    return found | {name: float(sum(evaluators.EVALUATORS[name](one.case, steps).values())) for name in rubrics}


DIALOGUES = load_dialogues()


@pytest.mark.parametrize("one", DIALOGUES, ids=lambda one: one.name.split()[0])
def test_the_gym_grades_as_a_person_would_or_the_file_says_why_not(one):
    found = grade_dialogue(one)
    for measure, grade in one.grades.items():
        near = abs(found[measure] - grade) <= TOLERANCES[measure] + 1e-9
        if measure in one.differing:
            assert not near, f"{measure}: {found[measure]:.2f} no longer differs from {grade}, the file says it does"
            assert found[measure] == pytest.approx(one.differing[measure], abs=0.1 * TOLERANCES[measure] + 0.01)
        else:
            assert near, f"{measure}: a person gives {grade}, the gym {found[measure]:.2f}: {json.dumps(found)}"


def test_most_grades_agree():
    grades = [measure in one.differing for one in DIALOGUES for measure in one.grades]
    assert len(DIALOGUES) >= 30 and 1 - np.mean(grades) >= LEAST_AGREEMENT


@pytest.mark.parametrize("measure", ["satisfaction", "process", "communication", "logic"])
def test_better_dialogues_have_better_grades(measure):
    person = [one.grades[measure] for one in DIALOGUES]
    gym = [grade_dialogue(one)[measure] for one in DIALOGUES]
    assert np.corrcoef(person, gym)[0, 1] > 0.9
