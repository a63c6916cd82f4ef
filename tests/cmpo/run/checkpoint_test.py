"""Checkpoints: the whole state comes back to the bit; a damaged one makes room for the one before."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from cmpo import pid
from cmpo.algorithms.algorithm import Head
from cmpo.run import train_state
from cmpo.run.checkpoint import Checkpoints
from cmpo.run.train_state import compute_checksums
from models import qwen2, value_head
from tests.builders.runs import full_disk

CONFIG = qwen2.Qwen2Config(vocab_size=32, hidden_size=8, intermediate_size=8, num_layers=1, num_heads=1, num_kv_heads=1)
GAINS = pid.PIDGains(kp=0.1, ki=0.1, kd=0.0, target=0.3, smoothing=1.0, lambda_max=5.0)

HEAD = Head(functools.partial(value_head.init, CONFIG), value_head.apply, optax.adam(0.1))


def at(step, seed=0):
    """A state in which every array has values of its own."""
    first = train_state.begin_run(qwen2.init(CONFIG, jax.random.key(seed)), optax.adam(0.1), seed=seed)
    begun = train_state.begin_rl(CONFIG, first, optax.adam(0.1), memory=pid.init(GAINS), head=HEAD)
    return jax.tree.map(lambda x: x + jnp.asarray(step, x.dtype), begun)._replace(step=jnp.int32(step))


def like(state):
    return lambda step: state


def damage(tmp_path, step):
    files = [
        path for path in (tmp_path / "checkpoints" / str(step)).rglob("*") if path.is_file() and path.stat().st_size
    ]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def kept(tmp_path):
    return sorted(path.name for path in (tmp_path / "checkpoints").iterdir())


def test_the_whole_state_comes_back(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(at(3))
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        restored = checkpoints.restore(like(at(0, seed=9)))
    chex.assert_trees_all_equal(restored, at(3))
    chex.assert_trees_all_equal_dtypes(restored, at(3))


def test_the_state_may_be_donated_while_it_is_written(tmp_path):
    scramble = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2):
            saved = at(step)
            checkpoints.save(saved)
            scramble(saved)
        chex.assert_trees_all_equal(checkpoints.restore(like(at(0))), at(2))


@pytest.mark.parametrize("part", ["d", "manifest.ocdbt", "_METADATA", "_CHECKPOINT_METADATA"])
def test_a_flipped_bit_anywhere_is_no_other_state(tmp_path, part, caplog):
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        checkpoints.save(at(1))
        checkpoints.save(at(2))
    files = [
        path
        for path in (tmp_path / "checkpoints" / "2").rglob("*")
        if path.is_file() and part in (path.name, path.parent.name) and path.stat().st_size
    ]
    assert files
    found = []
    for number, path in enumerate(files):
        before = path.read_bytes()
        place = (7919 * (number + 1)) % len(before)
        path.write_bytes(before[:place] + bytes([before[place] ^ 16]) + before[place + 1 :])
        with Checkpoints(tmp_path) as checkpoints:
            state = checkpoints.restore(like(at(0)))
        found.append(int(state.step))
        chex.assert_trees_all_equal(state, at(found[-1]))
        assert found[-1] == 2 or "checkpoint 2 in" in caplog.text
        path.write_bytes(before)
    assert part != "d" or 1 in found  # where the arrays are, it is found out


def test_other_numbers_than_were_saved_are_found_out_and_named(tmp_path, caplog, monkeypatch):
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        checkpoints.save(at(1))
        monkeypatch.setattr(
            "cmpo.run.checkpoint.compute_checksums", lambda state: compute_checksums(state).at[4].add(1)
        )
        checkpoints.save(at(2))
    monkeypatch.undo()
    with Checkpoints(tmp_path) as checkpoints:
        chex.assert_trees_all_equal(checkpoints.restore(like(at(0))), at(1))
    assert ".params['embed']['embedding'] in " in caplog.text and "checkpoints/2 fail" in caplog.text


def test_checksums_see_every_bit_and_place_and_no_mesh():
    values = jax.random.normal(jax.random.key(0), (8, 6), jnp.float32)
    trees = [
        (values, values.astype(jnp.bfloat16), jnp.int32(3)),
        (values.at[7, 5].set(-values[7, 5]), values.astype(jnp.bfloat16), jnp.int32(3)),
        (values[::-1], values.T.astype(jnp.bfloat16), jnp.int32(4)),
    ]
    plain, sign, order = (np.asarray(compute_checksums(tree)) for tree in trees)
    assert plain.dtype == np.uint32 and list(plain == sign) == [False, True, True] and not any(plain == order)
    split = jax.device_put(trees[0][0], NamedSharding(jax.make_mesh((4, 2), ("a", "b")), P("a", "b")))
    assert jax.jit(compute_checksums)([split]) == plain[0]


def test_the_best_stays_and_is_found(tmp_path):
    scores = {1: -math.inf, 2: 1.0, 3: 3.0, 4: 2.0, 5: -math.inf}
    with Checkpoints(tmp_path, keep=1, score=scores.get) as checkpoints:
        for step in (1, 2, 3, 4):
            checkpoints.save(at(step))
    with Checkpoints(tmp_path, keep=1, score=scores.get) as checkpoints:
        checkpoints.save(at(5))
    assert kept(tmp_path) == ["3", "5"]
    with Checkpoints(tmp_path, score=scores.get) as checkpoints:
        chex.assert_trees_all_equal(checkpoints.restore(like(at(0)), best=True), at(3))
        chex.assert_trees_all_equal(checkpoints.restore(like(at(0))), at(5))


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path):
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(at(1))
    failing = pytest.raises(OSError, match="cannot write a checkpoint in .*checkpoints.*is as it was")
    with full_disk(128):
        with failing, Checkpoints(tmp_path, keep=1) as checkpoints:
            checkpoints.save(at(2))
        with Checkpoints(tmp_path) as checkpoints:
            chex.assert_trees_all_equal(checkpoints.restore(like(at(0))), at(1))


def test_an_unwritable_directory_is_named(tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    told = pytest.raises(OSError, match=f"cannot write a checkpoint in {tmp_path}/checkpoints: .*Not a directory")
    with told, Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(at(1))


def test_a_reader_changes_nothing(tmp_path):
    with Checkpoints(tmp_path / "none") as checkpoints:
        assert checkpoints.restore(like(at(0))) is None
    assert not (tmp_path / "none").exists()
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        checkpoints.save(at(1))
        checkpoints.save(at(2))
    damage(tmp_path, 2)
    (tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir()  # somebody is writing
    with Checkpoints(tmp_path) as checkpoints:
        chex.assert_trees_all_equal(checkpoints.restore(like(at(0))), at(1))
    assert kept(tmp_path) == ["1", "2", "3.orbax-checkpoint-tmp"]
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        checkpoints.restore(like(at(0)))
    assert kept(tmp_path) == ["1"]


def test_nothing_saved_yet(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.restore(like(at(0))) is None


def test_only_the_last_ones_are_kept(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(at(step))
    assert kept(tmp_path) == ["2", "3"]


def test_a_damaged_checkpoint_is_passed_over_said_so_and_can_be_saved_again(tmp_path, caplog):
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        checkpoints.save(at(1))
        checkpoints.save(at(2))
    damage(tmp_path, 2)
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        restored = checkpoints.restore(like(at(0)))
        chex.assert_trees_all_equal(restored, at(1))
        assert "checkpoint 2" in caplog.text and "trying the one before" in caplog.text
        checkpoints.save(at(2))
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        chex.assert_trees_all_equal(checkpoints.restore(like(at(0))), at(2))


def test_all_damaged_is_an_error_and_nothing_is_deleted(tmp_path):
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        checkpoints.save(at(1))
    damage(tmp_path, 1)
    with (
        Checkpoints(tmp_path, keep=3) as checkpoints,
        pytest.raises(ValueError, match=r"none of the checkpoints \[1\]"),
    ):
        checkpoints.restore(like(at(0)))
    assert (tmp_path / "checkpoints" / "1").exists()


def test_a_checkpoint_of_an_older_version_is_not_called_damaged(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints._manager.save(3, args=ocp.args.StandardSave({"params": jnp.ones(2), "pid": jnp.ones(1)}))
        checkpoints.wait()
        with pytest.raises(ValueError, match="checkpoint 3 in .* is of an older version of this program"):
            checkpoints.restore(like(at(0)))
