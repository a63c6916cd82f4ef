"""How far customers and orders are from those of training: other phrasings, noise in the words, other facts."""

import dataclasses

NOISES = {
    "typos": "with typing mistakes",
    "capitals": "IN CAPITALS",
    "emoji": "with emoji",
    "filler": "with a sentence about something else first",
    "language": "with a bit of another language",
    "attached": "writing (photo attached) for pictures",
}
"""Kinds of noise, and how the customer's prompt tells them."""

_HELD_OUT, _ORDINARY = "in unusual phrases", "ordinary"


@dataclasses.dataclass(frozen=True)
class Shift:
    """What differs from the training distribution. The default is no shift."""

    phrasing: bool = False  # held-out templates for customers' messages, courier's words and records
    noise: tuple[str, ...] = ()  # kinds of NOISES, in their order
    facts: bool = False  # held-out dishes, merchants, kinds of records and ranges of numbers

    def __post_init__(self):
        if self.noise != tuple(kind for kind in NOISES if kind in self.noise):
            raise ValueError(f"noise: expected kinds among {tuple(NOISES)}, in this order, got {self.noise!r}")

    def __str__(self) -> str:
        """The text that `parse_shift` reads back."""
        noise = "noise" if self.noise == tuple(NOISES) else "noise=" + "+".join(self.noise)
        parts = ["phrasing"] * self.phrasing + [noise] * bool(self.noise) + ["facts"] * self.facts
        if parts == ["phrasing", "noise", "facts"]:
            return "all"
        return ",".join(parts) or "none"

    @property
    def words(self) -> str:
        """How a customer writes, as its prompt tells it; facts are not told, they show."""
        told = [_HELD_OUT] * self.phrasing + [NOISES[kind] for kind in self.noise]
        return "; ".join(told) or _ORDINARY


NO_SHIFT = Shift()


def parse_shift(text: str) -> Shift:
    """Reads `none`, `all`, or parts joined by commas: `phrasing`, `facts`, `noise`, `noise=KIND+KIND`.

    Raises ValueError, naming the part, for anything else.
    """
    if text == "none":
        return NO_SHIFT
    if text == "all":
        return Shift(phrasing=True, noise=tuple(NOISES), facts=True)
    phrasing, facts, noise = False, False, set()
    for part in text.split(","):
        name, _, kinds = part.partition("=")
        if part == "phrasing":
            phrasing = True
        elif part == "facts":
            facts = True
        elif part == "noise":
            noise |= NOISES.keys()
        elif name == "noise" and set(kinds.split("+")) <= NOISES.keys():
            noise |= set(kinds.split("+"))
        else:
            raise ValueError(
                f"shift: expected none, all, or of phrasing, facts, noise, noise=KIND+KIND with kinds among "
                f"{tuple(NOISES)}, joined by commas, got {part!r}"
            )
    return Shift(phrasing, tuple(kind for kind in NOISES if kind in noise), facts)


def read_words(told: str) -> Shift:
    """Reads `Shift.words` back. Raises ValueError for other text."""
    kinds = {text: kind for kind, text in NOISES.items()}
    parts = [] if told == _ORDINARY else told.split("; ")
    if unknown := [part for part in parts if part != _HELD_OUT and part not in kinds]:
        raise ValueError(f"way of writing: expected {_ORDINARY!r}, or {[_HELD_OUT, *kinds]}, got {unknown}")
    return Shift(phrasing=_HELD_OUT in parts, noise=tuple(kind for kind in NOISES if NOISES[kind] in parts))
