"""Trains an agent: ``python -m cmpo.main --config=configs/fds.py[:variant] --workdir=DIR``; run again, it resumes."""

import functools
import math
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from cmpo import batch, command, demonstrations, metrics, pid, plan, processes, report, rollout, setup, sharding, step
from cmpo import data as scenario_data
from cmpo import model as policy
from cmpo import state as train_state
from cmpo.interrupt import Interrupted, Interrupts
from cmpo.journal import Journal
from cmpo.lock import sole_use
from cmpo.records import Records
from cmpo.state import TrainState
from rollouts.seeds import fold
from rollouts.types import Dialogue

_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only say what the run would take on each device, and whether it fits.")
_DEVICES = flags.DEFINE_string(
    "devices", "", "With --dry_run: COUNTxGIGABYTES; default: the accelerators that are here, else 8x80."
)


class Trainer:
    """The two kinds of step, over everything they share."""

    def __init__(
        self,
        config: ConfigDict,
        source: scenario_data.Source,
        prepared: setup.Prepared,
        clients: rollout.Clients,
        journal: Journal,
        interrupts: Interrupts,
    ):
        self.journal, self.interrupts = journal, interrupts
        self.config, self.source, self.tokenizer, self.model = config, source, prepared.tokenizer, prepared.model
        self.clients = clients
        self.mesh = setup.mesh(config, self.model)
        self.layout = setup.abstract_state(config, self.model, self.mesh)
        self.origin = self.model, self.mesh, prepared.weights, config.train.seed
        self.frozen = policy.frozen(*self.origin)
        self.engine = setup.engine(config, self.model, self.mesh, self.tokenizer)
        self.gains, _ = setup.controller(config)
        train, algo, optimizer = config.train, config.algo, setup.optimizers(config)
        streams = [demonstrations.encode(self.tokenizer, conversation) for conversation in prepared.conversations]
        self.demonstrations = batch.pack(streams, row_length=train.row_length)
        warmth = {"temperature": config.engine.temperature}
        share = step.cmpo_share(**{name: algo[name] for name in ("clip_low", "clip_high", "kl_weight")})
        self.publish = sharding.make_publish(self.model, self.mesh)
        self.score = step.make_score(self.model, self.mesh, **warmth)
        self.sft_update = step.make_update(self.model, self.mesh, optimizer["sft"], step.sft_share)
        self.rl_update = step.make_update(self.model, self.mesh, optimizer["rl"], share, **warmth)
        begin = functools.partial(train_state.begin_rl, self.model, optimizer=optimizer["rl"])
        self.begin_rl = jax.jit(begin, out_shardings=jax.tree.map(lambda x: x.sharding, self.layout))

    def first_state(self) -> TrainState:
        """The state before the first step."""
        start = functools.partial(setup.initial_state, self.config, self.model)
        shardings = jax.tree.map(lambda x: x.sharding, self.layout)
        return jax.jit(start, out_shardings=shardings, donate_argnums=0)(policy.trained(*self.origin))

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

    def spread(self, rows: Any) -> Any:
        """Rows [R, ...] as micro-batches on the mesh."""
        return sharding.rows(self.mesh, rows, self.config.train.micro_rows)

    def parts(self, dialogues: list[Dialogue], state: TrainState) -> list[tuple[batch.Rows, tuple[jax.Array, ...]]]:
        """What to learn from dialogues, an update for each part: rows, their advantages and reference logprobs."""
        algo, turns = self.config.algo, self.config.episode.max_turns + self.config.episode.farewell
        options = {name: algo[name] for name in ("outcome_weight", "process_weight", "normalize", "credit", "discount")}
        rewards = batch.rewards(dialogues, algo.group_size, turns)
        streams, train, parts = batch.streams(dialogues, algo.group_size, turns), self.config.train, []
        share = train.share_prefix and not self.model.sliding_window
        size = -(-len(dialogues) // train.minibatches)  # parts are of the same shapes, whoever failed
        for part in batch.divide(streams, train.minibatches):
            rows = batch.pack(part, row_length=train.row_length, rows=size, share=share)
            advantages = step.token_advantages(rewards, rows.turns, state.pid.lambdas, **options)
            rows, advantages = self.spread((rows, np.asarray(advantages)))
            parts.append((rows, (advantages, self.score(self.frozen, state.reference, rows))))
        return parts

    def rl_step(self, state: TrainState) -> tuple[TrainState, dict, list[Dialogue]]:
        """Dialogues, advantages at the present lambda, update, controller."""
        config, clock, number = self.config, Clock(), int(state.step) + 1
        scenarios = self.source.train(int(state.cursor), config.train.scenarios_per_step)
        self.engine.load(self.publish(self.frozen, state.params), version=number)
        agents = rollout.policy_agents(self.engine, self.tokenizer, version=number)
        with self.journal.page(number, weights=train_state.checksums(state.params)) as page:
            dialogues = rollout.collect(
                config,
                agents,
                scenarios,
                repeats=config.algo.group_size,
                seed=fold(int(state.seed), "rl", int(state.step)),
                clients=self.clients,
                page=page,
                stopping=lambda: self.interrupts.received,
            )
        clock.lap("sample")

        parts = self.parts(dialogues, state)
        jax.block_until_ready(parts)
        clock.lap("reference")

        params, opt_state, updates = state.params, state.opt_state, []
        for rows, extras in parts * config.train.epochs:
            params, opt_state, values = self.rl_update(params, opt_state, self.frozen, rows, extras)
            updates.append(values)
        values = step.summary(jax.device_get(updates))
        clock.lap("update")

        controller, record = state.pid, metrics.rollout_record(dialogues)
        if config.pid.enabled:
            cost = math.nan if values["updates_skipped"] else record["voucher_rate"]  # NaN: the controller stays
            controller = pid.update(self.gains, controller, jnp.array([cost], jnp.float32))
        record |= values | {
            "phase": "rl",
            "lambda": float(state.pid.lambdas[0]),
            "voucher_rate_smoothed": float(controller.smoothed_cost[0]),
            "tokens_per_second": record["new_tokens"] / clock.seconds["sample"],
            "spent": rollout.spent(self.clients),
            "seconds": clock.seconds,
        }
        state = _moved(
            state,
            values["updates_skipped"],
            cursor=state.cursor + len(scenarios),
            params=params,
            opt_state=opt_state,
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


def train(config: ConfigDict, workdir: pathlib.Path) -> TrainState:
    """Runs both phases to their end, or on from the last checkpoint; returns the final state. See docs/runs.md."""
    source = scenario_data.source(config.data, config.train.seed)
    clients = rollout.chat_clients(config, workdir)
    sft_steps, last = config.train.sft_steps, config.train.sft_steps + config.train.rl_steps
    with sole_use(workdir):
        processes.once(lambda: setup.claim(workdir, config))
        prepared = setup.prepare(config, workdir, source, clients)
        with Records(config, workdir) as records, Interrupts() as interrupts:
            trainer = Trainer(config, source, prepared, clients, records.journal, interrupts)
            state = records.resume(trainer.layout, trainer.first_state)
            first = int(state.step)
            for number in range(first, last):
                if number == sft_steps:
                    state = trainer.begin_rl(state)
                one_step = trainer.sft_step if number < sft_steps else trainer.rl_step
                try:
                    state, record, dialogues = one_step(state)
                except rollout.STOPS as reason:  # the state is that before the step; what was played is in the journal
                    records.save(state)
                    if isinstance(reason, Interrupted):
                        break
                    reason.add_note(f"({number} of {last} steps are saved; the same command goes on from there)")
                    raise
                records.write(number + 1, record, dialogues)
                stop = any(processes.everywhere(lambda: interrupts.received))
                lost = int(state.skipped) >= config.train.max_skipped
                if stop or lost or number + 1 in (sft_steps, last) or (number + 1) % config.train.checkpoint_every == 0:
                    records.save(state)
                if lost:
                    raise FloatingPointError(
                        f"the updates of {config.train.max_skipped} steps in a row, up to {number + 1}, were skipped: "
                        "the loss or its gradient was not finite. The last sound model is saved; a new run may want a "
                        "lower config.train.learning_rate"
                    )
                if stop:
                    break
            records.wait()
    if processes.is_first():
        report.write_report(workdir)
        done = f"all {last} steps are done" if first == last else f"{int(state.step)} of {last} steps done and saved"
        print(f"{workdir}: {done}")
    return state


def run() -> None:
    """Trains what the flags name, or says what that would take."""
    config, workdir = command.CONFIG.value, command.WORKDIR.value
    if _DRY_RUN.value:
        source = policy.source(config, pathlib.Path(workdir) if workdir else None, download=False)
        print(plan.dry_run(config, policy.architecture(config, source), plan.devices(_DEVICES.value)))
    elif workdir:
        train(config, pathlib.Path(workdir))
    else:
        raise ValueError("--workdir: expected a directory for the run")


if __name__ == "__main__":
    command.run(run, required=["config"])
