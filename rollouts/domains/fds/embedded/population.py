"""Who calls: how often each kind of customer comes, as the generator deals them."""

import functools
import itertools
import random

import numpy as np

from rollouts.domains.fds import mix
from rollouts.domains.fds.embedded import latent
from rollouts.domains.fds.embedded.latent import Customer, Mood
from rollouts.domains.fds.scenario import DEMANDS

HONEST = {True: 1.0, False: 0.4, None: 0.8}
"""P(honest | supported), whoever calls: a record that contradicts an honest customer is wrong."""

TRAITS = {  # P(the first value | level 1..5), independent of each other, of the demand and of the worth
    "discloses": ((True, False), (0.3, 0.4, 0.55, 0.65, 0.8)),
    "wants": (("steps", "short"), (0.35, 0.4, 0.5, 0.6, 0.65)),
    "temper": (("flares", "silent"), (0.8, 0.6, 0.5, 0.4, 0.3)),
}


def draw_customer(level: int, demand: str, supported: bool | None, rng: random.Random) -> Customer:
    """Draws what a customer has besides level, demand and record."""
    traits = {name: values[rng.random() >= shares[level - 1]] for name, (values, shares) in TRAITS.items()}
    return Customer(
        level, demand, supported, latent.draw_worth(level, demand, rng), rng.random() < HONEST[supported], **traits
    )


def weigh_levels(difficulty: str = "hard", split: str = "test") -> np.ndarray:
    """Returns P(level 1..5), [5]; arguments as for `generator.deal_scenarios`."""
    counts = np.array(mix.LEVEL_COUNTS[difficulty, split], float)
    return counts / counts.sum()


def weigh_demands(level: int) -> np.ndarray:
    """Returns P(demand, worth | level), [4, 31]."""
    weights = np.array([mix.DEMAND_WEIGHTS[demand][level - 1] for demand in DEMANDS])
    worths = np.array([latent.WORTH[level, demand] for demand in DEMANDS])
    return (weights / weights.sum())[:, None] * worths


def weigh_records() -> dict[bool | None, float]:
    """Returns P(supported)."""
    total = sum(mix.SUPPORT_WEIGHTS.values())
    return {supported: weight / total for supported, weight in mix.SUPPORT_WEIGHTS.items()}


def share_trait(name: str, value: object, level: int) -> float:
    """Returns P(trait has the value | level)."""
    (first, _), shares = TRAITS[name]
    return shares[level - 1] if value == first else 1 - shares[level - 1]


def start_of(level: int) -> Mood:
    """Returns the mood in which customers of a level begin."""
    return latent.start_mood(Customer(level, DEMANDS[0], True, 0, True, True, "steps", "flares"))


def levels_of(heat: int) -> list[int]:
    """Returns the levels whose customers begin with this heat, which openings show; they begin in the same mood."""
    return [level for level in range(1, 6) if start_of(level).anger == heat]


def list_openings() -> list[tuple[int, bool, str]]:
    """Lists what an opening tells for certain: (heat, discloses, wants)."""
    heats = sorted({start_of(level).anger for level in range(1, 6)})
    return list(itertools.product(heats, *(TRAITS[name][0] for name in ("discloses", "wants"))))


@functools.cache
def weigh_hidden(heat: int, discloses: bool, wants: str, difficulty: str = "hard", split: str = "test") -> np.ndarray:
    """Returns P(demand, worth, and an opening that tells the rest), [4 * 31]."""
    shares = weigh_levels(difficulty, split)
    return sum(
        shares[level - 1]
        * share_trait("discloses", discloses, level)
        * share_trait("wants", wants, level)
        * weigh_demands(level)
        for level in levels_of(heat)
    ).reshape(-1)
