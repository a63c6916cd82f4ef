"""What a dialogue was given: by hand, for choices, repeated requests and clients that go back."""

import pytest

from cmpo.deployment import accounts
from cmpo.deployment.events import Answered, Reported
from rollouts.domains.fds import rules

BOTH = rules.COSTS  # the first is any, the second a sum


def take(*answers, costs=BOTH):
    """The account after answers: (turn, hash of the one before, own hash, voucher)."""
    account = accounts.open_account(costs)
    for turn, after, answer, voucher in answers:
        cost = {"turns": 1.0, **({"voucher": 1.0} if voucher else {})}
        answered = Answered(time=0.0, dialogue="d", turn=turn, after=after, answer=answer, cost=cost, tokens=10)
        account = accounts.take_answer(costs, account, answered)
    return account


@pytest.mark.parametrize(
    ("answers", "total"),
    [
        ([], (0, 0)),
        ([(0, "", "a", 0)], (0, 1)),
        ([(0, "", "a", 0), (1, "a", "b", 1)], (1, 2)),
        ([(0, "", "a", 0), (1, "a", "b", 1), (2, "b", "c", 1)], (1, 3)),  # any: at most 1
        ([(0, "", "a", 1), (0, "", "a", 1)], (1, 1)),  # the same request again, and the same answer
        ([(0, "", "a", 1), (0, "", "b", 0)], (1, 1)),  # which of the two was given is not known yet
        ([(0, "", "b", 0), (0, "", "a", 1)], (1, 1)),
        ([(0, "", "a", 1), (0, "", "b", 0), (1, "b", "c", 0)], (0, 2)),  # now it is: b
        ([(0, "", "a", 1), (0, "", "b", 0), (1, "a", "c", 0)], (1, 2)),
        ([(0, "", "a", 1), (0, "", "b", 0), (1, "x", "c", 0)], (1, 2)),  # none of them: the worst
        ([(0, "", "a", 1), (0, "", "b", 0), (1, "b", "c", 1), (1, "b", "d", 0)], (1, 2)),
        ([(0, "", "a", 1), (1, "a", "b", 0), (0, "", "c", 0)], (1, 3)),  # back: what was given stays given
        ([(0, "", "a", 1), (1, "a", "b", 0), (0, "", "c", 1)], (2, 3)),  # twice, as it was given twice
        ([(0, "", "a", 1), (0, "", "c", 1), (1, "c", "d", 0)], (1, 2)),
        ([(4, "x", "a", 1)], (1, 1)),  # what came before was not given by this server
        ([(0, "", "a", 1), (4, "x", "b", 0)], (1, 2)),
    ],
)
def test_what_was_given_by_hand(answers, total):
    account = take(*answers)
    assert account.total == total
    assert account.tokens == 10 * len(answers)  # all were sampled


def test_choices_that_are_too_many_count_as_the_worst():
    many = [(0, "", str(number), number == 0) for number in range(accounts.CHOICES + 1)]
    assert len(take(*many).answers) == accounts.CHOICES and take(*many).total == (1, 1)
    assert take(*many, (1, "0", "x", False)).total == (1, 2)  # forgotten: the worst
    assert take(*many, (1, "7", "x", False)).total == (0, 2)
    cheap = [(turn, answer, name, not voucher) for turn, answer, name, voucher in many]
    assert take(*cheap, (1, "0", "x", False)).total == (1, 2)  # it was free, but nobody knows any more


def test_reports_add_up_and_the_latest_counts():
    account = take()
    for said in ({"resolved": False}, {"rating": 4.0}, {"resolved": True}, {"escalated": True}, {}):
        account = accounts.take_report(account, Reported(time=0.0, dialogue="d", **said))
    assert (account.resolved, account.escalated, account.rating) == (True, True, 4.0)
