"""What a scripted agent makes of a customer's message: the signal behind it, exactly or by its words.

Messages of the banks are read exactly. Others (typing mistakes, a language model in the customer's place) are read
sentence by sentence: each is given to the part of the banks whose words, or pieces of words, it has most of (naive
Bayes; the banks are the examples), and of each kind of part the surest one counts.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from rollouts.domains.fds.embedded import writing
from rollouts.domains.fds.embedded.signals import Signal
from rollouts.domains.fds.words import decoding
from rollouts.domains.fds.words.decoding import Part

_PICTURE = re.compile(r"\[sent picture[^\]]*\]|\([^)]*(?:photo|pic|attached)[^)]*\)", re.IGNORECASE)
_MARK = re.compile(r"\[[^\]]*\]")
_WORD = re.compile(r"\{\w+\}|[a-z']+")
_OPENING = ("openings", "details", "stances", "hints", "wants", "fillers")
_ANSWER = ("reactions", "heat", "details", "stances", "hints", "fillers")
_SURE = 0.7  # nats for each piece by which a part must be likelier than words drawn at random, to be believed
_SMOOTH = 200.0  # pieces
_PIECE = 4


class Heard(NamedTuple):
    """A message as an agent understands it."""

    signal: Signal
    complaint: str  # "" where the message names none
    exact: bool  # False: it was read by its words


def hear_message(text: str, names: Sequence[str], *, first: bool) -> Heard:
    """Reads a customer's message.

    Args:
      text: the message; end marks may be there or not.
      names: the order's items and merchant, as the agent's prompt has them.
      first: it begins the conversation.
    """
    try:
        signal = writing.read_message(text, tuple(names))
        if (signal.kind == "opening") == first:
            return Heard(signal, writing.read_complaint(text, tuple(names)), True)
    except ValueError:  # not of the banks
        pass
    return _hear_words(text, names, first)


def _hear_words(text: str, names: Sequence[str], first: bool) -> Heard:
    plain = text
    for name in sorted(names, key=len, reverse=True):
        plain = re.sub(re.escape(name), "{name}", plain, flags=re.IGNORECASE)
    plain = decoding.mark_slots(_MARK.sub(" ", _PICTURE.sub(" ", plain)))
    found: dict[str, tuple[float, Part]] = {}
    for sentence in decoding.split_sentences(plain):
        sureness, part = _find_likeliest(sentence, first)
        if sureness > found.get(part.bank, (_SURE,))[0]:
            found[part.bank] = sureness, part
    if first and "openings" not in found:  # whatever else was said, something is complained of
        found["openings"] = _find_likeliest(plain, first, ("openings",))
    parts = {name: part.section for name, (_, part) in found.items()}
    heats = [parts[name][1] for name in ("openings", "reactions") if len(parts.get(name, ())) > 1]
    heats += [parts["heat"][0]] if "heat" in parts else []
    told = {name: parts[name][0] for name in parts}
    signal = Signal(
        "opening" if first else "answer",
        "" if first else told.get("reactions", "nothing"),
        told.get("stances", ""),
        int(told.get("hints", 0)),
        picture=bool(_PICTURE.search(text)),
        detail="details" in told,
        heat=int(heats[0]) if heats else 0,
        wants=told.get("wants", ""),
    )
    return Heard(signal, told.get("openings", told.get("details", "")), False)


def _find_likeliest(text: str, first: bool, banks: Sequence[str] = ()) -> tuple[float, Part]:
    """Returns the part that a text is likeliest to be, and how sure that is: nats for each piece, against any words."""
    words = _list_pieces(text)
    banks = banks or (_OPENING if first else _ANSWER)
    scores = (
        (sum(gains.get(word, loss) for word in words) / max(1, len(words)), part)
        for part, (gains, loss) in _weigh_words().items()
        if part.bank in banks
    )
    return max(scores)


def _list_pieces(text: str) -> list[str]:
    """Returns the words of a text in pieces of up to `_PIECE` letters, some of which a typing mistake leaves whole."""
    pieces = []
    for word in _WORD.findall(text.lower()):
        padded = f" {word} "
        pieces += [padded[place : place + _PIECE] for place in range(max(1, len(padded) - _PIECE + 1))]
    return pieces


@functools.cache
def _weigh_words() -> dict[Part, tuple[dict[str, float], float]]:
    """Returns for each part the log-likelihood ratio of its pieces against those of all parts, and of any other piece.

    A part's frequencies are smoothed by those of all, which weigh as much as `_SMOOTH` pieces.
    """
    counts: dict[Part, Counter[str]] = {}
    for text, part in decoding.list_phrasings():
        counts.setdefault(part, Counter()).update(_list_pieces(text))
    everything = sum(counts.values(), Counter())
    total = everything.total()
    weights = {}
    for part, words in counts.items():
        loss = math.log(_SMOOTH / (words.total() + _SMOOTH))
        gains = {
            word: math.log((count + _SMOOTH * everything[word] / total) / (words.total() + _SMOOTH))
            - math.log(everything[word] / total)
            for word, count in words.items()
        }
        weights[part] = gains, loss
    return weights
