"""Batches that are played beside the update on the one before."""

import asyncio
import os
import signal
import threading

import chex
import jax
import pytest

from cmpo import main
from cmpo.cli import agents
from cmpo.run import journal
from cmpo.run.checkpoint import Checkpoints
from cmpo.run.log import read_metrics
from cmpo.training import build
from cmpo.training.prefetch import Ahead
from rollouts.endpoints.client import ChatClient
from rollouts.engine.engine import Engine
from tests.builders.runs import assert_same_run, tiny

OFF = {"train.one_step_off": True, "train.rl_steps": 4, "train.learning_rate": 0.1, "train.keep_checkpoints": 6}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run on eight devices, the weights that sampled, and whether updates waited for dialogues.

    The customers of a step say nothing until the update of the step before is over.
    """
    workdir, loaded, late, steps = tmp_path_factory.mktemp("whole"), [], [], threading.Semaphore(0)
    load, chat, rl_step = Engine.load, ChatClient.chat, main.Trainer.rl_step
    waiting = set()

    def loading(engine, params, *, version):
        loaded.append((version, jax.device_get(params)))
        load(engine, params, version=version)

    async def answering(client, messages, *, seed, **options):
        version = loaded[-1][0] if loaded else 0
        if version > 3 and version not in waiting:
            waiting.add(version)
            late.append(not await asyncio.to_thread(steps.acquire, timeout=600))
        return await chat(client, messages, seed=seed, **options)

    def stepping(trainer, state):
        result = rl_step(trainer, state)
        steps.release()
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "load", loading)
        patch.setattr(ChatClient, "chat", answering)
        patch.setattr(main.Trainer, "rl_step", stepping)
        state = main.train(tiny(**OFF, **MESH), workdir)
    return workdir, state, loaded, late


MESH = {"mesh.fsdp": 2}


def test_dialogues_go_on_beside_the_update_with_the_weights_before_it(whole):
    workdir, _, loaded, late = whole
    assert late == [False] * 3 and [version for version, _ in loaded] == [3, 4, 5, 6]
    with Checkpoints(workdir, keep=4) as checkpoints:
        saved = {number: checkpoints._manager.restore(number)["policy"]["params"] for number in (2, 3, 4)}
    for (_, sampled_with), number in zip(loaded, (2, 2, 3, 4), strict=True):
        chex.assert_trees_all_equal(sampled_with, jax.device_get(saved[number]))
    assert any((x != y).any() for x, y in zip(*(jax.tree.leaves(saved[number]) for number in (3, 4)), strict=True))
    records = read_metrics(workdir)[2:]
    gaps = [record["importance_gap_max"] for record in records]
    assert max(gaps[:2]) < 1e-4 < 1e-3 < min(gaps[2:])  # the first update has a rate of 0
    assert max(record["logprob_gap_max"] for record in records) < 1e-4


def test_the_state_holds_the_weights_before_its_last_update_for_who_goes_on(whole):
    workdir, state, _, _ = whole
    with Checkpoints(workdir, keep=6) as checkpoints:
        before = checkpoints._manager.restore(int(state.step) - 1)["policy"]["params"]
    chex.assert_trees_all_equal(jax.device_get(state.behaviour), jax.device_get(before))


def test_interrupted_with_two_batches_under_way_and_resumed_equals_uninterrupted(whole, tmp_path, monkeypatch):
    """Stopped while the first update runs and the second batch has begun to end; nothing is played twice."""
    workdir, state, *_ = whole
    add, rl_step, ended, enough = journal.Page.add, main.Trainer.rl_step, [], threading.Event()

    def adding(page, number, dialogue):
        add(page, number, dialogue)
        ended.append((page._stem.name, number))
        if page._stem.name == "step_000004":
            enough.set()

    def interrupted(trainer, now):
        result = rl_step(trainer, now)
        assert enough.wait(600)
        os.kill(os.getpid(), signal.SIGTERM)
        return result

    monkeypatch.setattr(journal.Page, "add", adding)
    with monkeypatch.context() as patch:
        patch.setattr(main.Trainer, "rl_step", interrupted)
        assert int(main.train(tiny(**OFF, **MESH), tmp_path).step) == 3
    resumed = main.train(tiny(**OFF, **MESH), tmp_path)
    assert_same_run(tmp_path, resumed, workdir, state, lines=6)
    assert len(ended) == len(set(ended)) == 8 + 4 * 8  # demonstrations, too


def test_the_policy_is_found_in_its_checkpoint_whatever_else_the_config_says(whole):
    workdir, state, *_ = whole
    with pytest.MonkeyPatch.context() as patch:
        loaded = []
        patch.setattr(Engine, "load", lambda engine, params, **_: loaded.append(params))
        agents.load_policy(tiny(**MESH), workdir)
    chex.assert_trees_all_equal(jax.device_get(loaded[0]), jax.device_get(state.policy.params))


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match=r"config.train.one_step_off: expected one process, got 2"):
        build.make_optimizers(tiny(**OFF))


# Ahead


def test_work_is_done_elsewhere_and_its_error_comes_with_its_result():
    with Ahead() as ahead:
        ahead.start(threading.current_thread)
        assert ahead.busy and ahead.result() is not threading.current_thread() and not ahead.busy
        ahead.start(lambda: 1 // 0)
        with pytest.raises(RuntimeError, match="was not taken"):
            ahead.start(lambda: None)
        with pytest.raises(ZeroDivisionError):
            ahead.result()


def test_leaving_asks_what_is_under_way_to_stop_and_waits_for_it():
    ended = []

    def work():
        while not ahead.stopping:
            pass
        ended.append(True)

    with pytest.raises(KeyError), Ahead() as ahead:
        ahead.start(work)
        raise KeyError
    assert ended == [True]
