"""Records: kinds for every complaint, three wordings or more a split, each read back as what it is."""

import collections
import random

import pytest

from rollouts.domains.fds.scenario import COMPLAINTS, Record
from rollouts.domains.fds.shift import NO_SHIFT, Shift
from rollouts.domains.fds.words import bank, records


def test_every_complaint_has_two_usual_kinds_each_way_and_an_unseen_one():
    kinds = collections.Counter((kind.complaint, kind.says, kind.unseen) for kind in records.list_kinds())
    for complaint in COMPLAINTS:
        for says in ("supports", "contradicts"):
            assert kinds[complaint, says, False] >= 2 and kinds[complaint, says, True] >= 1
    assert kinds["any", "beside", False] >= 4 and kinds["any", "beside", True] >= 2
    assert kinds["any", "silent", False] == 1


@pytest.mark.parametrize("kind", records.list_kinds(), ids=lambda kind: kind.name)
def test_a_kind_has_three_wordings_a_split_and_numbers_that_do_not_overlap(kind):
    for held in (False, True):
        templates = bank.list_templates("records", kind.section, held)
        assert len(templates) >= 3
        for text in (text for template in templates for text in template.texts):
            assert ("{n}" in text) == (kind.numbers is not None)
            assert len(text.split()) <= 12 and not text.endswith(".") and text.count("{n}") <= 1
            assert not any(character.isdigit() for character in text)
    if kind.numbers:
        assert kind.numbers[0] < kind.numbers[1] < kind.unseen_numbers[0] < kind.unseen_numbers[1]


@pytest.mark.parametrize("shift", [NO_SHIFT, Shift(phrasing=True), Shift(facts=True), Shift(True, (), True)], ids=str)
@pytest.mark.parametrize("says", records.SAYS)
def test_what_is_drawn_is_read_back(says, shift):
    found = collections.defaultdict(set)
    for complaint in COMPLAINTS:
        for seed in range(200):
            record = records.draw_record(complaint, says, random.Random(seed), shift)
            assert records.read_record(record.text, record.supports) == record
            assert record.supports is records.SAYS[says]
            assert record.text in records.list_wordings(record.kind, record.numbers)
            found[record.kind].add(record.numbers)
    kinds = {kind.name: kind for kind in records.list_kinds()}
    for name, numbers in found.items():
        scope = kinds[name].unseen_numbers if shift.facts else kinds[name].numbers
        assert (len(numbers) > 1) == (scope is not None)
        assert all(scope[0] <= number[0] <= scope[1] for number in numbers if scope)
        assert kinds[name].unseen == (shift.facts and name != "silent")


def test_no_wording_is_of_two_kinds():
    kinds = collections.defaultdict(set)
    for template in bank.load_bank("records"):
        for text in template.texts:
            kinds[text.lower()].add(template.section[0])
    assert all(len(names) == 1 for names in kinds.values())


def test_a_record_of_somebody_elses_words_is_other():
    assert records.read_record("rider 12 late, 3 calls", True) == Record(
        "other", True, (12, 3), "rider 12 late, 3 calls"
    )
