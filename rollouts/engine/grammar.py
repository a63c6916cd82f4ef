"""A turn format as an automaton over tokens, so that sampling cannot break it (off by default).

A format is literal tokens around stretches of free text. Free text may hold any token but control tokens and tokens
with a `<` in them; the literal after it begins with such a token and ends it.

Legend: Q states, V vocabulary, T tokens.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.tokenizer import Tokenizer

FREE, VISIBLE = "free", "visible"
_DEAD = -1


class Literal(NamedTuple):
    """Fixed text, or one of several."""

    texts: tuple[str, ...]


class Grammar(NamedTuple):
    """What may be written where; state 0 is the beginning of a turn."""

    allowed: np.ndarray  # [Q, V] bool
    follows: np.ndarray  # [Q, V] int32, the next state

    def state_after(self, state: int, ids: Sequence[int]) -> int:
        """Returns the state after `ids` [T] were written in `state`."""
        for token in ids:
            state = int(self.follows[state, token])
        return state


def write_grammar(tokenizer: Tokenizer, vocab_size: int, pieces: Sequence[Literal | str]) -> Grammar:
    """Writes the grammar of a turn: `pieces` one after another, the first a literal, and the end of the turn.

    FREE is text that may be empty, VISIBLE text with at least one visible character. `vocab_size` is the model's V; the
    tokenizer may use fewer ids.
    """
    texts = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
    free = np.zeros(vocab_size, bool)
    free[[n for n, text in enumerate(texts) if "<" not in text and n not in tokenizer.control_ids]] = True
    visible = free.copy()
    visible[[n for n, text in enumerate(texts) if not text.strip(" \t\r\n\N{REPLACEMENT CHARACTER}")]] = False
    rows: list[np.ndarray] = []

    def add_state() -> int:
        rows.append(np.full(vocab_size, _DEAD, np.int32))
        return len(rows) - 1

    def add_literal(start: int, ids: Sequence[int], end: int) -> None:
        """Lets `ids` lead from `start` to `end`; shares states with literals that begin the same."""
        for token in ids[:-1]:
            if rows[start][token] == _DEAD:
                rows[start][token] = add_state()
            start = int(rows[start][token])
        rows[start][ids[-1]] = end

    here = add_state()
    for number, piece in enumerate(pieces):
        if piece == FREE:
            rows[here][free] = here
        elif piece == VISIBLE:
            there = add_state()
            rows[here][free], rows[here][visible] = here, there
            rows[there][free] = there
            here = there
        else:
            there = add_state()
            stop = [tokenizer.im_end] if number == len(pieces) - 1 else []
            for text in piece.texts:
                ids = [*tokenizer.encode(text), *stop]
                if number and pieces[number - 1] in (FREE, VISIBLE) and free[ids[0]]:
                    raise ValueError(f"expected what follows free text to begin with a '<', got {text!r}")
                add_literal(here, ids, there)
            here = there
    rows[here][tokenizer.im_end] = here
    follows = np.stack(rows)
    return Grammar(follows != _DEAD, np.where(follows == _DEAD, here, follows))
