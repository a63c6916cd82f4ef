"""Taking messages apart: every phrasing is one thing only, and none begins another."""

import collections

import pytest

from rollouts.domains.fds.words import bank, decoding
from rollouts.domains.fds.words.decoding import Part

LEADS = sorted({template.texts[0] for template in bank.load_bank("leads")})


def test_no_two_templates_of_different_meaning_make_the_same_text():
    meanings = collections.defaultdict(set)
    for text, part in decoding.list_phrasings():
        meanings[text.lower()].add(part)
    assert [text for text, parts in meanings.items() if len(parts) > 1] == [] and len(meanings) > 2000


def test_no_phrasing_begins_with_another():
    """With the test above: there is one way to take any row of phrasings apart."""
    runs = {tuple(decoding.split_sentences(text.lower())) for text, _ in decoding.list_phrasings()}
    assert max(map(len, runs)) > 1
    assert [run for run in runs for count in range(1, len(run)) if run[:count] in runs] == []


def test_a_lead_changes_no_meaning_and_makes_no_other_phrasing():
    known = {text.lower() for text, _ in decoding.list_phrasings()}
    for text, part in decoding.list_phrasings():
        for lead in LEADS if part.bank in decoding.LED else ():
            led = f"{lead} {text}".lower()
            assert led not in known and decoding.find_part(led) == part
            first = decoding.split_sentences(led)[0]
            assert first not in known


def test_a_lead_is_only_taken_from_sentences_that_have_one():
    assert decoding.find_part("Well, here you go.") is None and decoding.find_part("Well,") is None


@pytest.mark.parametrize(
    "text, parts",
    [
        ("Hi. Cola cold.", [Part("fillers", ("opening",)), Part("openings", ("food temperature", "0"))]),
        ("hi. Cola COLD.", [Part("fillers", ("opening",)), Part("openings", ("food temperature", "0"))]),
        ("48 minutes!! for a Beef Burger!! [Sent Picture: x. y]",
         [Part("openings", ("late delivery", "2")), Part("pictures", ("x. y",))]),
        ("I ordered at 18:05 and it only came at 19:00.", [Part("openings", ("late delivery", "0"))]),
        ("", []),
    ],
)  # fmt: skip
def test_examples(text, parts):
    assert decoding.split_message(text) == parts


def test_names_that_are_not_of_the_banks_are_told():
    with pytest.raises(ValueError, match=r"expected a sentence of the banks, got 'St.'"):
        decoding.split_message("Hi. St. Dumpling cold.")
    found = decoding.split_message("Hi. St. Dumpling cold.", ["Dumpling", "St. Dumpling"])
    assert found == [Part("fillers", ("opening",)), Part("openings", ("food temperature", "0"))]
