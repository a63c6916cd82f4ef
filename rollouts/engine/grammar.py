"""The turn format as an automaton over tokens, so that sampling can be kept from breaking it (off by default).

The format is literal tokens (the tags, each with what must follow it at once) around two stretches of free text. Free
text may hold any token but control tokens and those with a `<` in them, save the first of the tag that ends it.

Legend: Q states, V vocabulary, T tokens.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.tokenizer import Tokenizer
from rollouts.chat import ACTIONS

_DEAD = -1


class Grammar(NamedTuple):
    """What may be written where; state 0 is the beginning of a turn."""

    allowed: np.ndarray  # [Q, V] bool
    follows: np.ndarray  # [Q, V] int32, the next state

    def after(self, state: int, ids: Sequence[int]) -> int:
        """The state after `ids` [T], written in `state`."""
        for token in ids:
            state = int(self.follows[state, token])
        return state


def turn_format(tokenizer: Tokenizer, vocab_size: int) -> Grammar:
    """The grammar of ``<think>…</think><response>…</response><action>chat|voucher</action>`` and the end of the turn.

    `vocab_size` is V, the model's, of which the tokenizer may use less. A response has at least one visible character.
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

    begin, think, blank, response, action, closing, over = (state() for _ in range(7))
    literal(begin, tokenizer.encode("<think>"), think)
    rows[think][free] = think
    literal(think, tokenizer.encode("</think><response>"), blank)
    rows[blank][free], rows[blank][visible] = blank, response
    rows[response][free] = response
    literal(response, tokenizer.encode("</response><action>"), action)
    for name in ACTIONS:
        literal(action, tokenizer.encode(name), closing)
    literal(closing, [*tokenizer.encode("</action>"), tokenizer.im_end], over)
    rows[over][tokenizer.im_end] = over
    follows = np.stack(rows)
    return Grammar(follows != _DEAD, np.where(follows == _DEAD, over, follows))
