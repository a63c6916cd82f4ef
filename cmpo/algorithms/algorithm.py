"""The seam between the loop and what is learnt from a batch.

The loop plays dialogues, packs their streams, scores tokens, updates and saves. An algorithm says what each turn was
worth, which loss follows from it, and what moves after the update (`cmpo.algorithms`). All of it is pure functions of
arrays.

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
    """Packed token streams. Several dialogues share a row; attention and positions keep them apart."""

    tokens: chex.Array  # [R, T] int32
    positions: chex.Array  # [R, T] int32, from 0 in each dialogue, a shared prefix counted
    segment_ids: chex.Array  # [R, T] int32, 0 for padding
    mask: chex.Array  # [R, T] bool, tokens the agent wrote, its end-of-turn token included
    sampled_logprobs: chex.Array  # [R, T] float32, 0 outside the mask
    turns: chex.Array  # [R, T] int32, index of the token's turn in [B * G * N]; 0 outside the mask
    prefix_ids: chex.Array | None = None  # [R, T] int32, the segment with the dialogue's beginning; 0: its own. None: 0


@chex.dataclass(frozen=True)
class Rewards:
    """What the dialogues were worth, reward and cost apart. Failed dialogues have no valid turn."""

    outcome: chex.Array  # [B, G] float32
    process: chex.Array  # [B, G, N] float32
    cost: chex.Array  # [B, G, N, C] float32
    turn_mask: chex.Array  # [B, G, N] bool


class Signals(NamedTuple):
    """What the loss knows of each token, beside what the policy makes of it."""

    advantages: jax.Array  # [R, T] float32
    reference: jax.Array  # [R, T] float32, log-probability under the start of phase 2
    own: Any = ()  # arrays [R, T] of the algorithm's own


class Scores(NamedTuple):
    """What the policy makes of each token."""

    logprobs: jax.Array  # [R, T] float32, in nats; 0 outside the mask
    entropy: jax.Array  # [R, T] float32, of the distribution that the token was drawn from
    values: Any = ()  # [R, T] float32, what the algorithm's head says before the token; () without a head


class Head(NamedTuple):
    """Parameters of an algorithm's own, which are trained on the policy's hidden states. By default there are none."""

    init: Callable[[jax.Array], Any] = lambda key: ()  # parameters; their paths by `cmpo.distributed.sharding.RULES`
    apply: Callable[[Any, jax.Array], jax.Array] | None = None  # (parameters, states [R, T, D]) -> values [R, T]
    optimizer: optax.GradientTransformation = optax.identity()


NO_HEAD = Head()


class Algorithm(abc.ABC):
    """What is learnt from dialogues. What is not abstract has a default that suits a simple one.

    A module with a function ``make(config, domain) -> Algorithm`` is all that the loop needs.
    """

    plays = True  # False: it learns from demonstrations only, and there is no phase 2

    def __init__(self, domain: Domain):
        self.domain = domain

    def head(self, model: Qwen2Config) -> Head:
        """What it trains beside the policy, of which `model` is the architecture."""
        return NO_HEAD

    def memory(self) -> Any:
        """What it remembers from batch to batch, a pytree of arrays, before the first batch; checkpoints hold it."""
        return ()

    def credit(self, memory: Any, rewards: Rewards) -> chex.Array:
        """What each turn was worth, [B, G, N] float32; 0: it teaches nothing."""
        return np.zeros(rewards.process.shape, np.float32)

    def signals(self, signals: Signals, rows: Rows, values: Any) -> Signals:
        """What the loss is given; jitted.

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
        """The share of some rows in the loss of a batch, and metrics.

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
        """The memory after a batch; `skipped` says that an update of it was not made.

        `summary` is that of `cmpo.evaluation.summary.summarize_batch`.
        """
        return memory

    def multipliers(self, memory: Any) -> chex.Array:
        """[C] float, what a unit of each cost is charged, in units of utility."""
        return np.zeros(len(self.domain.costs))

    def describe(self, memory: Any) -> dict[str, float]:
        """What a step's record says of the memory after it."""
        return {}

    def prices(self) -> np.ndarray:
        """[C] float, what a unit beyond each budget counts against a checkpoint's score."""
        return np.zeros(len(self.domain.costs))
