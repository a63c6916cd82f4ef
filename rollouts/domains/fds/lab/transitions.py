"""The rules of `latent` for arrays: a customer and a mood are `latent.Customer` and `latent.Mood` of int32 arrays.

Nothing is written twice. Conditions and effects are read from `latent.RULES` when a function is traced, and what
`latent` computes from few fields is tabulated by calling it. Every function is pure and works element by element: it
may be jitted and mapped, and fields may have any leading axes, as long as all have the same ones.

Legend: [...] those leading axes. Fields hold codes: a mood's are its numbers, a customer's the places in `VALUES`.
"""

import functools
import itertools
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import jax.numpy as jnp
import numpy as np

from rollouts.domains.fds.embedded import latent, population
from rollouts.domains.fds.embedded.latent import Customer, Mood
from rollouts.domains.fds.scenario import DEMANDS

VALUES = {
    "level": tuple(range(6)),  # 1 to 5, so that a level's code is itself; there is no level 0
    "demand": DEMANDS,
    "supported": (False, True, None),
    "worth": tuple(range(len(latent.WORTH[1, DEMANDS[0]]))),
    "honest": (False, True),
    "discloses": (False, True),
    "wants": population.TRAITS["wants"][0],
    "temper": population.TRAITS["temper"][0],
}
"""Field of a customer -> what its codes 0, 1, 2 … mean."""

EVENTS = tuple(latent.EVENTS)
ENDS = ("", "rated", "quit")
"""What the codes of `find_end` mean."""

Events = Mapping[str, chex.Array]
"""Event -> [...] bool, whether it happened in a turn; all of `EVENTS`. What is `NEVER` costs no time, not even to
compile."""

NEVER = np.False_


class Outcomes(NamedTuple):
    """What may follow a turn. Where no offer is answered, `refused` is the same as `agreed`, and its chance is 0."""

    chance: chex.Array  # [...] float32, of `agreed`
    agreed: Mood  # of [...] int32
    refused: Mood


class EventEffect(NamedTuple):
    """What an event adds to fields of the mood, int32 each."""

    changes: Mapping[str, chex.Array]  # field -> [...]
    refusals: Mapping[str, chex.Array]  # the same if an offer is refused
    answered: chex.Array  # [...] bool, whether it is an offer that is answered


def encode_customer(customer: Customer) -> Customer:
    """Returns the codes of a customer, int32 scalars each."""
    return Customer(*(np.int32(VALUES[field].index(value)) for field, value in customer._asdict().items()))


def decode_customer(codes: Customer) -> Customer:
    """Returns the customer of scalar codes."""
    return Customer(*(VALUES[field][int(code)] for field, code in codes._asdict().items()))


def split_events(happened: chex.Array) -> Events:
    """Splits [..., E] bool, in the order of `EVENTS`, into events."""
    return {event: happened[..., place] for place, event in enumerate(EVENTS)}


def start_mood(customer: Customer) -> Mood:
    """Returns the mood in which customers begin; see `latent.start_mood`."""
    starts = [[0] * len(Mood._fields), *(population.start_of(level) for level in VALUES["level"][1:])]
    return Mood(*(jnp.asarray(column, jnp.int32)[customer.level] for column in np.transpose(starts)))


def count_acts(events: Events) -> chex.Array:
    """Counts the good acts among events, [...] int32."""
    return sum(events[act].astype(jnp.int32) for act in latent.GOOD_ACTS)


def is_crowded(customer: Customer, events: Events) -> chex.Array:
    """Whether a turn has more good acts than the customer likes, [...] bool."""
    most = jnp.asarray([latent.MOST_ACTS[wants] for wants in VALUES["wants"]])
    return count_acts(events) > most[customer.wants]


def drown_acts(events: Events) -> dict[str, chex.Array]:
    """Returns `events` without the good acts that spam drowns."""
    return {**events, **{act: events[act] & ~events["spam"] for act in latent.GOOD_ACTS}}


def find_outcomes(customer: Customer, mood: Mood, events: Events) -> Outcomes:
    """Finds what may follow a turn with `events`; see `latent.list_outcomes`."""
    happened = _derive_events(customer, mood, events)
    effects = {event: find_effect(customer, mood, event) for event, did in happened.items() if did is not NEVER}
    answered = functools.reduce(operator.or_, (happened[event] & effects[event].answered for event in effects), NEVER)
    changes, refusals = ({"patience": jnp.full_like(mood.patience, -1)} for _ in range(2))
    for event, effect in effects.items():
        for totals, added in ((changes, effect.changes), (refusals, effect.refusals)):
            for field, change in added.items():
                totals[field] = totals.get(field, 0) + jnp.where(happened[event], change, 0)
    chance = jnp.where(answered, chance_to_agree(customer, mood), 1)
    return Outcomes(chance, change_mood(mood, changes), change_mood(mood, refusals))


def find_effect(customer: Customer, mood: Mood, event: str) -> EventEffect:
    """Finds what `event`, of `EVENTS` or `latent.DERIVED`, adds: the first rule that applies does it."""
    before = {**customer._asdict(), **mood._asdict()}
    changes, refusals = {}, {}
    answered, open_still = jnp.zeros(jnp.shape(mood.patience), bool), True
    for rule in latent.RULES:
        if rule.event != event:
            continue
        applies = open_still
        for field, values in rule.when.items():
            applies &= functools.reduce(operator.or_, (before[field] == _encode(field, value) for value in values))
        open_still &= jnp.logical_not(applies)
        if rule.refusal is not None:
            answered |= applies
        for totals, added in ((changes, rule.effect), (refusals, rule.refusal or rule.effect)):
            for field, change in added.items():
                totals[field] = totals.get(field, 0) + jnp.where(applies, change, 0)
    return EventEffect(changes, refusals, answered)


