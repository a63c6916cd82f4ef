"""The two kinds of step: on demonstrations, and on dialogues that the policy plays."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cmpo.algorithms.algorithm import Algorithm, Rows
from cmpo.evaluation import diagnostics
from cmpo.evaluation.summary import summarize_batch
from cmpo.run.train_state import Trained, TrainState
from cmpo.training import packing
from cmpo.training.learner import Learner
from cmpo.training.player import Player
from rollouts.seeds import fold
from rollouts.types import Dialogue


class Trainer:
    """The two kinds of step. Each returns the next state, the step's record for the log, and its dialogues."""

    def __init__(
        self,
        config: ConfigDict,
        learner: Learner,
        player: Player,
        demonstrations: Rows,
        exercises: Rows | None = None,  # for config.sft.exercise_steps; None: there are none
    ):
        self.config, self.learner, self.player = config, learner, player
        self.demonstrations, self.exercises = demonstrations, exercises

    def sft_step(self, state: TrainState) -> tuple[TrainState, dict, list[Dialogue]]:
        """Makes one update on rows of exercises or demonstrations, which are shuffled anew in each epoch."""
        started, size, number = time.perf_counter(), self.config.sft.batch_rows, int(state.step)
        practises = self.exercises is not None and number < self.config.sft.exercise_steps
        lessons = self.exercises if practises else self.demonstrations
        count, draws = len(lessons.tokens), range(number * size, (number + 1) * size)
        orders = {draw // count: None for draw in draws}
        orders = {
            epoch: np.random.default_rng(fold(int(state.seed), "sft", epoch)).permutation(count) for epoch in orders
        }
        chosen = np.array([orders[draw // count][draw % count] for draw in draws])
        rows = jax.tree.map(lambda x: x[chosen], lessons)
        policy, values = self.learner.imitate_rows(state, rows)
        seconds, tokens = time.perf_counter() - started, int(np.sum(rows.segment_ids > 0))
        record = {"phase": "sft", **values, "tokens_per_second": tokens / seconds, "seconds": {"update": seconds}}
        return _make_next_state(state, values["updates_skipped"], policy=policy), record, []

    def rl_step(self, state: TrainState) -> tuple[TrainState, dict, list[Dialogue]]:
        """Plays dialogues, asks the algorithm for their credit, updates the policy, and moves the algorithm's memory.

        In one step of config.train.tokens_every, the dialogues come back with notes of their tokens.

        With config.train.one_step_off, the next step's dialogues begin before the update, with the present weights.
        """
        config, learner, player, clock, behaviour = self.config, self.learner, self.player, Clock(), state.behaviour
        if not player.busy:
            player.start_batch(state, behaviour or state.policy.params)
        dialogues, spent, seconds = player.take_batch()
        if config.train.one_step_off:
            behaviour = learner.copy_params(state.policy.params)
            if int(state.step) + 1 < config.train.sft_steps + config.train.rl_steps:
                player.start_batch(state, behaviour, later=1)
        clock.lap("sample")

        rewards, algorithm = learner.collect_rewards(dialogues), learner.algorithm
        memory = algorithm.observe(state.memory, rewards)
        _check_memory(algorithm, "observe", state.memory, memory)
        state = state._replace(memory=memory)
        credit = learner.credit_turns(rewards, state)
        parts = learner.prepare_parts(dialogues, credit, state)
        clock.lap("reference")

        policy, head, values = learner.learn_from_parts(state, parts)
        dialogues, every = packing.note_credit(dialogues, credit), config.train.tokens_every
        if every and (int(state.step) + 1) % every == 0:
            learnt = learner.review_tokens(policy, parts)
            dialogues = packing.note_tokens(dialogues, player.tokenizer.spell, learnt, credit.shape[2])
        clock.lap("update")

        skipped = values["updates_skipped"]
        record = summarize_batch(learner.domain, dialogues)
        memory = algorithm.move(state.memory, record, skipped=bool(skipped))
        _check_memory(algorithm, "move", state.memory, memory)
        record |= values | {
            "phase": "rl",
            "lambda": diagnostics.name_by_cost(learner.domain.costs, algorithm.multipliers(state.memory)),
            **algorithm.describe(memory),
            **diagnostics.summarize_prices(learner.domain.costs, algorithm.effective_prices(state.memory, rewards)),
            "judge_correlation": diagnostics.correlate_scores(learner.domain, dialogues),
            "tokens_per_second": record["new_tokens"] / seconds,
            "spent": spent,
            "seconds": clock.seconds,
        }
        cursor = state.cursor + config.train.scenarios_per_step
        changes = {"cursor": cursor, "policy": policy, "head": head, "behaviour": behaviour, "memory": memory}
        return _make_next_state(state, skipped, **changes), record, dialogues


def _make_next_state(state: TrainState, skipped: int, **changes: Trained | Any) -> TrainState:
    """Makes the state after one more step; `skipped` counts updates of the step that were skipped."""
    in_a_row = state.skipped + 1 if skipped else jnp.zeros_like(state.skipped)
    return state._replace(step=state.step + 1, skipped=in_a_row, **changes)


def _check_memory(algorithm: Algorithm, method: str, before: Any, after: Any) -> None:
    """Raises ValueError if a checkpoint with the memory that a method returned could not be read as one before it."""
    here, there = (jax.tree.map(lambda leaf: jax.typeof(jnp.asarray(leaf)), tree) for tree in (before, after))
    if here != there:
        name = type(algorithm).__name__
        raise ValueError(f"{name}.{method}: expected a memory like that of {name}.memory, {here}, got {there}")


class Clock:
    """Measures the seconds of each phase of a step."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Records the time since the last lap under `phase`."""
        now = time.perf_counter()
        self.seconds[phase], self._last = now - self._last, now
