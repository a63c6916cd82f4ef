"""Puts what the embedded customer tells into words, and reads such words back."""

import random
import re

from rollouts.domains.fds.embedded.case import Case
from rollouts.domains.fds.embedded.signals import Signal
from rollouts.domains.fds.scenario import write_items, write_price
from rollouts.domains.fds.shift import Shift
from rollouts.domains.fds.words import bank, decoding, noise
from rollouts.seeds import fold

MOST_SENTENCES = 4
"""A message has no small words beside so many parts."""

NON_NATIVE_PERCENT = 12
LOWER_PERCENT = {"b": 25, "t": 60, "p": 25, "w": 10, "n": 25}
"""Share of customers who write in small letters only, names aside, by the letter of their style."""

_PLEASED = {"agreed_gladly", "listened", "noted", "steps"}  # the anger of who is pleased shows in these words, or not
_GREETS, _MUSES, _SHOUTS = 0.3, 0.15, 0.5  # chance of a greeting, of a small word, of a line that shows anger itself
_LEADS = 0.25  # chance that a sentence has a lead
_FIRST_PERSON = re.compile(r"I\b")
_MARK = re.compile(r" ?\[(?:end:([1-5])|(quit))\]$")


def write_message(signal: Signal, case: Case, rng: random.Random, shift: Shift) -> str:
    """Writes what `signal` tells in the words of the case's customer.

    Args:
      signal: what the message tells.
      case: the customer, whose style chooses among phrasings, and the order that slots are filled from.
      rng: draws the phrasings and the noise.
      shift: `phrasing` takes held-out templates, `noise` is put on top.

    Raises:
      ValueError: an answer without a reaction, or a reaction, stance, … that no bank has.
    """
    values, style, lower = list_values(case), find_style(case), is_lower(case)
    planned = sum(map(bool, (signal.detail, signal.stance, signal.hint, signal.wants, signal.reaction)))

    def draw_template(name: str, *section: object) -> str:
        templates = bank.list_templates(name, tuple(map(str, section)), shift.phrasing, style)
        return bank.draw_phrasing(templates, values.keys(), rng)

    def draw(name: str, *section: object) -> str:
        # Who tells many things tells each of them in few words.
        text = min((draw_template(name, *section) for _ in range(max(1, planned))), key=len)
        if name in decoding.LED and rng.random() < _LEADS:
            rest = text if _FIRST_PERSON.match(text) else text[0].lower() + text[1:]
            text = f"{draw_template('leads', 'lead')} {rest}"
        return (text.lower() if lower else text).format(**values)

    if signal.kind == "opening":
        parts = [draw("openings", case.complaint, signal.heat)]
    elif signal.heat and signal.reaction and (signal.reaction in _PLEASED or rng.random() < _SHOUTS):
        parts = [draw("reactions", signal.reaction, signal.heat)]
    else:
        parts = [draw("reactions", signal.reaction)] if signal.reaction or signal.kind == "answer" else []
        if signal.heat:
            parts.insert(rng.randint(0, len(parts)), draw("heat", signal.heat))
    parts += [draw("details", case.complaint)] if signal.detail else []
    told = [draw("stances", signal.stance)] if signal.stance else []
    told += [draw("hints", signal.hint)] if signal.hint else []
    parts += told if rng.random() < 0.6 else told[::-1]
    parts += [draw("wants", signal.wants)] if signal.wants else []
    if signal.kind == "farewell":
        parts.append(draw("farewells", signal.rating))
    elif signal.kind == "walkout":
        parts.append(draw("walkouts", "quit"))
    elif len(parts) < MOST_SENTENCES and rng.random() < (_GREETS if signal.kind == "opening" else _MUSES):
        parts.insert(0, draw("fillers", signal.kind))
    if signal.picture:
        parts.insert(rng.randint(1, len(parts)), f"[Sent Picture: {draw('pictures', case.complaint)}]")
    mark = {"farewell": f" [end:{signal.rating}]", "walkout": " [quit]"}.get(signal.kind, "")
    return noise.add_noise(" ".join(parts), shift.noise, rng) + mark


