"""Every method learns in a world of two actions, by the loop's own steps, and learns nothing without its signal.

A dialogue has two turns of one sampled token. An odd token is the generous action: it adds to the outcome, the judge
likes it, and it costs a voucher. The other is the frugal action.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmpo.training import build, packing
from cmpo.training.learner import Learner
from cmpo.training.player import PlayedBatch
from cmpo.training.trainer import Trainer
from models import qwen2
from rollouts import domains
from rollouts.types import Dialogue, Turn
from tests.builders.runs import mesh_maker, tiny

VOCAB, TURNS, SPEAKS = 8, 2, 1  # SPEAKS is the token that stands before each turn
STEPS = 24
PLAYED = ("cmpo", "grpo", "capo", "ppo", "reinforce", "gdpo")
CHARGED = {  # what makes a voucher dearer than what it is worth, for the methods that know a price
    "cmpo": {"pid.enabled": False, "pid.initial_lambda": 4.0},
    "ppo": {"algo.cost_weight": 4.0},
    "gdpo": {"algo.cost_weight": 4.0},
}


class Script(NamedTuple):
    """What happened in a dialogue: the sampled tokens and their log-probabilities."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]

    def turn(self, number):
        token = self.tokens[number]
        return Turn(
            messages=(),
            text=str(token),
            incoming_ids=np.array([SPEAKS], np.int32),
            ids=np.array([token], np.int32),
            logprobs=np.array([self.logprobs[number]], np.float32),
            model_logprobs=np.array([self.logprobs[number]], np.float32),
            cost=np.array([token % 2], np.float32),
            process_reward=float(token % 2),
        )

    def dialogue(self):
        turns, generous = tuple(map(self.turn, range(len(self.tokens)))), sum(token % 2 for token in self.tokens)
        cost = np.array([min(generous, 1)], np.float32)
        return Dialogue(None, 0, turns, outcome=1.0 + generous, end="rated", cost=cost, success=True)


class Player:
    """Plays a batch at once, with the present policy."""

    def __init__(self, learner):
        self.learner, self.busy, self._random = learner, False, np.random.default_rng(0)

    def start_batch(self, state, weights):
        algo, train = self.learner.config.algo, self.learner.config.train
        first, second = policy_of(self.learner, weights)
        scripts = []
        for _ in range(algo.group_size * train.scenarios_per_step):
            token = self._random.choice(VOCAB, p=first)
            later = self._random.choice(VOCAB, p=second[token])
            scripts.append(Script((token, later), (np.log(first[token]), np.log(second[token, later]))))
        self._batch, self.busy = [script.dialogue() for script in scripts], True

    def take_batch(self):
        self.busy = False
        return PlayedBatch(self._batch, {}, 1.0)


def policy_of(learner, weights):
    """The probabilities of the first token, [VOCAB], and of the second one after each first, [VOCAB, VOCAB]."""
    tokens = jnp.array([[SPEAKS, first, SPEAKS] for first in range(VOCAB)])
    probabilities = np.asarray(forward(learner.model, weights, tokens), np.float64)
    probabilities /= probabilities.sum(-1, keepdims=True)
    return probabilities[0, 0], probabilities[:, 2]


@jax.jit(static_argnums=0)
def forward(model, weights, tokens):
    return jax.nn.softmax(qwen2.forward(model, weights, tokens))


def generosity(learner, state):
    """How often the policy takes the generous action."""
    first, second = policy_of(learner, state.policy.params)
    return (first[1::2].sum() + first @ second[:, 1::2].sum(-1)) / TURNS


@pytest.fixture(autouse=True)
def on_one_device(monkeypatch):
    monkeypatch.setattr(build, "make_mesh", mesh_maker(1))


def learner_of(name, **changes):
    config = tiny(
        **{
            "algo.name": name,
            "algo.normalize": "group",
            "algo.cost_weight": 0.0,
            "algo.kl_weight": 0.0,
            "train.tokens_every": 0,
            "pid.enabled": False,
            "episode.max_turns": TURNS,
            "episode.farewell": False,
            "engine.temperature": 1.0,
            "train.sft_steps": 0,
            "train.rl_steps": 0 if name == "sft" else STEPS,
            "train.scenarios_per_step": 8,
            "train.row_length": 64,
            "train.micro_rows": 4,
            "train.minibatches": 1,
            "train.learning_rate": 3e-2,
            "sft.learning_rate": 3e-2,
            "sft.batch_rows": 1,
        }
        | changes
    )
    model = qwen2.Qwen2Config(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=16,
        num_layers=1,
        num_heads=1,
        num_kv_heads=1,
        max_positions=64,
    )
    return Learner(config, model, None, domains.load(config))


def learn(learner, demonstrations=None):
    """The policy's generosity before and after the steps of a run."""
    state = learner.make_first_state()
    before, trainer = generosity(learner, state), Trainer(learner.config, learner, Player(learner), demonstrations)
    state = state if demonstrations else learner.begin_rl(state)
    for _ in range(STEPS):
        state, *_ = trainer.sft_step(state) if demonstrations else trainer.rl_step(state)
    return before, generosity(learner, state)


@pytest.mark.parametrize("name", PLAYED)
def test_a_method_learns_the_better_action_and_nothing_from_no_credit(name, monkeypatch):
    learner = learner_of(name)
    before, after = learn(learner)
    assert before < 0.7 and after > 0.9
    credit = learner.algorithm.credit
    monkeypatch.setattr(learner.algorithm, "credit", lambda *given: 0 * np.asarray(credit(*given)))
    before, after = learn(learner)
    assert abs(after - before) < 0.1


@pytest.mark.parametrize("name", CHARGED)
def test_a_method_that_knows_prices_learns_the_frugal_action_where_the_other_is_too_dear(name):
    before, after = learn(learner_of(name, **CHARGED[name]))
    assert before > 0.3 and after < 0.1


def test_imitation_learns_what_is_demonstrated_and_nothing_from_no_tokens_of_the_agent():
    learner = learner_of("sft")
    scripts = [Script(tokens, (0.0, 0.0)) for tokens in itertools.product(range(1, VOCAB, 2), repeat=TURNS)]
    streams = [packing.make_stream(script.dialogue(), 0, 0) for script in scripts]
    rows = packing.pack_rows(streams, row_length=64)
    before, after = learn(learner, rows)
    assert before < 0.7 and after > 0.9
    before, after = learn(learner, rows.replace(mask=np.zeros_like(rows.mask)))
    assert abs(after - before) < 0.1
