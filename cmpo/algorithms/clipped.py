"""What the algorithms with a clipped policy gradient share."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from cmpo.advantage import compares_dialogues, hybrid_advantage
from cmpo.algorithms.algorithm import Algorithm, Metrics, Rewards, Rows, Scores, Signals
from cmpo.loss import cmpo_loss
from rollouts.domain import Domain

_GROUPS = "groups"


class Clipped(Algorithm):
    """The loss of CMPO and the methods beside it, set up by config.algo. They differ in the credit that enters it.

    Raises ValueError, naming the field, for settings from which nothing could be learnt.
    """

    remembers_spreads = False  # of `cmpo.spreads`

    def __init__(self, config: Mapping[str, Any], domain: Domain):
        super().__init__(domain)
        self.settings = settings = config["algo"]
        alone = settings["group_size"] == 1 and compares_dialogues(self.normalization())
        if alone and config["train"]["rl_steps"]:
            raise ValueError(
                f"config.algo.group_size: expected 2 or more where turns are compared by {self.normalization()!r}, "
                "got 1: with nothing to compare a dialogue with, nothing would be learnt from its outcome"
            )
        if (self.normalization(), settings["credit"]) == ("trajectory", "dialogue"):
            raise ValueError(
                "config.algo.normalize: expected another than 'trajectory' where config.algo.credit is 'dialogue': all "
                "turns of a dialogue are worth the same there, and nothing would be learnt"
            )
        if self.normalization() == "scaled" and not self.remembers_spreads:
            raise ValueError(
                "config.algo.normalize: expected another than 'scaled' here: only cmpo, in a domain with costs, "
                "remembers the spreads of earlier batches"
            )

    def normalization(self) -> str:
        """What turns are compared with: `normalize` of `hybrid_advantage`, or something else."""
        return self.settings["normalize"]

    def loss(self, scores, rows, signals, total, axis_name):
        """See `clipped_loss`."""
        options = {name: self.settings[name] for name in ("clip_low", "clip_high", "kl_weight")}
        return clipped_loss(scores, rows, signals, total, axis_name, **options)

    def compare_turns(self, rewards: Rewards, lambdas: jax.Array, **options: Any) -> jax.Array:
        """Computes `hybrid_advantage` of every turn, [B, G, N]; see `map_groups`."""
        return self.map_groups(hybrid_advantage, rewards, lambdas, **options)

    def map_groups(
        self, function: Callable[..., jax.Array], rewards: Rewards, lambdas: jax.Array, **options: Any
    ) -> jax.Array:
        """Maps a function of `hybrid_advantage`'s arguments over the groups, at the multipliers `lambdas` [C].

        Its options are those of config.algo, but for `options`.
        """
        names = ("outcome_weight", "process_weight", "normalize", "credit", "discount")
        options = {name: self.settings[name] for name in names} | options
        return map_groups(function, rewards, lambdas, **options)


def map_groups(function: Callable[..., jax.Array], rewards: Rewards, lambdas: jax.Array, **options: Any) -> jax.Array:
    """Maps a function of `hybrid_advantage`'s arguments and `options` over the groups of a batch."""
    apply = functools.partial(function, lambdas=lambdas, groups_axis=_GROUPS, **options)
    return jax.vmap(lambda group: apply(group.outcome, group.process, group.cost, group.turn_mask), axis_name=_GROUPS)(
        rewards
    )


def clipped_loss(
    scores: Scores, rows: Rows, signals: Signals, total: jax.Array, axis_name: Any, **options: float
) -> tuple[jax.Array, Metrics]:
    """Computes the share of some rows in `cmpo_loss` with its `options`; arguments as for `Algorithm.loss`."""
    return cmpo_loss(
        scores.logprobs,
        rows.sampled_logprobs,
        signals.reference,
        signals.advantages,
        rows.mask,
        denominator=total,
        axis_name=axis_name,
        **options,
    )
