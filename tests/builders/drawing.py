"""Answers drawn at random among the tokens that a constraint allows."""

import numpy as np


def draw_answer(constraint, tokenizer, vocab_size, seed, *, patience=60):
    """Draws to the end of the turn; after `patience` tokens, those that lead to it, where they are allowed.

    Checks on the way that there is always a token, and never one that no answer may hold.
    """
    rng, ids = np.random.default_rng(seed), []
    ends = [tokenizer.im_end, *(tokenizer.encode(text)[0] for text in '"}]')]
    forbidden = [*(tokenizer.control_ids - {tokenizer.im_end}), *range(tokenizer.vocab_size, vocab_size)]
    while not ids or ids[-1] != tokenizer.im_end:
        allowed = constraint.allowed()
        assert allowed.shape == (vocab_size,) and allowed.any() and not allowed[forbidden].any()
        wanted = [token for token in ends if allowed[token] and len(ids) > patience]
        ids.append(int(rng.choice(wanted or np.flatnonzero(allowed))))
        constraint.accept(ids[-1])
        assert len(ids) < 3000
    assert np.flatnonzero(constraint.allowed()).tolist() == [tokenizer.im_end]
    return tokenizer.decode(ids[:-1])
