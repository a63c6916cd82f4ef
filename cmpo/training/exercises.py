"""Exercises in reading, for new models: to repeat the facts of a prompt, in another order.

An exercise is nothing but quotation, where a dialogue of the same length quotes a handful of words. So a small model
learns to copy from its prompt in a few hundred steps, before it learns from dialogues what to quote.
"""

import re
from collections.abc import Iterable

import numpy as np

from cmpo.training.demonstrations import Conversation
from rollouts.types import Message

FACT = re.compile(r"[a-z][\w ]*: \S.*")
"""A line of a prompt that gives a fact by its name."""


def make_exercises(conversations: Iterable[Conversation], seed: int) -> list[Conversation]:
    """Makes an exercise of each conversation whose first message has two facts or more: lines ``name: value``.

    The facts are the prompt of the exercise, in any order, and the answer has each as a sentence, in any order.
    """
    rng, exercises = np.random.default_rng(seed), []
    for first, *_ in conversations:
        facts = [line for line in first.content.splitlines() if FACT.fullmatch(line)]
        if len(facts) > 1:
            answer = " ".join(f"{fact}." for fact in rng.permutation(facts))
            exercises.append([Message("system", "\n".join(rng.permutation(facts))), Message("assistant", answer)])
    return exercises
