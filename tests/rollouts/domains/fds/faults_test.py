"""What is found wrong with the agent's turns, and what is not."""

import re

import pytest

from rollouts.domains.fds import faults
from rollouts.domains.fds.embedded import latent
from rollouts.domains.fds.scenario import Record
from tests.builders.dialogues import FDS, task

PROMISE = "Your refund will arrive tomorrow."
GIVEN = "I have given you a voucher."
LATE = "Our record says that it was delivered 48 minutes late."  # and so it does
WRONG = "Our record says that it was delivered 12 minutes late."


def find(*replies, scenario=None):
    """The faults of replies; one beside which a voucher is issued is a pair of words and action."""
    pairs = [(reply, "chat") if isinstance(reply, str) else reply for reply in replies]
    return [faults.name_faults(events) for events in faults.read_events(scenario or task(), pairs)]


def test_every_fault_is_made_of_events():
    assert frozenset().union(*faults.FAULTS.values()) <= latent.EVENTS.keys()


@pytest.mark.parametrize(
    "words, expected",
    [
        (PROMISE, ["promise that cannot be kept"]),
        (GIVEN, ["remedy that was not given"]),
        (WRONG, ["wrong fact"]),
        (LATE, []),
        ("You are an idiot.", ["rude"]),
        ("I am sorry that your order was so late. Could you send me a photo of the receipt?", []),
        ("I am sorry, a refund is not possible here.", []),
    ],
)
def test_faults_are_found_by_what_the_order_is(words, expected):
    assert find(words) == [expected]


def test_a_voucher_that_was_issued_may_be_spoken_of():
    assert find((GIVEN, "voucher"), GIVEN) == [[], []]
    assert find(GIVEN, (GIVEN, "voucher")) == [["remedy that was not given"], []]


def test_what_nobody_read_has_no_faults():
    assert find((PROMISE, ""), PROMISE) == [[], ["promise that cannot be kept"]]
    unreadable = task(merchant="Golden\nWok", record=Record("other", None, (), "\n"), items=())
    assert find(PROMISE, scenario=unreadable) == [[]]


@pytest.mark.parametrize(
    "words, admits",
    [
        ("That was our fault.", True),
        ("We messed up, and we take full responsibility.", True),
        ("We are to blame.", True),
        ("I accept the blame.", True),
        ("It was not our fault.", False),
        ("It isn’t our fault.", False),
        ("This wasn't our mistake.", False),
        ("Whose fault was it?", False),
    ],
)
def test_admissions_of_fault_are_told_by_their_words(words, admits):
    assert bool(re.search(FDS.patterns["admission of fault"], words, re.IGNORECASE)) == admits


def test_the_domain_finds_what_was_read_and_nothing_in_older_transcripts():
    turns = [{"action": "chat", "response": PROMISE}, {"action": "", "response": "", "text": PROMISE, "events": []}]
    assert FDS.find_faults({}, turns) == [[], []]
    assert FDS.find_faults({}, [{**turn, "events": ["rude"]} for turn in turns]) == [["rude"], ["rude"]]
    assert set(FDS.faults) == set(faults.FAULTS)
