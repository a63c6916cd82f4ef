"""The ledger as a server uses it: what it counts, turns down and says, and that it outlives its process."""

import inspect
import json
import math
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmpo import pid
from cmpo.deployment import ledger as ledgers
from cmpo.deployment import standing
from cmpo.deployment.ledger import Ledger
from rollouts.domains.fds import turn_format
from rollouts.serving.overseer import Overseer
from tests.builders import shop
from tests.builders.ledgers import CHAT, SETTINGS, VOUCHER, ledger, read_metrics, serve, words

IN_VAIN = SETTINGS | {"kp": 0.0, "ki": 9.0, "smoothing": 1.0}


@pytest.fixture(scope="module", autouse=True)
def quick_intervals():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standing, "RESAMPLES", 50)
        yield


def read_log(path, kind):
    lines = map(json.loads, path.read_text().splitlines())
    return [line for line in lines if line["kind"] == kind]


def is_declined(sent):
    return turn_format.parse(sent).action == "chat" and sent != CHAT


def test_a_ledger_is_an_overseer():
    for name in ("review", "report", "end"):
        assert inspect.signature(getattr(Ledger, name)) == inspect.signature(getattr(Overseer, name))


def test_the_metrics_by_hand(tmp_path):
    with ledger(tmp_path / "log", prices="voucher:2,token:0.01,escalation:5") as books:
        serve(books, CHAT, VOUCHER, resolved=True, rating=5.0)
        serve(books, CHAT, resolved=True, rating=4.0)
        serve(books, CHAT, resolved=False, escalated=True)
        serve(books, CHAT)
        serve(books, VOUCHER, end=False)  # under way: it is in no mean yet
        found = read_metrics(books)
    names = ("resolved", "unresolved", "unreported")
    assert [found[f'cmpo_window_dialogues{{outcome="{name}"}}'] for name in names] == [2, 1, 1]
    money = [found[f'cmpo_window_money{{source="{name}"}}'] for name in ("action", "token", "escalation")]
    assert money == pytest.approx([2.0, 0.5, 5.0])
    assert found["cmpo_cost_per_resolution"] == pytest.approx((2.2 + 0.1 + 5.1) / 2)  # the unreported has no part in it
    assert math.isnan(found["cmpo_cost_per_resolution_low"])  # two resolved dialogues tell too little
    assert (found["cmpo_dialogues_total"], found["cmpo_open_dialogues"], found["cmpo_rating"]) == (4, 1, 4.5)
    voucher = {name: found[f'{name}{{cost="voucher"}}'] for name in ("cmpo_budget", "cmpo_cost_rate")}
    assert voucher == {"cmpo_budget": 0.3, "cmpo_cost_rate": 0.25}
    assert found['cmpo_declined_total{cost="voucher"}'] == 0
    alarms = [found[f'cmpo_alarm{{cost="voucher",kind="{kind}"}}'] for kind in standing.ALARMS]
    assert alarms == [0, 0]


def test_a_ledger_without_dialogues_has_no_numbers(tmp_path):
    with ledger(tmp_path / "log") as books:
        found = read_metrics(books)
    assert math.isnan(found["cmpo_cost_per_resolution"]) and math.isnan(found['cmpo_cost_rate{cost="voucher"}'])
    assert found["cmpo_dialogues_total"] == 0


def test_only_the_choice_that_the_conversation_goes_on_with_was_given(tmp_path):
    with ledger(tmp_path / "log") as books:
        for text in (VOUCHER, CHAT, words("Hm.")):
            books.review("d", text, before=(), tokens=10)
        books.review("d", CHAT, before=(CHAT,), tokens=10)
        books.end("d")
        books.review("e", VOUCHER, before=(), tokens=10)
        books.review("e", CHAT, before=(), tokens=10)
        books.end("e")  # nobody knows which
        assert read_metrics(books)['cmpo_cost_rate{cost="voucher"}'] == 0.5


def test_what_comes_after_the_end_changes_a_dialogue_where_it_stands(tmp_path):
    with ledger(tmp_path / "log") as books:
        serve(books, CHAT, name="d")
        serve(books, CHAT, name="e")
        books.review("d", VOUCHER, before=(CHAT,), tokens=10)
        books.report("d", resolved=True)
        books.end("d")
        found = read_metrics(books)
        assert (found["cmpo_dialogues_total"], found['cmpo_cost_rate{cost="voucher"}']) == (2, 0.5)
        assert found['cmpo_window_dialogues{outcome="resolved"}'] == 1
        for _ in range(20):
            serve(books, CHAT)
        assert read_metrics(books)['cmpo_cost_rate{cost="voucher"}'] == 0  # it left the window
        with pytest.raises(KeyError):
            books.report("d", resolved=False)


