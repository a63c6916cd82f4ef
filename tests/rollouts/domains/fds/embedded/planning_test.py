"""Dynamic programming against a search that tries everything, on small gyms: few customers, little patience."""

import itertools

import numpy as np
import pytest

from rollouts.domains.fds.embedded import latent, oracle, planning
from rollouts.domains.fds.embedded.graph import Known
from rollouts.domains.fds.embedded.latent import Customer, Mood
from rollouts.domains.fds.embedded.planning import HIDDEN, NO_CHANNELS, READ_CHANNELS, Problem
from tests.builders.customers import combine, search_best

FEW = {("refund_priority", 3): 0.2, ("refund_priority", 21): 0.3, ("compensation_flexible", 14): 0.3,
       ("feedback_focus", 8): 0.2}  # fmt: skip
HARM = [frozenset({event}) for event in latent.HARMFUL]
START = Mood(patience=2, anger=1, trust=1)
ASKED = START._replace(heard=1, anger=0)
LOOKED = ASKED._replace(evidence=2, trust=2)
LATE = LOOKED._replace(patience=3, heard=2, facts=1, limits=1, noted=1, stepped=1)
AGREED = LOOKED._replace(deal=2, probed=1)
ALL_ACTS = [events for events in combine(latent.GOOD_ACTS, 2) if events]
EVERYTHING = [*ALL_ACTS, *HARM, frozenset({"voucher"}), *({*some, "voucher"} for some in ALL_ACTS)]
LAST_ACTS = [
    frozenset(some) | voucher for some in combine(("probe", "offer", "close"), 2) for voucher in (set(), {"voucher"})
]


def believe(few):
    beliefs = np.zeros((1, len(HIDDEN)))
    for hidden, weight in few.items():
        beliefs[0, HIDDEN.index(hidden)] = weight
    return beliefs


def imagine(known, few, mood):
    """All that may be the case."""
    honest = {True: 0.4, False: 0.6} if known.honest is None else {known.honest: 1.0}
    return [
        (
            Customer(2, *hidden[:1], known.supported, hidden[1], truth, known.discloses, known.wants, "flares"),
            mood,
            weight * share,
        )
        for hidden, weight in few.items()
        for truth, share in honest.items()
    ]


def solve(known, mood, few, price, ends=(False, True)):
    return Problem(known, mood, believe(few), READ_CHANNELS, 2).solve(price, ends).sum_root()[0]


@pytest.mark.parametrize("price", [0.3, 1.1])
@pytest.mark.parametrize("mood", [START, ASKED, LOOKED, AGREED, LOOKED._replace(anger=2, deal=3)], ids=str)
@pytest.mark.parametrize("known", [Known(True, True, True, "short"), Known(False, None, False, "short")], ids=str)
def test_who_reads_does_best_of_all_that_can_be_said_in_two_turns(known, mood, price):
    """All pairs of good acts, each harmful event, vouchers at any time; messages read, moods not known."""
    replies = [frozenset(events) for events in EVERYTHING]
    assert solve(known, mood, FEW, price) == pytest.approx(search_best(imagine(known, FEW, mood), price, replies))


@pytest.mark.parametrize("price", [0.3, 0.9, 1.5])
def test_and_in_three_where_offers_and_probes_are_left(price):
    known = Known(True, True, True, "short")
    want = search_best(imagine(known, FEW, LATE), price, LAST_ACTS)
    assert solve(known, LATE, FEW, price) == pytest.approx(want)
    assert (
        want > search_best(imagine(known, FEW, LATE), price, [some for some in LAST_ACTS if "probe" not in some]) - 1e-9
    )


def test_a_probe_pays_where_it_decides():
    few = {("compensation_flexible", 1): 0.5, ("compensation_flexible", 24): 0.5}
    known, price = Known(True, True, True, "short"), 1.2
    blind = [some for some in LAST_ACTS if "probe" not in some]
    assert solve(known, LATE, few, price) > search_best(imagine(known, few, LATE), price, blind) + 0.05


