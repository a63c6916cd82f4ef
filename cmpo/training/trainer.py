"""The two kinds of step: on demonstrations, and on dialogues that the policy plays."""

import contextlib
import functools
import math
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from cmpo import pid
from cmpo.distributed import sharding
from cmpo.evaluation.summary import summarize_batch
from cmpo.run import train_state
from cmpo.run.interrupt import Interrupts
from cmpo.run.journal import Journal
from cmpo.run.train_state import TrainState
from cmpo.run.workdir import hash_config
from cmpo.training import build, collecting, demonstrations, model_source, packing, update_step
from cmpo.training.demonstrations import Conversation
from cmpo.training.prefetch import Ahead
from models import qwen2
from rollouts import domains
from rollouts.domain import TaskSource
from rollouts.seeds import fold
from rollouts.types import Dialogue


class PlayedBatch(NamedTuple):
    """A batch of dialogues."""

    dialogues: list[Dialogue]
    spent: dict[str, float]  # by the run, up to its end
    seconds: float


class Part(NamedTuple):
    """What an update learns from."""

    rows: packing.Rows  # [M, U, T], as micro-batches on the mesh
    extras: tuple[jax.Array, jax.Array]  # advantages and reference logprobs, [M, U, T]
    seen: update_step.Metrics  # how far the policy is from the one that sampled, where it is another


