"""What a run computes on the mesh: scores, updates, copies of the policy, each a jitted function.

Legend: M micro-batches, U rows of a micro-batch over all devices, T tokens, B groups, G dialogues of a group, N turns.
"""

import contextlib
import functools
import pathlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
from ml_collections import ConfigDict

from cmpo import algorithms
from cmpo.algorithms.algorithm import Metrics, Rows, Signals
from cmpo.distributed import sharding
from cmpo.run import train_state
from cmpo.run.train_state import Trained, TrainState
from cmpo.training import build, model_source, packing, update_step
from models import qwen2
from rollouts.domain import Domain
from rollouts.types import Dialogue


class Part(NamedTuple):
    """What an update learns from."""

    rows: Rows  # [M, U, T], as micro-batches on the mesh
    signals: Signals
    seen: Metrics  # how far the policy is from the one that sampled, where it is another


class Learner:
    """The jitted functions of a run, over its mesh and its frozen parameters.

    Whoever puts a program on several devices holds `turn_taking`, so that all of them get the programs in one order.
    Otherwise two programs that talk over all devices could each wait on half of them for the other. The functions here
    hold it themselves.
    """

    def __init__(self, config: ConfigDict, model: qwen2.Qwen2Config, weights: pathlib.Path | None, domain: Domain):
        self.config, self.model, self.domain = config, model, domain
        self.mesh = build.mesh(config, model)
        self.turn_taking = threading.Lock() if self.mesh.size > 1 else contextlib.nullcontext()
        self.algorithm = build.algorithm(config, domain)
        self._origin = model, self.mesh, weights, config.train.seed
        self.frozen = model_source.frozen(*self._origin)
        optimizer, warmth = build.optimizers(config), {"temperature": config.engine.temperature}
        on_mesh, head, sft = (model, self.mesh), self.algorithm.head(model), algorithms.load(config, domain, "sft")
        self._publish = self._in_turn(sharding.make_publish(*on_mesh))
        self._score = self._in_turn(update_step.make_score(*on_mesh, **warmth))
        self._values = self._in_turn(update_step.make_values(*on_mesh, head)) if head.apply else None
        self._signals = self._in_turn(jax.jit(self.algorithm.signals))
        self._sft_update = self._in_turn(update_step.make_update(*on_mesh, optimizer["sft"], sft.loss))
        self._rl_update = self._in_turn(
            update_step.make_update(*on_mesh, optimizer["rl"], self.algorithm.loss, head=head, **warmth)
        )
        correct = functools.partial(update_step.correct_for_age, cap=config.train.importance_cap)
        self._correct = self._in_turn(jax.jit(correct))
        self.copy = self._in_turn(jax.jit(functools.partial(train_state.copy, model)))

    def _in_turn(self, function: Callable) -> Callable:
        """The same function, which waits for its turn on the devices."""

        @functools.wraps(function)
        def run(*arguments):
            with self.turn_taking:
                return function(*arguments)

        return run

    def layout(self, step: int) -> TrainState:
        """Shapes and shardings of the state after `step` steps, see `build.abstract_state`."""
        return build.abstract_state(self.config, self.model, self.mesh, self.algorithm, step)

    def first_state(self) -> TrainState:
        """The state before the first step."""
        start = functools.partial(build.initial_state, self.config)
        shardings = jax.tree.map(lambda x: x.sharding, self.layout(0))
        return jax.jit(start, out_shardings=shardings, donate_argnums=0)(model_source.trained(*self._origin))

    def begin_rl(self, state: TrainState) -> TrainState:
        """The state before the first step of phase 2."""
        begin = functools.partial(build.begin_rl, self.config, self.model, self.algorithm)
        shardings = jax.tree.map(lambda x: x.sharding, self.layout(self.config.train.sft_steps + 1))
        return jax.jit(begin, out_shardings=shardings)(state)

    def publish(self, weights: qwen2.Params) -> tuple[qwen2.Params, list[int]]:
        """Weights to sample with, of trained ones, and the checksums of the latter."""
        published = self._publish(self.frozen, weights)
        return published, np.asarray(self._in_turn(train_state.checksums)(weights)).tolist()

    def spread(self, rows: Any) -> Any:
        """Rows [R, ...] as micro-batches on the mesh."""
        return sharding.place_rows(self.mesh, rows, self.config.train.micro_rows)

    def imitate(self, state: TrainState, rows: Rows) -> tuple[Trained, Metrics]:
        """One update of phase 1 on rows [R, T]: the policy after it."""
        rows = self.spread(rows)
        policy, _, metrics = self._sft_update(state.policy, update_step.WITHOUT_HEAD, self.frozen, rows, ())
        return policy, jax.device_get(metrics)

    def prepare_parts(self, dialogues: Sequence[Dialogue], state: TrainState) -> list[Part]:
        """What to learn from dialogues, an update for each part."""
        config, train, parts = self.config, self.config.train, []
        turns, group = config.episode.max_turns + config.episode.farewell, config.algo.group_size
        rewards = packing.rewards(dialogues, group, turns, len(self.domain.costs))
        credit = np.asarray(self.algorithm.credit(state.memory, rewards))
        chex.assert_shape(credit, rewards.turn_mask.shape)
        streams = packing.streams(dialogues, group, turns)
        share = train.share_prefix and not self.model.sliding_window
        size = -(-len(dialogues) // train.minibatches)  # parts are of the same shapes, whoever failed
        for part in packing.divide(streams, train.minibatches):
            rows = packing.pack(part, row_length=train.row_length, rows=size, share=share)
            rows, advantages = self.spread((rows, packing.by_token(credit, rows)))
            reference = self._score(self.frozen, state.reference, rows)
            values = self._values(self.frozen, (state.policy.params, state.head.params), rows) if self._values else ()
            signals, seen = self._signals(Signals(advantages, reference), rows, values), {}
            if train.one_step_off:
                rows, signals, seen = self._correct(rows, signals, self._score(self.frozen, state.policy.params, rows))
            parts.append(Part(rows, signals, seen))
        return jax.block_until_ready(parts)

    def learn(self, state: TrainState, parts: list[Part]) -> tuple[Trained, Trained, Metrics]:
        """The updates of a batch: policy and head after them, and metrics."""
        policy, head, metrics = state.policy, state.head, []
        for part in parts * self.config.train.epochs:
            policy, head, values = self._rl_update(policy, head, self.frozen, part.rows, part.signals)
            metrics.append(values | part.seen)
        return policy, head, update_step.summary(jax.device_get(metrics))