def find_style(case: Case) -> str:
    """Returns the letter of the customer's style in the banks; for a style that they do not have, the level's.

    A few customers, by a hash of their order, are no native speakers.
    """
    if fold(0, "native", *_name_order(case)) % 100 < NON_NATIVE_PERCENT:
        return "n"
    return bank.STYLES.get(case.communication_style, "btpow"[case.customer.level - 1])


def is_lower(case: Case) -> bool:
    """Whether the customer never presses the shift key: by a hash of the order, more often who is terse or blunt."""
    return fold(0, "lower", *_name_order(case)) % 100 < LOWER_PERCENT.get(find_style(case), 0)


def list_values(case: Case) -> dict[str, str]:
    """Returns what slots are filled with; a fact that is not known has no value.

    One item is in dispute throughout a conversation: the first, but any of them, by a hash of the order, where the
    order came late or something is missing.
    """
    place = fold(0, "disputed", *_name_order(case)) if case.complaint in ("late delivery", "missing items") else 0
    disputed = case.items[place % len(case.items)]
    values = {"item": disputed.name, "merchant": case.merchant, "count": str(disputed.quantity)}
    if disputed.price:
        values["price"] = write_price(disputed.price)
    if case.ordered and case.delivered:
        begin, end = (int(clock[:2]) * 60 + int(clock[3:]) for clock in (case.ordered, case.delivered))
        values |= {"ordered": case.ordered, "delivered": case.delivered, "minutes": str((end - begin) % (24 * 60))}
    return values


def _name_order(case: Case) -> tuple:
    return case.merchant, case.ordered, write_items(case.items)


def read_message(text: str, names: tuple[str, ...] = ()) -> Signal:
    """Reads a message of `write_message` back, of either split, without noise.

    Args:
      text: the message.
      names: items and merchant that are not in the banks, see `words.decoding.split_message`.

    Raises:
      ValueError: naming the sentence that no template has, or what a message lacks or has twice.
    """
    mark = _MARK.search(text)
    parts = decoding.split_message(text[: mark.start()] if mark else text, names)
    found: dict[str, tuple[str, ...]] = {}
    for part in parts:
        if part.bank in found:
            raise ValueError(f"expected one of {part.bank} in a message, got two in {text!r:.200}")
        found[part.bank] = part.section
    heats = [found[name][1] for name in ("openings", "reactions") if len(found.get(name, ())) > 1]
    heats += [found["heat"][0]] if "heat" in found else []
    ends = {"openings": "opening", "farewells": "farewell", "walkouts": "walkout"}
    kind = next((kind for name, kind in ends.items() if name in found), "answer")
    rating = int(mark[1] or 0) if mark else 0
    if (kind == "answer" and "reactions" not in found) or (kind == "walkout") != bool(mark and mark[2]):
        raise ValueError(f"expected an opening, an answer with a reaction, a farewell or a walkout, got {text!r:.200}")
    if (kind == "farewell") != bool(rating) or (rating and found["farewells"] != (str(rating),)):
        raise ValueError(f"expected last words that fit their mark [end:{rating}], got {text!r:.200}")

    def find_key(name: str) -> str:
        return found[name][0] if name in found else ""

    return Signal(
        kind=kind,
        reaction=find_key("reactions"),
        stance=find_key("stances"),
        hint=int(find_key("hints") or 0),
        picture="pictures" in found,
        detail="details" in found,
        heat=int(heats[0]) if heats else 0,
        rating=rating,
        wants=find_key("wants"),
    )


def read_complaint(text: str, names: tuple[str, ...] = ()) -> str:
    """Returns the complaint that an opening or told details are about; "" where a message names none.

    Arguments and errors as for `read_message`.
    """
    mark = _MARK.search(text)
    for part in decoding.split_message(text[: mark.start()] if mark else text, names):
        if part.bank in ("openings", "details"):
            return part.section[0]
    return ""