def test_what_never_had_an_answer_leaves_no_trace(tmp_path):
    with ledger(tmp_path / "log") as books:
        before = (tmp_path / "log").read_text()
        books.end("d")
        with pytest.raises(KeyError):
            books.report("d", resolved=True)
        serve(books, CHAT, name="e", end=False)
        with pytest.raises(ValueError, match="rating"):
            books.report("e", rating=math.nan)
        assert read_metrics(books)["cmpo_dialogues_total"] == 0
    assert (tmp_path / "log").read_text().startswith(before)


def test_the_log_has_no_words(tmp_path):
    with ledger(tmp_path / "log") as books:
        serve(books, words("A secret."), VOUCHER, resolved=True)
    text = (tmp_path / "log").read_text()
    assert "secret" not in text and "sent you" not in text


def test_the_controller_moves_as_scan_does_on_the_same_costs(tmp_path):
    given = np.random.default_rng(0).random(75) < 0.6  # window 60: batches of 3
    with ledger(tmp_path / "log", window=60) as books:
        for voucher in given:
            serve(books, VOUCHER if voucher else CHAT)
        last = read_metrics(books)['cmpo_multiplier{cost="voucher"}']
    costs = given.reshape(25, 3, 1).mean(1).astype(np.float32)
    gains = pid.PIDGains(kp=0.5, ki=0.25, kd=0.125, target=0.3, smoothing=0.5, lambda_max=5.0)
    _, expected = pid.scan(gains, pid.init(gains), jnp.asarray(costs))
    batches = read_log(tmp_path / "log", "batch")
    assert [line["number"] for line in batches] == list(range(1, 26))
    assert [line["costs"]["voucher"] for line in batches] == pytest.approx(costs[:, 0].tolist())
    multipliers = [line["multipliers"]["voucher"] for line in batches]
    assert multipliers == pytest.approx(expected[:, 0].tolist(), rel=1e-6) and last == multipliers[-1] > 0


def test_a_budget_that_cannot_be_held_is_said_once_and_again_after_a_restart(tmp_path):
    said, path = [], tmp_path / "log"
    with ledger(path, settings=IN_VAIN, say=said.append) as books:
        for _ in range(25):
            serve(books, VOUCHER)
        found = read_metrics(books)
    assert said == [
        "the budget of voucher may be out of reach: the multiplier is at its bound, 5, and the mean is 100%",
        "the budget of voucher may be out of reach: "
        "the mean of the last 20 dialogues is 100% (100% to 100%), above 30%",
    ]
    assert found['cmpo_alarm{cost="voucher",kind="mean"}'] == found['cmpo_alarm{cost="voucher",kind="multiplier"}'] == 1
    assert [len(line["alarms"]) for line in read_log(path, "batch")] == [1] * 19 + [2] * 6  # from 20 dialogues on
    with ledger(path, settings=IN_VAIN, say=said.append) as books:
        assert len(said) == 4 and said[2:] == said[:2]
        for _ in range(20):
            serve(books, CHAT)
        assert not any(value for name, value in read_metrics(books).items() if name.startswith("cmpo_alarm"))
    assert len(said) == 4


def test_the_action_is_turned_down_above_the_budget_by_hand(tmp_path):
    with ledger(tmp_path / "log", enforce=True) as books:  # 0.3 of 20, and a batch is 1
        assert books.enforces
        sent = [serve(books, VOUCHER)[0] for _ in range(14)]
        # With n dialogues in the window one more is given if given + 1 <= 0.3 n: at 4, 7, 10, 14.
        assert [number for number, text in enumerate(sent) if text == VOUCHER] == [4, 7, 10]
        assert all(text == VOUCHER or is_declined(text) for text in sent)
        assert len(set(sent)) > 2  # not always in the same words
        waiting = books.review("waiting", VOUCHER, before=(), tokens=1)  # at 14, and it is under way
        assert waiting == VOUCHER and is_declined(books.review("later", VOUCHER, before=(), tokens=1))
        assert books.review("waiting", VOUCHER, before=(), tokens=1) == VOUCHER  # the same again: it is given anyway
        assert read_metrics(books)['cmpo_declined_total{cost="voucher"}'] == 12
        for _ in range(2):
            books.review("waiting", CHAT, before=(CHAT,), tokens=1)  # not VOUCHER: so it is the worst that counts
        assert is_declined(books.review("later", VOUCHER, before=(), tokens=1))
    declined = [line for line in read_log(tmp_path / "log", "answer") if line["declined"]]
    assert len(declined) == 13 and all(line["cost"] == {} for line in declined)


