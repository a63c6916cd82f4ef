"""Cases for the lab's arrays: customers, moods and sets of events, and the same as codes."""

import itertools
import random

import numpy as np

from rollouts.domains.fds.embedded import latent, signals
from rollouts.domains.fds.lab import environment, transitions
from rollouts.domains.fds.lab.transitions import EVENTS
from tests.builders.customers import CUSTOMER, DOMAINS

KINDS = ("supported", "honest", "discloses", "wants", "temper")
"""What of a customer any rule looks at."""


def encode(cases):
    """(customer, mood, events) each -> a customer and a mood of int32 [n], and events [n, E] bool."""
    customers = [transitions.encode_customer(customer) for customer, _, _ in cases]
    moods = np.array([mood for _, mood, _ in cases], np.int32)
    happened = np.array([[event in events for event in EVENTS] for _, _, events in cases])
    return latent.Customer(*np.transpose(customers)), latent.Mood(*moods.T), happened


def list_singles():
    """Each event alone, in all that its rules look at and in all of the mood that they change."""
    for event in EVENTS:
        rules = [rule for rule in latent.RULES if rule.event == event]
        looked = {field for rule in rules for field in (*rule.when, *rule.effect, *(rule.refusal or {}))} - {"patience"}
        fields = sorted(looked)
        for values in itertools.product(*(DOMAINS[field] for field in fields), (0, 1, 2, 3, 12)):
            yield *_make(dict(zip([*fields, "patience"], values, strict=True))), frozenset({event})


def list_pairs(seed=0):
    """Each pair of events for every kind of customer, in some mood."""
    rng = random.Random(seed)
    kinds = list(itertools.product(*(DOMAINS[field] for field in KINDS)))
    for pair in itertools.combinations(EVENTS, 2):
        for kind in kinds:
            customer, mood, _ = draw_case(rng)
            yield customer._replace(**dict(zip(KINDS, kind, strict=True))), mood, frozenset(pair)


def draw_cases(count, seed=0):
    """Any customers in any moods with up to six events."""
    rng = random.Random(seed)
    return [draw_case(rng) for _ in range(count)]


def draw_case(rng):
    customer = latent.Customer(*(rng.choice(DOMAINS[field]) for field in latent.Customer._fields))
    mood = latent.Mood(*(rng.choice(DOMAINS[field]) for field in latent.Mood._fields))
    mood = mood._replace(offended=min(mood.offended, rng.randrange(10)), over=int(mood.over and rng.random() < 0.2))
    return customer, mood, frozenset(rng.sample(EVENTS, rng.randrange(7)))


def _make(values):
    customer = CUSTOMER._replace(**{name: value for name, value in values.items() if name in latent.Customer._fields})
    mood = latent.Mood(*[0] * len(latent.Mood._fields))
    return customer, mood._replace(**{name: value for name, value in values.items() if name in latent.Mood._fields})


def make_states(cases, turns):
    """(customer, mood) each -> states with a leading axis after so many turns, in which messages told nothing yet."""
    customers, moods, _ = encode([(*case, frozenset()) for case in cases])
    nothing = np.zeros(len(cases), np.int32)
    return environment.LabState(
        customer=customers,
        mood=moods,
        turns=nothing + turns,
        first_heat=nothing,
        heat=nothing,
        stances=np.zeros((len(cases), len(signals.HINTS)), np.int32),
        hints=np.zeros((len(cases), len(signals.HINTS)), np.int32),
        over=np.zeros(len(cases), bool),
        outcome=np.zeros(len(cases), np.float32),
    )
