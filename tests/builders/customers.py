"""Customers and moods of the embedded gym, and the best that a search finds for them, for the tests that need them."""

import functools
import itertools

from hypothesis import strategies as st

from rollouts.domains.fds.embedded import latent
from rollouts.domains.fds.scenario import DEMANDS

DOMAINS = {
    "level": range(1, 6),
    "demand": DEMANDS,
    "supported": (True, False, None),
    **{field: range(limit + 1) for field, limit in latent.LIMITS._asdict().items()},
}
customers = st.builds(latent.Customer, *(st.sampled_from(DOMAINS[field]) for field in latent.Customer._fields))
moods = st.builds(latent.Mood, *(st.sampled_from(DOMAINS[field]) for field in latent.Mood._fields))
happenings = st.frozensets(st.sampled_from(sorted(latent.EVENTS)), max_size=6)

CUSTOMER = latent.Customer(3, "refund_priority", True)

ACTS = ("listen", "ask", "explain_true", "note", "offer", "limit", "close")
TURNS = [frozenset({act}) for act in ACTS] + [frozenset(pair) for pair in itertools.combinations(ACTS[:5], 2)]
WORLD = [latent.Customer(level, demand, fact) for level in (1, 3) for demand in DEMANDS for fact in (True, False)]
NEVER, PRESSED, AGREED, ANYHOW = (), (0, 1, 3), (2,), (0, 1, 2, 3)


@functools.cache
def best(customer, mood, deals):
    """The best expected rating from here on, where a voucher may be given only when `mood.deal` is among `deals`."""
    found = 1.0
    for acts in TURNS:
        for events in (acts, acts | {"voucher"}) if mood.deal in deals else (acts,):
            after = latent.apply_events(customer, mood, events)
            end = latent.find_end(customer, after)
            if end == "rated":
                found = max(found, latent.expected_rating(customer, after))
            elif not end:
                found = max(found, best(customer, after, deals))
    return found


def value(customer, deals):
    return best(customer, latent.start_mood(customer), deals)
