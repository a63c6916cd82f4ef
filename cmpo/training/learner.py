"""All that a run computes on the mesh: scores, updates and copies of the policy, each by a jitted function.

Legend: M micro-batches, U rows of a micro-batch over all devices, T tokens, B groups, G dialogues of a group, N turns.
"""

import contextlib
import functools
import pathlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from cmpo.algorithms.algorithm import Metrics, Rewards, Rows, Signals
from cmpo.algorithms.sft import imitation_loss
from cmpo.distributed import sharding
from cmpo.run import train_state
from cmpo.run.train_state import Trained, TrainState
from cmpo.training import build, model_source, packing, update_step
from models import qwen2
from rollouts.domain import Domain
from rollouts.types import Dialogue


class UpdatePart(NamedTuple):
    """What an update learns from."""

    rows: Rows  # [M, U, T], as micro-batches on the mesh
    signals: Signals
    seen: Metrics  # metrics of the distance to the policy that sampled, if that is another; else empty


class Learner:
    """The jitted functions of a run, over its mesh and its frozen parameters.

    Hold `turn_taking` while you start a program on several devices. Then all devices get the programs in the same
    order. Otherwise two programs that communicate over all devices could each hold half of them and wait for the other
    half. The functions of this class hold it themselves.
    """

    def __init__(self, config: ConfigDict, model: qwen2.Qwen2Config, weights: pathlib.Path | None, domain: Domain):
        self.config, self.model, self.domain = config, model, domain
        self.mesh = build.make_mesh(config, model)
        self.turn_taking = threading.Lock() if self.mesh.size > 1 else contextlib.nullcontext()
        self.algorithm = build.load_algorithm(config, domain)
        self._origin = model, self.mesh, weights, config.train.seed
        self.frozen = model_source.make_frozen_params(*self._origin)
        optimizer, warmth = build.make_optimizers(config), {"temperature": config.engine.temperature}
        on_mesh, head = (model, self.mesh), self.algorithm.head(model)
        self._publish = self._in_turn(sharding.make_publish(*on_mesh))
        self._score = self._in_turn(update_step.make_score(*on_mesh, **warmth))
        self._values = self._in_turn(update_step.make_values(*on_mesh, head)) if head.apply else None
        self._signals = self._in_turn(jax.jit(self.algorithm.signals))
        self._sft_update = self._in_turn(update_step.make_update(*on_mesh, optimizer["sft"], imitation_loss))
        self._rl_update = self._in_turn(
            update_step.make_update(*on_mesh, optimizer["rl"], self.algorithm.loss, head=head, **warmth)
        )
        correct = functools.partial(update_step.correct_for_age, cap=config.train.importance_cap)
        self._gather = self._in_turn(jax.jit(lambda arrays: arrays, out_shardings=sharding.replicate(self.mesh)))
        self._correct = self._in_turn(jax.jit(correct))
        self.copy_params = self._in_turn(jax.jit(functools.partial(train_state.copy_params, model)))

    def _in_turn(self, function: Callable) -> Callable:
        """Wraps a function so that it waits for its turn on the devices."""

        @functools.wraps(function)
        def run_in_turn(*arguments):
            with self.turn_taking:
                return function(*arguments)

        return run_in_turn

    def lay_out_state(self, step: int) -> TrainState:
        """Returns shapes and shardings of the state after `step` steps, see `build.lay_out_state`."""
        return build.lay_out_state(self.config, self.model, self.mesh, self.algorithm, step)

    def make_first_state(self) -> TrainState:
        """Makes the state before the first step."""
        start = functools.partial(build.make_first_state, self.config)
        shardings = jax.tree.map(lambda x: x.sharding, self.lay_out_state(0))
        return jax.jit(start, out_shardings=shardings, donate_argnums=0)(
            model_source.make_trained_params(*self._origin)
        )

    def begin_rl(self, state: TrainState) -> TrainState:
        """Makes the state before the first step of phase 2."""
        begin = functools.partial(build.begin_rl, self.config, self.model, self.algorithm)
        shardings = jax.tree.map(lambda x: x.sharding, self.lay_out_state(self.config.train.sft_steps + 1))
        return jax.jit(begin, out_shardings=shardings)(state)

    def publish_weights(self, weights: qwen2.Params) -> tuple[qwen2.Params, list[int]]:
        """Makes the weights to sample with from trained ones; returns them, and the checksums of the trained ones."""
        published = self._publish(self.frozen, weights)
        return published, np.asarray(self._in_turn(train_state.compute_checksums)(weights)).tolist()

    def spread_rows(self, rows: Any) -> Any:
        """Places rows [R, ...] on the mesh, as micro-batches [M, U, ...]."""
        return sharding.place_rows(self.mesh, rows, self.config.train.micro_rows)

    def imitate_rows(self, state: TrainState, rows: Rows) -> tuple[Trained, Metrics]:
        """Makes one update of phase 1 on rows [R, T]; returns the policy after it, and metrics."""
        rows = self.spread_rows(rows)
        policy, _, metrics = self._sft_update(state.policy, update_step.WITHOUT_HEAD, self.frozen, rows, ())
        return policy, jax.device_get(metrics)

    def collect_rewards(self, dialogues: Sequence[Dialogue]) -> Rewards:
        """Collects what dialogues were worth, group by group."""
        turns = self.config.episode.max_turns + self.config.episode.farewell
        return packing.collect_rewards(dialogues, self.config.algo.group_size, turns, len(self.domain.costs))

    def credit_turns(self, rewards: Rewards, state: TrainState) -> np.ndarray:
        """Asks the algorithm what each turn was worth, [B, G, N]. Raises ValueError for another shape."""
        credit = np.asarray(self.algorithm.credit(state.memory, rewards))
        if credit.shape != rewards.turn_mask.shape:
            name = type(self.algorithm).__name__
            raise ValueError(f"{name}.credit: expected the shape {rewards.turn_mask.shape}, got {credit.shape}")
        return credit

    def prepare_parts(self, dialogues: Sequence[Dialogue], credit: np.ndarray, state: TrainState) -> list[UpdatePart]:
        """Turns dialogues and the credit of their turns [B, G, N] into the parts of a batch, one for each update."""
        train, parts = self.config.train, []
        streams = packing.make_streams(dialogues, *credit.shape[1:])
        share = train.share_prefix and not self.model.sliding_window
        size = -(-len(dialogues) // train.minibatches)  # parts have the same shapes, however many dialogues failed
        for part in packing.divide_streams(streams, train.minibatches):
            rows = packing.pack_rows(part, row_length=train.row_length, rows=size, share=share)
            rows, advantages = self.spread_rows((rows, packing.spread_over_tokens(credit, rows)))
            reference = self._score(self.frozen, state.reference, rows)
            values = self._values(self.frozen, (state.policy.params, state.head.params), rows) if self._values else ()
            signals, seen = self._signals(Signals(advantages, reference), rows, values), {}
            if train.one_step_off:
                rows, signals, seen = self._correct(rows, signals, self._score(self.frozen, state.policy.params, rows))
            parts.append(UpdatePart(rows, signals, seen))
        return jax.block_until_ready(parts)

    def learn_from_parts(self, state: TrainState, parts: list[UpdatePart]) -> tuple[Trained, Trained, Metrics]:
        """Makes the updates of a batch; returns policy and head after them, and metrics."""
        policy, head, metrics = state.policy, state.head, []
        for part in parts * self.config.train.epochs:
            policy, head, values = self._rl_update(policy, head, self.frozen, part.rows, part.signals)
            metrics.append(values | part.seen)
        return policy, head, update_step.summarize_updates(jax.device_get(metrics))

    def review_tokens(self, policy: Trained, parts: list[UpdatePart]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Returns what was learnt of each turn's tokens: number of the turn in [B * G * N] -> two arrays [T] float32.

        They are the log-probabilities under `policy`, the one after the update, and the advantages with which the
        tokens were learnt. Every process has to call it, as each holds a part of the rows, and gets all of them.
        """
        found = {}
        for part in parts:
            after = self._score(self.frozen, policy.params, part.rows)
            rows, *values = jax.device_get(self._gather((part.rows, after, part.signals.advantages)))
            found |= {number: tuple(split) for number, split in packing.split_by_turns(rows, *values).items()}
        return found
