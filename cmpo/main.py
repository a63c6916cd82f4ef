"""Trains an agent: ``python -m cmpo.main --config=configs/fds.py[:variant] --workdir=DIR``; run again, it resumes."""

import functools
import pathlib
import signal
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cmpo import batch, command, demonstrations, metrics, pid, report, rollout, setup, sharding, step
from cmpo import data as scenario_data
from cmpo import state as train_state
from cmpo.checkpoint import Checkpoints
from cmpo.state import TrainState
from rollouts.seeds import fold
from rollouts.types import Dialogue


class Trainer:
    """The two kinds of step, over everything they share."""

    def __init__(self, config: ConfigDict, workdir: pathlib.Path, source: scenario_data.Source):
        self.config, self.source = config, source
        conversations, self.tokenizer = setup.prepare(config, workdir, self.source)
        self.model = setup.model(config, self.tokenizer)
        self.engine = setup.engine(config, self.model, self.tokenizer)
        self.mesh = setup.mesh(config, self.model)
        self.gains, _ = setup.controller(config)
        train = config.train
        optimizer = setup.optimizers(config)
        self.rl_optimizer = optimizer["rl"]
        self.layout = setup.abstract_state(config, self.model, self.mesh)
        streams = [demonstrations.encode(self.tokenizer, conversation) for conversation in conversations]
        self.demonstrations = batch.pack(streams, row_length=train.row_length)
        unit = train.micro_rows * sharding.rows_axis_size(self.mesh)  # R is a multiple of this
        self.sft_rows = -(-config.sft.batch_rows // unit) * unit
        self.rl_rows = -(-train.scenarios_per_step * config.algo.group_size // unit) * unit
        warmth = {"temperature": config.engine.temperature}
        self.score = step.make_score(self.model, self.mesh, **warmth)
        share = step.cmpo_share(**{name: config.algo[name] for name in ("clip_low", "clip_high", "kl_weight")})
        self.sft_update = step.make_update(self.model, self.mesh, optimizer["sft"], step.sft_share)
        self.rl_update = step.make_update(self.model, self.mesh, self.rl_optimizer, share, **warmth)

    def sft_step(self, state: TrainState) -> tuple[TrainState, dict]:
        """One update on rows of demonstrations, shuffled anew each epoch."""
        started, count = time.perf_counter(), len(self.demonstrations.tokens)
        draws = range(int(state.step) * self.sft_rows, (int(state.step) + 1) * self.sft_rows)
        orders = {draw // count: None for draw in draws}
        orders = {
            epoch: np.random.default_rng(fold(int(state.seed), "sft", epoch)).permutation(count) for epoch in orders
        }
        chosen = np.array([orders[draw // count][draw % count] for draw in draws])
        rows = jax.tree.map(lambda x: x[chosen], self.demonstrations)
        params, opt_state, values = self.sft_update(state.params, state.opt_state, self.spread(rows), ())
        values, seconds = jax.device_get(values), time.perf_counter() - started
        tokens = int(np.sum(rows.segment_ids > 0))
        record = {"phase": "sft", **values, "tokens_per_second": tokens / seconds, "seconds": {"update": seconds}}
        return state._replace(step=state.step + 1, params=params, opt_state=opt_state), record

    def begin_rl(self, state: TrainState) -> TrainState:
        """The state at the start of phase 2."""
        shardings = jax.tree.map(lambda x: x.sharding, self.layout)
        begin = functools.partial(train_state.begin_rl, optimizer=self.rl_optimizer)
        return jax.jit(begin, out_shardings=shardings)(state)

    def spread(self, rows: Any) -> Any:
        """Rows [R, ...] as micro-batches on the mesh."""
        return sharding.rows(self.mesh, rows, self.config.train.micro_rows)

    def rl_step(self, state: TrainState) -> tuple[TrainState, dict, list[Dialogue]]:
        """Dialogues, advantages at the present lambda, update, controller."""
        config, algo, clock = self.config, self.config.algo, Clock()
        scenarios = self.source.train(int(state.cursor), config.train.scenarios_per_step)
        self.engine.load(state.params)
        agents = rollout.policy_agents(self.engine, self.tokenizer)
        seed = fold(int(state.seed), "rl", int(state.step))
        dialogues = rollout.collect(config, agents, scenarios, repeats=algo.group_size, seed=seed)
        clock.lap("sample")

        turns = config.episode.max_turns + config.episode.farewell
        rewards = batch.rewards(dialogues, algo.group_size, turns)
        rows = batch.pack(batch.streams(dialogues, turns), row_length=config.train.row_length, rows=self.rl_rows)
        advantages = step.token_advantages(
            rewards,
            rows.turns,
            state.pid.lambdas,
            **{name: algo[name] for name in ("outcome_weight", "process_weight", "normalize", "credit", "discount")},
        )
        rows, advantages = self.spread((rows, np.asarray(advantages)))
        reference = self.score(state.reference, rows)
        jax.block_until_ready(reference)
        clock.lap("reference")

        params, opt_state = state.params, state.opt_state
        for _ in range(config.train.epochs):
            params, opt_state, values = self.rl_update(params, opt_state, rows, (advantages, reference))
        values = jax.device_get(values)
        clock.lap("update")

        controller, record = state.pid, metrics.rollout_record(dialogues)
        if config.pid.enabled:
            controller = pid.update(self.gains, controller, jnp.array([record["voucher_rate"]], jnp.float32))
        record |= values | {
            "phase": "rl",
            "lambda": float(state.pid.lambdas[0]),
            "voucher_rate_smoothed": float(controller.smoothed_cost[0]),
            "tokens_per_second": record["new_tokens"] / clock.seconds["sample"],
            "seconds": clock.seconds,
        }
        state = state._replace(
            step=state.step + 1,
            cursor=state.cursor + len(scenarios),
            params=params,
            opt_state=opt_state,
            pid=controller,
        )
        return state, record, dialogues


class Clock:
    """Seconds by phase of a step."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Books the time since the last lap under `phase`."""
        now = time.perf_counter()
        self.seconds[phase], self._last = now - self._last, now


def train(config: ConfigDict, workdir: pathlib.Path) -> TrainState:
    """Runs both phases to their end, or on from the last checkpoint; returns the final state."""
    source = scenario_data.source(config.data.path, config.data.difficulty, config.train.seed)
    rollout.check_endpoints(config)
    setup.claim(workdir, config)
    trainer = Trainer(config, workdir, source)
    sft_steps, last = config.train.sft_steps, config.train.sft_steps + config.train.rl_steps
    with Checkpoints(workdir, keep=config.train.keep_checkpoints) as checkpoints, metrics.RunLog(workdir) as log:
        state = checkpoints.restore(trainer.layout) or setup.initial_state(config, trainer.model, trainer.mesh)
        first = int(state.step)
        log.resume(first)
        if first == last:
            print(f"{workdir}: all {last} steps are done")
            return state
        with metrics.progress(last, first, workdir.name) as bar, Interrupts() as interrupts:
            for number in range(first, last):
                if number == sft_steps:
                    state = trainer.begin_rl(state)
                if number < sft_steps:
                    state, record = trainer.sft_step(state)
                else:
                    state, record, dialogues = trainer.rl_step(state)
                    log.transcripts(number + 1, dialogues)
                if not np.isfinite(record["loss"] + record["grad_norm"]):
                    raise FloatingPointError(
                        f"step {number + 1}: the loss or its gradient is not finite; nothing was saved"
                    )
                log.write({"step": number + 1, **record})
                bar.update(record)
                ends = number + 1 in (sft_steps, last) or interrupts.received
                if ends or (number + 1) % config.train.checkpoint_every == 0:
                    checkpoints.save(state)
                if interrupts.received:
                    break
    report.write_report(workdir)
    print(f"{workdir}: {int(state.step)} of {last} steps done and saved")
    return state


class Interrupts:
    """Turns the first Ctrl-C or SIGTERM into a request to save and stop after the step; the second acts at once."""

    def __enter__(self) -> "Interrupts":
        self.received = False
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        self.received = True
        signal.signal(number, self._before[number])
        print("\nfinishing this step, then saving; once more to stop without saving", file=sys.stderr)


def run() -> None:
    """Trains what the flags name."""
    train(command.CONFIG.value, pathlib.Path(command.WORKDIR.value))


if __name__ == "__main__":
    command.run(run, required=["config", "workdir"])