def change_mood(mood: Mood, changes: Mapping[str, chex.Array]) -> Mood:
    """Adds changes to a mood and clips it to `latent.LIMITS`."""
    return mood._replace(
        **{
            field: jnp.clip(getattr(mood, field) + change, 0, getattr(latent.LIMITS, field))
            for field, change in changes.items()
        }
    )


def chance_to_agree(customer: Customer, mood: Mood) -> chex.Array:
    """Returns the chance that an offer is accepted, [...] float32; see `latent.chance_to_agree`."""
    return _tabulate_agreement().look_up(customer, mood)


def find_end(mood: Mood) -> chex.Array:
    """Tells how the conversation ends, [...] int32, a place in `ENDS`; see `latent.find_end`."""
    return _tabulate_ends().look_up(None, mood)


def expected_rating(customer: Customer, mood: Mood) -> chex.Array:
    """Returns the mean rating, [...] float32; see `latent.expected_rating`."""
    lost = start_mood(customer).patience - mood.patience
    parts = sum(table.look_up(customer, mood) for table in _tabulate_ratings())
    return jnp.clip(parts + latent.PATIENCE_WORTH * lost, 1.0, 5.0)


def _derive_events(customer: Customer, mood: Mood, events: Events) -> dict[str, chex.Array]:
    """Returns `events` with those of `latent.DERIVED`; spam drowns the good acts, and accusing an offer."""
    happened = drown_acts(events)
    accused = happened["offer"] & happened["explain_true"] & (mood.facts == 0)
    accused &= customer.supported == _encode("supported", False)
    stung = functools.reduce(operator.or_, (events[event] for event in latent.STINGS))
    crowded = is_crowded(customer, happened)
    return happened | {"offer": happened["offer"] & ~accused, "crowded": crowded, "stung": stung, "accused": accused}


def _encode(field: str, value: Any) -> int:
    return VALUES[field].index(value) if field in VALUES else value


class Tabulated(NamedTuple):
    """What a function of `latent` gives for every value of the few fields that it looks at."""

    fields: tuple[str, ...]
    values: np.ndarray  # an axis for each field

    def look_up(self, customer: Customer | None, mood: Mood) -> chex.Array:
        """Returns the values for a customer and a mood of [...] arrays; no customer where the table needs none."""
        codes = {**(customer._asdict() if customer else {}), **mood._asdict()}
        place = 0  # in one flat axis, which is quicker to read from than many
        for field, size in zip(self.fields, self.values.shape, strict=True):
            place = place * size + codes[field]
        return jnp.asarray(self.values.reshape(-1)).at[place].get(mode="clip")


_CUSTOMER = Customer(3, DEMANDS[0], True, 0, True, True, *(VALUES[field][0] for field in ("wants", "temper")))
_MOOD = Mood(*[0] * len(Mood._fields))


def _tabulate(
    function: Callable[[Customer, Mood], float], fields: tuple[str, ...], dtype: Any = np.float32
) -> Tabulated:
    """Calls a function of `latent` for every value of `fields`, all others being those of a plain case."""
    choices = [VALUES.get(field) or range(getattr(latent.LIMITS, field) + 1) for field in fields]
    found = []
    for values in itertools.product(*choices):
        changes = dict(zip(fields, values, strict=True))
        customer = _CUSTOMER._replace(**{field: value for field, value in changes.items() if field in VALUES})
        mood = _MOOD._replace(**{field: value for field, value in changes.items() if field not in VALUES})
        found.append(function(customer, mood))
    return Tabulated(fields, np.array(found, dtype).reshape([len(values) for values in choices]))


@functools.cache
def _tabulate_agreement() -> Tabulated:
    return _tabulate(latent.chance_to_agree, ("demand", "worth", "anger", "trust", "limits"))


@functools.cache
def _tabulate_ends() -> Tabulated:
    fields = ("patience", "anger", "trust", "offended", "over")
    return _tabulate(lambda customer, mood: ENDS.index(latent.find_end(customer, mood)), fields, np.int32)


@functools.cache
def _tabulate_ratings() -> tuple[Tabulated, ...]:
    """The parts that make up a rating before patience: a table for all fields at once would have a million entries."""

    def measure_step(customer: Customer, mood: Mood) -> float:
        return latent.rate_service(customer, mood) - latent.rate_service(customer, _MOOD)

    # A field whose worth hangs on the demand has a table with it; what is hoped for hangs on whether a voucher came.
    parts = [("demand", field) for field in ("heard", "limits", "noted")]
    parts += [("stepped", "trust", "anger"), ("offended",), ("probed", "deal", "voucher"), ("over",)]
    return (
        _tabulate(latent.rate_remedy, ("demand", "worth", "heard", "facts", "voucher")),
        _tabulate(lambda customer, mood: latent.rate_service(customer, _MOOD), ("demand",)),
        *(_tabulate(measure_step, fields) for fields in parts),
    )
