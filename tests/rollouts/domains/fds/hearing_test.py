"""What an agent makes of a customer's message: exactly where it is of the banks, mostly right where it is not."""

import itertools
import random

import pytest

from rollouts.domains.fds import generator
from rollouts.domains.fds.embedded import case as cases
from rollouts.domains.fds.embedded import latent, signals, writing
from rollouts.domains.fds.hearing import hear_message
from rollouts.domains.fds.shift import parse_shift


def list_messages(shift, count=120):
    """Yields (is it the first?, signal, complaint, text, names) for openings and answers of dealt customers."""
    rng, shift = random.Random(4), parse_shift(shift)
    for scenario in itertools.islice(generator.deal_scenarios(4, split="test", shift=shift), count):
        case = cases.read_case(generator.user_prompt(scenario))
        names = [*(item.name for item in case.items), case.merchant]
        customer, heard = case.customer, latent.start_mood(case.customer)._replace(heard=1)
        told = [(True, signals.draw_signal(signals.list_openings(customer), rng))]
        for act in ("ask", "probe", "explain_true"):
            after = latent.list_outcomes(customer, heard, frozenset({act}))[0][1]
            listed = signals.list_signals(customer, heard, after, frozenset({act}))
            told.append((False, signals.draw_signal(listed, rng)))
        for first, signal in told:
            yield first, signal, case.complaint, writing.write_message(signal, case, rng, shift), names


@pytest.mark.parametrize("shift", ["none", "phrasing", "facts"])
def test_messages_of_the_banks_are_heard_exactly(shift):
    for first, signal, complaint, text, names in list_messages(shift):
        heard = hear_message(text, names, first=first)
        assert heard.exact and heard.signal == signal, text
        assert heard.complaint == complaint or not first


def test_noisy_messages_are_mostly_heard_right():
    messages = list(list_messages("noise"))
    heard = [(*message, hear_message(message[3], message[4], first=message[0])) for message in messages]
    assert sum(not one[-1].exact for one in heard) > 0.7 * len(heard)
    openings = [one for one in heard if one[0]]
    assert sum(one[-1].complaint == one[2] for one in openings) > 0.8 * len(openings)
    for field, share in {"stance": 0.8, "hint": 0.7, "heat": 0.8, "picture": 0.95}.items():
        right = [getattr(one[-1].signal, field) == getattr(one[1], field) for one in heard]
        assert sum(right) > share * len(right), field
    answers = [one for one in heard if not one[0]]
    assert sum(one[-1].signal.reaction == one[1].reaction for one in answers) > 0.7 * len(answers)


@pytest.mark.parametrize(
    ("text", "first", "expected"),
    [
        ("hello, the pizza we got today was ice cold!!", True, {"complaint": "food temperature"}),
        ("You forgot half of my order, the fries are missing", True, {"complaint": "missing items"}),
        ("the chicken is raw in the middle, thats dangerous", True, {"complaint": "not fresh or undercooked"}),
        ("Sure, a voucher sounds good to me", False, {"reaction": "agreed"}),
        ("no thank you, I do not want a voucher", False, {"reaction": "refused_offer"}),
        ("I already sent you that photo", False, {"reaction": "asked_again"}),
        ("see it here (photo attached)", False, {"picture": True}),
    ],
)
def test_words_of_others_are_heard_by_their_sense(text, first, expected):
    heard = hear_message(text, ["Cheese Pizza", "Casa Rosa"], first=first)
    found = {"complaint": heard.complaint, **heard.signal._asdict()}
    assert not heard.exact and {name: found[name] for name in expected} == expected
