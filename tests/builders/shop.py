"""A shop that settles complaints with refunds in euros: a second domain, as small as they get."""

import random
import re
import sys
from dataclasses import dataclass

import numpy as np

from rollouts.domain import EVERYWHERE, Closing, Cost, Domain, Effect, Episode, Episodes, Measure
from rollouts.types import Message, Sample, Task

COSTS = (Cost("refund", "sum", "refunds", "Refund, euros", "{:.2f}"), Cost("turns", "sum", "turns", "Turns", "{:.1f}"))


def parse(text):
    if not (found := re.fullmatch(r"[\w .]+#([0-3])", text)):
        raise ValueError(f"expected words#euros, got {text!r}")
    return int(found[1])


def price(text):
    try:
        euros = parse(text)
    except ValueError:
        euros = 0
    return np.array([euros, 1], np.float32)


def hear(text):
    return text


@dataclass(frozen=True)
class Complaint(Task):
    worth: int  # of the goods, in euros
    opening = (Message("system", "A shop. Answer words#euros."),)
    labels = property(lambda self: {"worth": self.worth})
    description = property(lambda self: {"id": self.id, "worth": self.worth})


class Complaining(Episode):
    """Complains twice, and is content with half of what the goods were worth."""

    def __init__(self, task, *, seed, judge_seed):
        self.task, self.refunds, self.rewards = task, [], []

    async def open(self):
        return [Message("user", f"Broken. It was {self.task.worth} euros.")]

    def act(self, sample):
        try:
            parse(sample.text)
        except ValueError:
            self.end = "malformed"
        cost = price(sample.text)
        self.refunds.append(int(cost[0]))
        self.rewards.append(float("sorry" in sample.text))
        return Effect(cost, {"text": sample.text}, over=bool(self.end))

    async def respond(self):
        self.end = "settled" if len(self.refunds) == 2 else ""
        return () if self.end else (Message("user", "And?"),)

    async def close(self):
        content = self.end == "settled"
        outcome = min(1.0, 2 * sum(self.refunds) / self.task.worth) if content else -1.0
        return Closing(outcome, content, self.rewards, [{}] * len(self.rewards))


class Clerk:
    """Says sorry and refunds a euro now and then."""

    async def open(self, task, seed):
        self.random = random.Random(seed)
        return self

    async def reply(self, messages, seed):
        return Sample(self.random.choice(["I am sorry.#0", "No.#0", "I am sorry.#1", "Here.#1"]))

    def close(self):
        pass


class Shop(Domain):
    costs, turn_format, breaches = COSTS, sys.modules[__name__], ("malformed",)
    scores, objective, panel = {"content": lambda one: max(one.outcome, 0.0)}, "content", "Content (0 to 1)"
    measures = {"content": Measure("content", 1, 2), "refund_mean": Measure("refunds, euros", 1, 2), **EVERYWHERE}
    groups = {"worth": (2, 4)}

    def open_tasks(self, data, seed, prepared):
        return self

    def train(self, cursor, count):
        return [Complaint(str(number), 2 + number % 2 * 2) for number in range(cursor, cursor + count)]

    def held_out(self, count, seed):
        return self.train(10**6 * seed, count)

    def episodes(self, config, chats):
        return Episodes(Complaining, COSTS)

    def read_turn(self, text, before=(), *, truncated=False):
        return super().read_turn(text)._replace(cost=price(text))

    def scripted_agent(self, config, name, budget=None):
        return Clerk()


def make(constrained):
    return Shop()