def test_a_choice_that_was_not_taken_makes_room_again(tmp_path):
    with ledger(tmp_path / "log", enforce=True, window=80) as books:  # a batch is 4: 1.2 from the beginning
        assert books.review("d", VOUCHER, before=(), tokens=1) == VOUCHER
        assert books.review("d", CHAT, before=(), tokens=1) == CHAT
        assert is_declined(books.review("e", VOUCHER, before=(), tokens=1))
        books.review("d", CHAT, before=(CHAT,), tokens=1)
        assert books.review("e", VOUCHER, before=(), tokens=1) == VOUCHER


def test_the_budget_of_a_full_window_is_given_to_the_last_one(tmp_path):
    with ledger(tmp_path / "log", budgets={"voucher": 0.29}, enforce=True, window=100) as books:
        for _ in range(100):
            serve(books, CHAT)
        sent = [serve(books, VOUCHER, end=False)[0] for _ in range(30)]  # 0.29 * 100 is 28.999999999999996
        assert sent[:29] == [VOUCHER] * 29 and is_declined(sent[29])


def test_what_was_given_before_there_was_a_budget_is_not_taken_back(tmp_path):
    with ledger(tmp_path / "log") as books:
        for name in "abc":
            serve(books, VOUCHER, name=name)
    with ledger(tmp_path / "log", enforce=True) as books:
        assert is_declined(serve(books, VOUCHER)[0])
        assert books.review("a", VOUCHER, before=(), tokens=1) == VOUCHER  # the request comes again


def test_without_enforcement_nothing_is_turned_down(tmp_path):
    with ledger(tmp_path / "log") as books:
        assert not books.enforces and [serve(books, VOUCHER) for _ in range(5)] == [[VOUCHER]] * 5


def test_a_cost_that_no_words_avoid_is_not_turned_down(tmp_path):
    with ledger(tmp_path / "log", budgets={"voucher": 0.3, "turns": 0.1}, enforce=True) as books:
        assert serve(books, CHAT, CHAT) == [CHAT, CHAT]
        assert is_declined(serve(books, VOUCHER)[0])
        found = read_metrics(books)
    assert [found[f'cmpo_declined_total{{cost="{name}"}}'] for name in ("voucher", "turns")] == [1, 0]


class Strict(shop.Shop):
    def decline_action(self, text, seed):
        return "No.#0"


def test_a_sum_is_held_in_its_own_unit(tmp_path):
    budgets = {"refund": 1.0, "turns": 9.0}
    with ledger(tmp_path / "log", domain=Strict(), budgets=budgets, enforce=True, window=60) as books:
        # A batch is 3, so 3 euros from the beginning; with four dialogues in the window there are 4.
        assert serve(books, "Here.#2", "Here.#2", "Here.#1") == ["Here.#2", "No.#0", "Here.#1"]
        assert [serve(books, "Here.#1") for _ in range(4)] == [["No.#0"]] * 3 + [["Here.#1"]]


class Bare(shop.Shop):
    read_turn = shop.Domain.read_turn


def test_what_the_domain_cannot_do_is_refused_by_the_flags_name(tmp_path):
    budgets = {"refund": 1.0, "turns": 9.0}
    with pytest.raises(ValueError, match=r"^--budget: Bare does not say what an output costs \(read_turn\)"):
        ledger(tmp_path / "log", domain=Bare(), budgets=budgets)
    with pytest.raises(ValueError, match=r"^--enforce: Shop has no words that turn an action down"):
        ledger(tmp_path / "log", domain=shop.Shop(), budgets=budgets, enforce=True)
    with pytest.raises(ValueError, match="^--window: expected at least 20 dialogues, got 19"):
        ledger(tmp_path / "log", window=19)
    assert not (tmp_path / "log").exists()
    ledger(tmp_path / "log", domain=shop.Shop(), budgets=budgets).__exit__()
    told = r"^--ledger: expected a log of the costs \['voucher'\], got \['refund', 'turns'\] in .*log"
    with pytest.raises(ValueError, match=told):
        ledger(tmp_path / "log")
    ledger(tmp_path / "log", domain=shop.Shop(), budgets=budgets).__exit__()  # and it is nobody's now


def test_dialogues_that_nobody_ends_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(ledgers, "OPEN", 3)
    with ledger(tmp_path / "log") as books:
        for number in range(5):
            serve(books, CHAT, name=str(number), end=False)
            serve(books, CHAT, name="2", end=False)
        found = read_metrics(books)
        assert (found["cmpo_open_dialogues"], found["cmpo_dialogues_total"]) == (3, 2)
    assert [line["dialogue"] for line in read_log(tmp_path / "log", "end")] == ["0", "2", "1", "3", "4"]


