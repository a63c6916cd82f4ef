"""Checkpoints: the whole state comes back to the bit; a damaged one makes room for the one before."""

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

from cmpo import pid, state
from cmpo.checkpoint import Checkpoints
from models import qwen2

CONFIG = qwen2.Qwen2Config(vocab_size=32, hidden_size=8, intermediate_size=8, num_layers=1, num_heads=1, num_kv_heads=1)
GAINS = pid.PIDGains(kp=0.1, ki=0.1, kd=0.0, target=0.3, smoothing=1.0, lambda_max=5.0)


def at(step, seed=0):
    """A state in which every array has values of its own."""
    begun = state.init(CONFIG, qwen2.init(CONFIG, jax.random.key(seed)), optax.adam(0.1), pid.init(GAINS), seed=seed)
    return jax.tree.map(lambda x: x + jnp.asarray(step, x.dtype), begun)._replace(step=jnp.int32(step))


def damage(tmp_path, step):
    files = [
        path for path in (tmp_path / "checkpoints" / str(step)).rglob("*") if path.is_file() and path.stat().st_size
    ]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_the_whole_state_comes_back(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(at(3))
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        restored = checkpoints.restore(at(0, seed=9))
    chex.assert_trees_all_equal(restored, at(3))
    chex.assert_trees_all_equal_dtypes(restored, at(3))


def test_nothing_saved_yet(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.restore(at(0)) is None


def test_only_the_last_ones_are_kept(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(at(step))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()) == ["2", "3"]


def test_a_damaged_checkpoint_is_passed_over_said_so_and_can_be_saved_again(tmp_path, caplog):
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        checkpoints.save(at(1))
        checkpoints.save(at(2))
    damage(tmp_path, 2)
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        restored = checkpoints.restore(at(0))
        chex.assert_trees_all_equal(restored, at(1))
        assert "checkpoint 2" in caplog.text and "trying the one before" in caplog.text
        checkpoints.save(at(2))
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        chex.assert_trees_all_equal(checkpoints.restore(at(0)), at(2))


def test_all_damaged_is_an_error_and_nothing_is_deleted(tmp_path):
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        checkpoints.save(at(1))
    damage(tmp_path, 1)
    with (
        Checkpoints(tmp_path, keep=3) as checkpoints,
        pytest.raises(ValueError, match=r"none of the checkpoints \[1\]"),
    ):
        checkpoints.restore(at(0))
    assert (tmp_path / "checkpoints" / "1").exists()
