"""What a run in the lab is set to."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmpo.lab.plan import NUMBERS, LabConfig
from configs import fds


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"normalize": "whiten"}, "normalize: expected one of .*'center'.*got 'whiten'"),
        ({"credit": "later"}, "credit: expected one of .*'instant'.*got 'later'"),
        ({"form": "velocity"}, "form: expected one of .*got 'velocity'"),
        ({"price_scale": "lambda"}, "price_scale: expected one of .*got 'lambda'"),
        ({"smoothing_of": "integral"}, "smoothing_of: expected one of .*got 'integral'"),
        ({"every": 0}, "every: expected a whole number of 1 or more, got 0"),
        ({"final_fraction": 1.5}, "final_fraction: expected a number from 0.0 to 1.0, got 1.5"),
        ({"final_fraction": "low"}, "final_fraction: expected a number from 0.0 to 1.0, got 'low'"),
        ({"change_at": -1}, "change_at: expected a whole number of 0 or more, got -1"),
        ({"difficulty_after": "easy"}, "difficulty_after: expected one of .*got 'easy'"),
        ({"target_change": 1.5}, "target_change: expected a finite number from -1.0 to 1.0, got 1.5"),
        ({"difficulty": "easy"}, "difficulty: expected one of .*got 'easy'"),
        ({"press": 2}, "press: expected one of .*got 2"),
        ({"normalize": "trajectory", "credit": "dialogue"}, "normalize: expected another than 'trajectory'"),
        ({"steps": 0}, "steps: expected a whole number of 1 or more, got 0"),
        ({"hidden": 8.0}, "hidden: expected a whole number of 1 or more, got 8.0"),
        ({"rests": -1}, "rests: expected a whole number of 0 or more, got -1"),
        ({"target": 1.1}, "target: expected a finite number from 0.0 to 1.0, got 1.1"),
        ({"discount": -0.1}, "discount: expected a finite number from 0.0 to 1.0"),
        ({"learning_rate": math.nan}, "learning_rate: expected a finite number from 0.0 to inf, got nan"),
        ({"learning_rate": "fast"}, "learning_rate: expected a finite number .*got 'fast'"),
        ({"outcome_weight": math.inf}, "outcome_weight: expected a finite number"),
        ({"learning_rate": 1e39}, "learning_rate: expected a finite number"),
        ({"target": np.float32("nan")}, "target: expected a finite number"),
        ({"minibatches": 5}, "minibatches: expected a divisor of the 12 scenarios of a step, got 5"),
        ({"dialogues": 1}, "dialogues: expected 2 or more where turns are compared by 'center', got 1"),
        ({"dialogues": 1, "normalize": "turn"}, "dialogues: expected 2 or more where turns are compared by 'turn'"),
        ({"smoothing": 0.0}, "smoothing: expected 0 < smoothing <= 1"),
        ({"initial_lambda": 6.0}, "0 <= initial_lambda <= lambda_max"),
    ],
)
def test_refuses_what_cannot_work(changes, message):
    with pytest.raises(ValueError, match=message):
        LabConfig(**changes)


def test_a_misspelt_setting_is_refused():
    with pytest.raises(TypeError, match="tarjet"):
        LabConfig(tarjet=0.3)


def test_numbers_are_leaves_and_choices_are_not():
    config = LabConfig(target=0.4, steps=7, credit="instant")
    leaves, shape = jax.tree.flatten(config)
    assert len(leaves) == len(NUMBERS) and 0.4 in leaves
    assert jax.tree.unflatten(shape, leaves) == config
    assert shape != jax.tree.structure(LabConfig(target=0.4, steps=8, credit="instant"))
    assert shape == jax.tree.structure(LabConfig(target=0.1, steps=7, credit="instant"))
    swept = jax.vmap(lambda target: dataclasses.replace(config, target=target).gains.target * 2)(jnp.array([0.1, 0.2]))
    assert swept.tolist() == pytest.approx([0.2, 0.4])


def test_the_defaults_are_the_trainers_where_it_has_them():
    """But for the learning rate with its end, and the gains, which are those of another model."""
    config, trainer = LabConfig(), fds.get_config()
    for name in (
        "target",
        "kd",
        "smoothing",
        "lambda_max",
        "initial_lambda",
        "form",
        "every",
        "smoothing_of",
    ):
        assert getattr(config, name) == trainer.pid[name], name
    names = (
        "kl_weight",
        "clip_low",
        "clip_high",
        "outcome_weight",
        "process_weight",
        "discount",
        "normalize",
        "credit",
        "price_scale",
    )
    for name in names:
        assert getattr(config, name) == trainer.algo[name], name
    assert (config.steps, config.scenarios, config.dialogues, config.max_turns) == (
        *(trainer.train.rl_steps, trainer.train.scenarios_per_step, trainer.algo.group_size),
        trainer.episode.max_turns,
    )
    gains = dataclasses.asdict(LabConfig(kp=1.5, ki=0.2, kd=0.1, target=0.4, smoothing=0.6, lambda_max=3.0).gains)
    assert gains == {
        "kp": 1.5,
        "ki": 0.2,
        "kd": 0.1,
        "target": 0.4,
        "smoothing": 0.6,
        "lambda_max": 3.0,
        "form": "incremental",
        "every": 1,
        "smoothing_of": "both",
    }