class Trainer:
    """The two kinds of step, over everything they share. `ahead` plays their dialogues.

    Whoever puts a program on several devices holds `turn_taking`, so that all of them get the programs in one order.
    Otherwise two programs that talk over all devices could each wait on half of them for the other.
    """

    def __init__(
        self,
        config: ConfigDict,
        source: TaskSource,
        prepared: build.Prepared,
        clients: collecting.Clients,
        journal: Journal,
        interrupts: Interrupts,
        ahead: Ahead[PlayedBatch],
    ):
        self.journal, self.interrupts, self.ahead = journal, interrupts, ahead
        self.config, self.source, self.tokenizer, self.model = config, source, prepared.tokenizer, prepared.model
        self.clients, self.domain = clients, domains.load(config)
        self.mesh = build.mesh(config, self.model)
        self.layout = build.abstract_state(config, self.model, self.mesh)
        self.origin = self.model, self.mesh, prepared.weights, config.train.seed
        self.frozen = model_source.frozen(*self.origin)
        self.turn_taking = threading.Lock() if self.mesh.size > 1 else contextlib.nullcontext()
        self.engine = build.engine(config, self.model, self.mesh, self.tokenizer, turn_taking=self.turn_taking)
        self.gains, first = build.controller(config)
        train, algo, optimizer = config.train, config.algo, build.optimizers(config)
        self.demonstrations = packing.pack(self._fitting(prepared.conversations), row_length=train.row_length)
        self.settings = hash_config(config)
        warmth = {"temperature": config.engine.temperature}
        share = update_step.cmpo_share(**{name: algo[name] for name in ("clip_low", "clip_high", "kl_weight")})
        self.publish = sharding.make_publish(self.model, self.mesh)
        self.score = update_step.make_score(self.model, self.mesh, **warmth)
        self.sft_update = update_step.make_update(self.model, self.mesh, optimizer["sft"], update_step.sft_share)
        self.rl_update = update_step.make_update(self.model, self.mesh, optimizer["rl"], share, **warmth)
        self.correct = jax.jit(functools.partial(update_step.corrected, cap=train.importance_cap))
        self.copy = jax.jit(functools.partial(train_state.copy, self.model))
        begin = functools.partial(train_state.begin_rl, self.model, optimizer=optimizer["rl"], controller=first)
        self.begin_rl = jax.jit(begin, out_shardings=jax.tree.map(lambda x: x.sharding, self.layout))

    def _fitting(self, conversations: Sequence[Conversation]) -> list[packing.Stream]:
        """Demonstrations as streams, as far as they fit in the context. Raises ValueError if none has a turn that does.

        Without any, phase 1 has no steps.
        """
        room = self.config.model.context_length
        encode = functools.partial(demonstrations.encode, self.tokenizer, self.domain.turn_format, room=room)
        streams = list(map(encode, conversations))
        cut = sum(
            np.sum(stream.tokens == self.tokenizer.im_end) < len(conversation)
            for stream, conversation in zip(streams, conversations, strict=True)
        )
        if cut:
            logging.warning(
                "%d of %d demonstrations are longer than config.model.context_length, %d tokens, and end before it",
                *(cut, len(streams), room),
            )
        fitting = [stream for stream in streams if len(stream.tokens)]
        if streams and not fitting:
            raise ValueError(
                f"config.model.context_length: expected room for a turn of at least one of {len(streams)} "
                f"demonstrations, got {room} tokens"
            )
        return fitting

    def first_state(self) -> TrainState:
        """The state before the first step."""
        start = functools.partial(build.initial_state, self.config, self.model)
        shardings = jax.tree.map(lambda x: x.sharding, self.layout)
        return jax.jit(start, out_shardings=shardings, donate_argnums=0)(model_source.trained(*self.origin))

    def sft_step(self, state: TrainState) -> tuple[TrainState, dict, list[Dialogue]]:
        """One update on rows of demonstrations, shuffled anew each epoch."""
        started, count, size = time.perf_counter(), len(self.demonstrations.tokens), self.config.sft.batch_rows
        draws = range(int(state.step) * size, (int(state.step) + 1) * size)
        orders = {draw // count: None for draw in draws}
        orders = {
            epoch: np.random.default_rng(fold(int(state.seed), "sft", epoch)).permutation(count) for epoch in orders
        }
        chosen = np.array([orders[draw // count][draw % count] for draw in draws])
        rows = jax.tree.map(lambda x: x[chosen], self.demonstrations)
        params, opt_state, values = self.sft_update(state.params, state.opt_state, self.frozen, self.spread(rows), ())
        values, seconds = jax.device_get(values), time.perf_counter() - started
        tokens = int(np.sum(rows.segment_ids > 0))
        record = {"phase": "sft", **values, "tokens_per_second": tokens / seconds, "seconds": {"update": seconds}}
        return _moved(state, values["updates_skipped"], params=params, opt_state=opt_state), record, []

    def _by_cost(self, values: jax.Array) -> float | dict[str, float]:
        """A number [C] of each cost by its name; of the only one, the number itself."""
        numbers = np.asarray(values).tolist()
        return dict(zip((cost.name for cost in self.domain.costs), numbers, strict=True)) if numbers[1:] else numbers[0]

    def spread(self, rows: Any) -> Any:
        """Rows [R, ...] as micro-batches on the mesh."""
        return sharding.place_rows(self.mesh, rows, self.config.train.micro_rows)

    def parts(self, dialogues: list[Dialogue], state: TrainState) -> list[Part]:
        """What to learn from dialogues, an update for each part."""
        algo, turns = self.config.algo, self.config.episode.max_turns + self.config.episode.farewell
        options = {name: algo[name] for name in ("outcome_weight", "process_weight", "normalize", "credit", "discount")}
        rewards = packing.rewards(dialogues, algo.group_size, turns, len(self.domain.costs))
        streams, train, parts = packing.streams(dialogues, algo.group_size, turns), self.config.train, []
        share = train.share_prefix and not self.model.sliding_window
        size = -(-len(dialogues) // train.minibatches)  # parts are of the same shapes, whoever failed
        for part in packing.divide(streams, train.minibatches):
            rows = packing.pack(part, row_length=train.row_length, rows=size, share=share)
            advantages = update_step.token_advantages(rewards, rows.turns, state.pid.lambdas, **options)
            rows, advantages = self.spread((rows, np.asarray(advantages)))
            with self.turn_taking:
                reference, seen = self.score(self.frozen, state.reference, rows), {}
                if train.one_step_off:
                    present = self.score(self.frozen, state.params, rows)
                    rows, advantages, seen = self.correct(rows, advantages, present)
            parts.append(Part(rows, (advantages, reference), seen))
        return parts

    def play(self, state: TrainState, weights: qwen2.Params, *, later: int = 0) -> None:
        """Begins to play the batch of the step after `state`, or of one `later` than that, with `weights`."""
        config, number = self.config, int(state.step) + 1 + later
        count = config.train.scenarios_per_step
        tasks = self.source.train(int(state.cursor) + later * count, count)
        with self.turn_taking:
            self.engine.load(self.publish(self.frozen, weights), version=number)
            checksums = np.asarray(train_state.checksums(weights)).tolist()
        agents = collecting.policy_agents(self.engine, self.tokenizer, version=number)

        def played() -> PlayedBatch:
            started = time.perf_counter()
            with self.journal.open_page(number, {"weights": checksums, "settings": self.settings}) as page:
                dialogues = collecting.collect(
                    config,
                    agents,
                    tasks,
                    repeats=config.algo.group_size,
                    seed=fold(int(state.seed), "rl", number - 1),
                    clients=self.clients,
                    page=page,
                    stopping=lambda: self.interrupts.received or self.ahead.stopping,
                )
            return PlayedBatch(dialogues, collecting.spent(self.clients), time.perf_counter() - started)

        self.ahead.start(played)

    def rl_step(self, state: TrainState) -> tuple[TrainState, dict, list[Dialogue]]:
        """Dialogues, advantages at the present lambda, update, controller.

        With config.train.one_step_off, the next step's dialogues begin before the update, with the present weights.
        """
        config, clock, behaviour = self.config, Clock(), state.behaviour
        if not self.ahead.busy:
            self.play(state, behaviour or state.params)
        dialogues, spent, seconds = self.ahead.result()
        if config.train.one_step_off:
            behaviour = self.copy(state.params)
            if int(state.step) + 1 < config.train.sft_steps + config.train.rl_steps:
                self.play(state, behaviour, later=1)
        clock.lap("sample")

        parts = self.parts(dialogues, state)
        jax.block_until_ready(parts)
        clock.lap("reference")

        params, opt_state, updates = state.params, state.opt_state, []
        for rows, extras, seen in parts * config.train.epochs:
            with self.turn_taking:
                params, opt_state, values = self.rl_update(params, opt_state, self.frozen, rows, extras)
            updates.append(values | seen)
        values = update_step.summary(jax.device_get(updates))
        clock.lap("update")

        controller, record = state.pid, summarize_batch(self.domain, dialogues)
        names = [cost.measure for cost in self.domain.costs]
        if config.pid.enabled:
            skipped = values["updates_skipped"]
            costs = [math.nan if skipped else record[name] for name in names]  # NaN: the controller stays
            controller = pid.update(self.gains, controller, jnp.array(costs, jnp.float32))
        record |= values | {
            "phase": "rl",
            "lambda": self._by_cost(state.pid.lambdas),
            **{f"{name}_smoothed": float(controller.smoothed_cost[c]) for c, name in enumerate(names)},
            "tokens_per_second": record["new_tokens"] / seconds,
            "spent": spent,
            "seconds": clock.seconds,
        }
        state = _moved(
            state,
            values["updates_skipped"],
            cursor=state.cursor + config.train.scenarios_per_step,
            params=params,
            opt_state=opt_state,
            behaviour=behaviour,
            pid=controller,
        )
        return state, record, dialogues


def _moved(state: TrainState, skipped: int, **changes) -> TrainState:
    """The state one step on, of whose updates so many were skipped."""
    in_a_row = state.skipped + 1 if skipped else jnp.zeros_like(state.skipped)
    return state._replace(step=state.step + 1, skipped=in_a_row, **changes)


class Clock:
    """Seconds by phase of a step."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Books the time since the last lap under `phase`."""
        now = time.perf_counter()
        self.seconds[phase], self._last = now - self._last, now
