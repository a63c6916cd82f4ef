"""Customers and moods of the embedded gym, drawn and by hand, and a search that knows the rules and nothing else."""

import collections
import itertools

from hypothesis import strategies as st

from rollouts.domains.fds.embedded import latent, population, signals
from rollouts.domains.fds.scenario import DEMANDS

DOMAINS = {
    "level": range(1, 6),
    "demand": DEMANDS,
    "supported": (True, False, None),
    "worth": range(31),
    "honest": (True, False),
    "discloses": (True, False),
    "wants": ("steps", "short"),
    "temper": ("flares", "silent"),
    **{field: range(limit + 1) for field, limit in latent.LIMITS._asdict().items()},
}
customers = st.builds(latent.Customer, *(st.sampled_from(DOMAINS[field]) for field in latent.Customer._fields))
moods = st.builds(latent.Mood, *(st.sampled_from(DOMAINS[field]) for field in latent.Mood._fields))
happenings = st.frozensets(st.sampled_from(sorted(latent.EVENTS)), max_size=6)

CUSTOMER = latent.Customer(3, "refund_priority", True, 14, True, True, "steps", "flares")


def draw_customer(rng, difficulty="hard"):
    """Draws a customer as the generator deals them."""
    level = rng.choices(range(1, 6), weights=population.weigh_levels(difficulty))[0]
    demand = rng.choices(DEMANDS, weights=population.weigh_demands(level).sum(1))[0]
    records = population.weigh_records()
    supported = rng.choices(tuple(records), weights=tuple(records.values()))[0]
    return population.draw_customer(level, demand, supported, rng)


def search_best(state, price, replies, found=None):
    """The best mean of rating less `price` a voucher, by trying all `replies` and all messages in every turn.

    `state` lists (customer, mood, weight): all that may be the case after what was read so far. It takes no shortcut:
    moods that cannot be told apart stay together.
    """
    found = {} if found is None else found
    key = tuple(sorted(state, key=repr))
    if key not in found:
        found[key] = max(_try_reply(key, events, price, replies, found) for events in replies)
    return found[key]


def _try_reply(state, events, price, replies, found):
    value, heard = 0.0, collections.defaultdict(collections.Counter)
    for who, mood, weight in state:
        for chance, after in latent.list_outcomes(who, mood, events):
            end = latent.find_end(who, after)
            if end:
                rating = latent.expected_rating(who, after) if end == "rated" else 0.0
                value += weight * chance * (rating - price * (after.voucher > 0))
                continue
            for odds, signal in signals.list_signals(who, mood, after, events):
                heard[signal][who, after] += weight * chance * odds
    for some in heard.values():
        total = sum(some.values())
        rest = [(who, mood, round(weight / total, 12)) for (who, mood), weight in some.items()]
        value += total * search_best(rest, price, replies, found)
    return value


def combine(events, most):
    """All sets of 0 to `most` of the events."""
    return [frozenset(some) for count in range(most + 1) for some in itertools.combinations(events, count)]
