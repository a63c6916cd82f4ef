"""The seam between the loop and what is learnt from a batch.

The loop plays dialogues, packs their streams, scores tokens, updates and saves. An algorithm (`cmpo.algorithms`) says
what each turn was worth, which loss follows from it, and how its own memory changes after the update. All of it is pure
functions of arrays.

Legend: B groups (tasks), G dialogues of a group, N turns, C costs; R rows, T tokens of a row, D hidden size. Where rows
are [R, T], an update holds them as micro-batches, [M, U, T].
"""

import abc
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
import optax

from models.config import Qwen2Config
from rollouts.domain import Domain

Metrics = dict[str, jax.Array]


@chex.dataclass(frozen=True)
class Rows:
    """Packed token streams. Several dialogues may be in one row; attention and positions keep them apart."""

    tokens: chex.Array  # [R, T] int32
    positions: chex.Array  # [R, T] int32, from 0 in each dialogue, its shared prefix included
    segment_ids: chex.Array  # [R, T] int32, 0 for padding
    mask: chex.Array  # [R, T] bool, tokens the agent wrote, its end-of-turn token included
    sampled_logprobs: chex.Array  # [R, T] float32, 0 outside the mask
    turns: chex.Array  # [R, T] int32, index of the token's turn in [B * G * N]; 0 outside the mask
    prefix_ids: chex.Array | None = (
        None  # [R, T] int32, the segment that holds the dialogue's beginning; 0, None: its own
    )


@chex.dataclass(frozen=True)
class Rewards:
    """Rewards and costs of dialogues, kept apart. Failed dialogues have no valid turn."""

    outcome: chex.Array  # [B, G] float32
    process: chex.Array  # [B, G, N] float32
    cost: chex.Array  # [B, G, N, C] float32
    turn_mask: chex.Array  # [B, G, N] bool


class Signals(NamedTuple):
    """What the loss is given for each token, besides the policy's scores."""

    advantages: jax.Array  # [R, T] float32
    reference: jax.Array  # [R, T] float32, log-probability under the start of phase 2
    own: Any = ()  # arrays [R, T] that the algorithm adds


class Scores(NamedTuple):
    """The policy's scores of each token."""

    logprobs: jax.Array  # [R, T] float32, in nats; 0 outside the mask
    entropy: jax.Array  # [R, T] float32, of the distribution that the token was drawn from
    values: Any = ()  # [R, T] float32, the head's output for the state before the token; () without a head


class Head(NamedTuple):
    """An algorithm's own parameters, which are trained on the policy's hidden states. By default there are none."""

    init: Callable[[jax.Array], Any]  # parameters, placed by `cmpo.distributed.sharding.RULES`
    apply: Callable[[Any, jax.Array], jax.Array] | None  # (parameters, states [R, T, D]) -> values [R, T]
    optimizer: optax.GradientTransformation


NO_HEAD = Head(lambda key: (), None, optax.identity())


class Algorithm(abc.ABC):
    """What is learnt from dialogues. Only `loss` is abstract: the other methods have defaults for a simple algorithm.

    The loop needs a module with a function ``make(config, domain) -> Algorithm``, and no more.
    """

    plays = True  # False: it learns from demonstrations only, and there is no phase 2

    def __init__(self, domain: Domain):
        self.domain = domain

    def head(self, model: Qwen2Config) -> Head:
        """Returns the parameters that are trained beside the policy, whose architecture is `model`."""
        return NO_HEAD

    def memory(self) -> Any:
        """Returns its memory before the first batch: a pytree of arrays, which checkpoints hold."""
        return ()

    def observe(self, memory: Any, rewards: Rewards) -> Any:
        """Returns the memory once it has seen what a batch was worth; `credit` is given this one."""
        return memory

    def credit(self, memory: Any, rewards: Rewards) -> chex.Array:
        """Returns what each turn was worth, [B, G, N] float32; from a turn of 0 nothing is learnt."""
        return np.zeros(rewards.process.shape, np.float32)

    def signals(self, signals: Signals, rows: Rows, values: Any) -> Signals:
        """Returns the signals that the loss is given. The loop jits it.

        Args:
          signals: the advantages are the credit of each token's turn, 0 outside the mask.
          rows: the tokens.
          values: [R, T] of the head before the update; () without a head.
        """
        return signals

    @abc.abstractmethod
    def loss(
        self, scores: Scores, rows: Rows, signals: Signals, total: jax.Array, axis_name: Any
    ) -> tuple[jax.Array, Metrics]:
        """Returns the share of some rows in the loss of a batch, and metrics.

        Runs on each device under a map over `axis_name`, with this device's rows, and sums over that axis. Shares of
        micro-batches add up; metrics whose names end in `_max` combine by maximum.

        Args:
          scores: of the policy that is trained; differentiable.
          rows: the tokens.
          signals: see `signals`.
          total: int32, masked tokens of the whole batch.
          axis_name: see above.
        """

    def move(self, memory: Any, summary: Mapping[str, Any], *, skipped: bool) -> Any:
        """Returns the memory after a batch; `skipped` says that at least one update of the batch was skipped.

        `summary` is that of `cmpo.evaluation.summary.summarize_batch`.
        """
        return memory

    def multipliers(self, memory: Any) -> chex.Array:
        """Returns the price of a unit of each cost, [C] float, in units of utility."""
        return np.zeros(len(self.domain.costs))

    def effective_prices(self, memory: Any, rewards: Rewards) -> chex.Array:
        """Returns what a unit of each cost takes off a turn's credit in each group, [B, C]; NaN where not known."""
        return np.full((len(rewards.outcome), len(self.domain.costs)), np.nan)

    def describe(self, memory: Any) -> dict[str, float]:
        """Returns entries for a step's record that describe the memory after the step."""
        return {}

    def prices(self) -> np.ndarray:
        """Returns what a unit beyond each budget takes off a checkpoint's score, [C] float."""
        return np.zeros(len(self.domain.costs))
