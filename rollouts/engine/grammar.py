"""A turn format as an automaton over tokens, so that sampling can be kept from breaking it (off by default).

A format is literal tokens around stretches of free text. Free text may hold any token but control tokens and those with
a `<` in them, save the first of the literal that ends it.

Legend: Q states, V vocabulary, T tokens.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.tokenizer import Tokenizer

FREE, VISIBLE = "free", "visible"
_DEAD = -1


class Literal(NamedTuple):
    """Text that stands there, or one of several."""

    texts: tuple[str, ...]


class Grammar(NamedTuple):
    """What may be written where; state 0 is the beginning of a turn."""

    allowed: np.ndarray  # [Q, V] bool
    follows: np.ndarray  # [Q, V] int32, the next state

    def after(self, state: int, ids: Sequence[int]) -> int:
        """The state after `ids` [T], written in `state`."""
        for token in ids:
            state = int(self.follows[state, token])
        return state


def write_grammar(tokenizer: Tokenizer, vocab_size: int, pieces: Sequence[Literal | str]) -> Grammar:
    """The grammar of a turn that is `pieces` one after another, the first a literal, and the end of the turn.

    FREE is text that may be empty, VISIBLE text with at least one visible character. `vocab_size` is V, the model's, of
    which the tokenizer may use less.
    """
    texts = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
    free = np.zeros(vocab_size, bool)
    free[[n for n, text in enumerate(texts) if "<" not in text and n not in tokenizer.control_ids]] = True
    visible = free.copy()
    visible[[n for n, text in enumerate(texts) if not text.strip(" \t\r\n\N{REPLACEMENT CHARACTER}")]] = False
    rows: list[np.ndarray] = []

    def state() -> int:
        rows.append(np.full(vocab_size, _DEAD, np.int32))
        return len(rows) - 1

    def literal(start: int, ids: Sequence[int], end: int) -> None:
        """Lets `ids` lead from `start` to `end`; beginnings that are there already are shared."""
        for token in ids[:-1]:
            if rows[start][token] == _DEAD:
                rows[start][token] = state()
            start = int(rows[start][token])
        rows[start][ids[-1]] = end

    here = state()
    for number, piece in enumerate(pieces):
        if piece == FREE:
            rows[here][free] = here
        elif piece == VISIBLE:
            there = state()
            rows[here][free], rows[here][visible] = here, there
            rows[there][free] = there
            here = there
        else:
            there = state()
            stop = [tokenizer.im_end] if number == len(pieces) - 1 else []
            for text in piece.texts:
                ids = [*tokenizer.encode(text), *stop]
                if number and pieces[number - 1] in (FREE, VISIBLE) and free[ids[0]]:
                    raise ValueError(f"expected what follows free text to begin with a '<', got {text!r}")
                literal(here, ids, there)
            here = there
    rows[here][tokenizer.im_end] = here
    follows = np.stack(rows)
    return Grammar(follows != _DEAD, np.where(follows == _DEAD, here, follows))