CALLS = [
    *[("answer", name, text) for name in "ab" for text in (CHAT, VOUCHER)],
    ("report", "a", True),
    ("choice", "b", VOUCHER),
    ("end", "a", None),
    *[call for n in range(20) for call in (("answer", f"n{n}", VOUCHER if n % 3 else CHAT), ("end", f"n{n}", None))],
    ("report", "n19", False),
    ("answer", "n19", VOUCHER),
    ("answer", "b", CHAT),
    ("answer", "c", VOUCHER),
    ("end", "b", None),
]


def make_calls(books, calls, done=lambda: None):
    """Makes calls; after each, `done`."""
    sent = {}
    for kind, name, what in calls:
        before = sent.setdefault(name, [])
        match kind:
            case "answer":
                before.append(books.review(name, what, before=tuple(before), tokens=3))
            case "choice":
                books.review(name, what, before=tuple(before[:-1]), tokens=3)
            case "report":
                books.report(name, resolved=what, rating=3.0)
            case "end":
                books.end(name)
        done()


@pytest.mark.parametrize("enforce", [False, True])
def test_killed_after_any_line_or_within_one_it_goes_on_from_there(tmp_path, enforce):
    options, said = {"window": 40, "enforce": enforce}, []
    path, kept = tmp_path / "log", tmp_path / "kept"
    with ledger(path, **options) as books:
        sizes = [path.stat().st_size]  # of the log after so many calls
        make_calls(books, CALLS, lambda: sizes.append(path.stat().st_size))
        shutil.copy(path, kept)
    whole, killed, expected = kept.read_bytes(), tmp_path / "killed", {}
    cuts = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    assert len(cuts) == len(CALLS) + 12  # the start, and 11 batches of two dialogues
    for cut in cuts:
        calls = next(number for number, size in enumerate(sizes) if size >= cut)
        if calls not in expected:
            with ledger(tmp_path / f"{calls}", **options) as books:
                make_calls(books, CALLS[:calls])
            expected[calls] = read_metrics(books)  # after all dialogues under way have ended, as a restart ends them
        killed.write_bytes(whole[: cut + 5])
        with ledger(killed, say=said.append, **options) as books:
            assert read_metrics(books) == pytest.approx(expected[calls], nan_ok=True), cut
    assert len(said) >= len(cuts) - 1 and "left out a last line that was cut off" in said[0]


STEP = st.tuples(
    st.sampled_from(("go on", "choice", "back", "return", "end")), st.integers(0, 4), st.booleans(), st.integers(0, 9)
)


@settings(max_examples=40)
@given(
    steps=st.lists(STEP, min_size=30, max_size=150),
    window=st.sampled_from((20, 40)),
    budget=st.sampled_from((0.0, 0.1, 0.3, 0.5)),
)
def test_enforcement_never_exceeds_the_budget_in_whatever_order(tmp_path_factory, steps, window, budget):
    """Dialogues are kept here by hand: what was sent, and the vouchers that the client may have got of it."""
    path = tmp_path_factory.mktemp("ledger") / "log"
    dialogues, ended = {}, []
    with ledger(path, budgets={"voucher": budget}, enforce=True, window=window) as books:
        for number, (what, which, voucher, choice) in enumerate(steps):
            name = f"{which}-{sum(one.startswith(f'{which}-') for one in ended)}"
            if what == "return" and ended:
                name = ended[-window:][choice % len(ended[-window:])]
            one = dialogues.setdefault(name, Seen())
            if what == "end":
                if one.choices and name not in ended:
                    books.end(name)
                    ended.append(name)
                continue
            if what in ("go on", "return"):
                one.go_on(choice)
            elif what == "back":
                one.go_back()
            text = VOUCHER if voucher else words(f"Sorry {number}.")
            one.choices.append(books.review(name, text, before=tuple(one.history), tokens=1))
            given = sum(dialogues[name].count_vouchers() for name in ended[-window:])
            assert given <= budget * max(len(ended[-window:]), window // 20) + 1e-9


class Seen:
    """A dialogue as its client sees it."""

    def __init__(self):
        self.history, self.choices, self.left = [], [], 0

    def go_on(self, choice):
        if self.choices:
            self.history.append(self.choices[choice % len(self.choices)])
            self.choices = []

    def go_back(self):
        if self.history:
            self.left, self.history, self.choices = self.count_vouchers(), [], []

    def count_vouchers(self):
        """Those that it may have got: it takes the choice with one."""
        return self.left + (VOUCHER in self.history + self.choices)