def test_three_acts_for_who_wants_steps():
    known, mood = Known(True, True, True, "steps"), LOOKED._replace(facts=1)
    acts = ("listen", "limit", "note", "steps", "probe", "offer", "close")
    replies = [some | voucher for some in combine(acts, 3) for voucher in (set(), {"voucher"})]
    assert solve(known, mood, FEW, 0.8) == pytest.approx(search_best(imagine(known, FEW, mood), 0.8, replies))


@pytest.mark.parametrize("hidden", FEW, ids=str)
def test_who_knows_all_and_who_gives_none(hidden):
    replies = [frozenset(events) for events in EVERYTHING]
    for honest, price in ((True, 0.3), (False, 0.3), (False, 1.1)):
        known = Known(False, honest, False, "short")
        found = Problem(known, ASKED, believe({hidden: 1.0}), NO_CHANNELS, 2)
        state = imagine(known, {hidden: 1.0}, ASKED)
        assert found.solve(price).sum_root()[0] == pytest.approx(search_best(state, price, replies))
        never = [events for events in replies if "voucher" not in events]
        assert found.solve(0.0, (False,)).sum_root()[0] == pytest.approx(search_best(state, 0.0, never))
    known = Known(False, None, False, "short")
    assert solve(known, ASKED, FEW, 0.0, (False,)) == pytest.approx(search_best(imagine(known, FEW, ASKED), 0.0, never))


@pytest.mark.parametrize("known", [Known(True, True, True, "steps"), Known(False, None, False, "short")], ids=str)
def test_ample_patience_never_runs_out(known):
    """The same values where every turn is counted, from the least patient start; so the relaxation loses nothing."""
    start = Mood(patience=12, anger=2)
    relaxed, counted = (Problem(known, start, believe(FEW), READ_CHANNELS, 1, relaxed=some) for some in (True, False))
    assert relaxed.graph.ample and not counted.graph.ample
    for price in (0.3, 1.1):
        np.testing.assert_allclose(counted.solve(price).sum_root(), relaxed.solve(price).sum_root(), atol=1e-9)


@pytest.mark.parametrize("knows", ["all", "messages"])
def test_the_scale_cuts_nothing_off(monkeypatch, knows):
    """Ample problems do not cut ratings at 1. To cut before what 6 turns cost gives more, and yet it gains nothing."""
    prices = (0.1, 0.8, 2.0)
    problems = oracle.list_problems(knows=knows)
    plain = [oracle.measure_price(problems, price) for price in prices]
    rate = planning.rate_hidden
    monkeypatch.setattr(planning, "rate_hidden", lambda mood: np.maximum(rate(mood), 1.0 - 6 * latent.PATIENCE_WORTH))
    problems = oracle.list_problems(knows=knows)
    cut = [oracle.measure_price(problems, price) for price in prices]
    np.testing.assert_allclose(cut, plain, atol=1e-9)
    monkeypatch.setattr(planning, "rate_hidden", lambda mood: np.maximum(rate(mood), 2.0))
    assert oracle.measure_price(oracle.list_problems(knows=knows), 0.8)[0] > plain[1][0] + 0.005


def test_values_are_sums_over_histories():
    """A problem of two rows is worth what its rows are, and a row what its weight is."""
    known = Known(True, True, True, "steps")
    one, two = ({hidden: weight} for hidden, weight in itertools.islice(FEW.items(), 2))
    both = Problem(known, Mood(12, 1), np.concatenate([believe(one), 2 * believe(two)]), READ_CHANNELS, 1).solve(0.7)
    apart = [Problem(known, Mood(12, 1), believe(few), READ_CHANNELS, 1).solve(0.7).sum_root()[0] for few in (one, two)]
    np.testing.assert_allclose(both.values[-1].reshape(-1), [apart[0], 2 * apart[1]])
