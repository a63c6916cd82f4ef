"""`benchmarks.gpu` in a tiny form: every part's figures, and what becomes of them where a part fails."""

import dataclasses
import functools
import json
import math
import time
from types import SimpleNamespace

import chex
import jax
import numpy as np
import pytest

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import device, learning, playing, profiles
from cmpo.distributed import sharding
from cmpo.training import packing
from models import qwen2
from models import tokenizer as tokenizers
from rollouts.domains.fds import turn_format

TINY = device.Sizes(
    products=((16, 16, 16), (32, 16, 8)),
    copied=2**12,
    calls=2,
    repeats=1,
    lengths=(64,),
    tokens=128,
    prompt=24,
    slots=(2,),
    context=64,
    streams=(2, 24, 8),
    changes={
        "model.vocab_size": 600,
        "model.hidden_size": 16,
        "model.intermediate_size": 16,
        "model.num_layers": 2,
        "model.num_heads": 1,
        "model.num_kv_heads": 1,
        "model.context_length": 2048,
        "model.initializer_range": 0.3,  # so that bfloat16 makes a difference
        "engine.slots": 8,
        "engine.chunk": 64,
        "engine.steps": 4,
        "train.row_length": 2048,
    },
    played={
        "train.scenarios_per_step": 2,
        "episode.max_turns": 2,
        "engine.max_new_tokens": 64,
        "engine.grammar": True,
    },
)
COSTS = ["cost 1", "cost 2", "cost 3"]


@pytest.fixture
def one_device(monkeypatch):
    """A trainer's mesh is of the first device, as where there is one GPU."""
    monkeypatch.setattr(sharding, "make_mesh", functools.partial(sharding.make_mesh, devices=[device.accelerator()]))


@pytest.mark.parametrize(
    ("name", "endings", "units"),
    [
        ("ceilings", ["16 x 16 x 16", "32 x 16 x 8", "copy"], {"TFLOP/s", "GB/s"}),
        ("update-7b", ["rows of 64", "peak memory", *COSTS], {"tokens/s", "GB", "ms"}),
        ("decode-1.5b", ["2 slots", *COSTS], {"tokens/s", "ms"}),
        ("gap-0.5b", ["largest", "mean"], {"nats"}),
        ("step-1.5b", ["sample", "reference", "update"], {"s"}),
    ],
)
def test_a_part_yields_its_figures(name, endings, units, one_device):
    records = list(gpu.PARTS[name](TINY))
    assert len(records) == len(endings)
    for record, ending in zip(records, endings, strict=True):
        assert record["what"].endswith(ending)
        assert all(math.isfinite(record[figure]) and record[figure] > 0 for figure in ("ours", "peer", "ratio"))
        assert record["device"] == "cpu" and record["peer_name"] and record["note"]
        assert record.keys() == gpu.failure(name, "", "").keys() and gpu.line(record).count("|") == 7
    assert {record["unit"] for record in records} == units
    costs = [record["ours"] for record in records if "cost" in record["what"]]
    assert costs == sorted(costs, reverse=True)


def test_the_gap_is_that_of_one_model():
    """In float32, sampler and trainer add up alike but for rounding, if they have the same weights in every layer."""
    for record in gpu.PARTS["gap-0.5b"](TINY._replace(changes={**TINY.changes, "model.dtype": "float32"})):
        assert record["ours"] < 1e-4


def test_a_part_that_fails_leaves_the_others_and_is_named(tmp_path, monkeypatch, capsys):
    path, seen = tmp_path / "gpu.json", []

    def part(name, fails=False):
        def yields(_):
            seen.append([record["what"] for record in json.loads(path.read_text())] if path.exists() else [])
            yield device.record(name, 1, 2, "a ceiling", "tokens/s", "")
            seen.append([record["what"] for record in json.loads(path.read_text())])
            if fails:
                raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nwhile trying to allocate 99 bytes")

        return yields

    monkeypatch.setattr(gpu, "PARTS", {"one": part("first"), "two": part("second", fails=True), "three": part("third")})
    assert gpu.run(["one", "two", "three"], lambda name: gpu.guarded(name, TINY), path) == ["two"]
    whole = ["first", "second", "two", "third"]
    assert seen == [[], whole[:1], whole[:1], whole[:2], whole[:3], whole]  # each is on disk before the next is begun
    records = json.loads(path.read_text())
    assert [record["what"] for record in records] == whole and records[2]["ours"] is None
    assert "failed: RuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying" in capsys.readouterr().out


def test_a_part_whose_process_dies_or_takes_too_long_leaves_its_figures():
    record = device.record("kept", 1, 2, "a ceiling", "tokens/s", "")
    soon, late = time.monotonic() + 0.5, time.monotonic() + 60

    def after(end, until):
        return list(gpu.apart("x", ["sh", "-c", f'echo "$0"; echo why >&2; {end}', json.dumps(record)], until))

    assert after("true", late) == after("exec >&-; sleep 0.2", late) == [record]  # some take a while to end
    for end, until, reason in (
        ("kill -9 $$", late, "exit status -9: why"),
        ("exit 3", late, "exit status 3: why"),
        ("exec sleep 20", soon, "the time was over"),
    ):
        kept, failed = after(end, until)
        assert kept == record and failed == gpu.failure("x", reason, record["device"])
    assert after("true", time.monotonic()) == [gpu.failure("x", "not begun, the time was over", "?")]


def test_unknown_parts_are_refused_by_name():
    assert gpu.parts("gap-0.5b,ceilings") == ["gap-0.5b", "ceilings"]
    with pytest.raises(Exception, match="expected some of ceilings, .* got 'gap'"):
        gpu.parts("ceilings,gap")


def test_memory_is_asked_for_once_whatever_the_variable_is_called(monkeypatch):
    names = "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION", "CUDA_VISIBLE_DEVICES"
    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert [gpu.environment().get(name) for name in names] == ["0.9", None, "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    assert [gpu.environment().get(name) for name in names] == [None, "0.5", "3"]


def test_figures_that_are_none_are_refused():
    for ours, peer in ((0.0, 1.0), (1.0, math.nan), (math.inf, 1.0)):
        with pytest.raises(ValueError, match="speed: expected positive numbers"):
            device.record("speed", ours, peer, "a ceiling", "tokens/s", "")


def test_random_weights_are_those_of_the_model_in_its_precision():
    model = qwen2.Qwen2Config(40, 8, 16, 3, 1, 1, dtype="bfloat16", lora_rank=2)
    plain = dataclasses.replace(model, lora_rank=0)
    weights = device.random_weights(model)
    chex.assert_trees_all_equal_shapes_and_dtypes(weights, qwen2.cast(plain, qwen2.init(plain, jax.random.key(0))))
    assert all(np.asarray(x, np.float32).std() > 0 for x in jax.tree.leaves(weights) if x.dtype == "bfloat16")


def test_rows_are_full_share_their_prompts_and_half_of_them_counts():
    model = qwen2.Qwen2Config(1000, 8, 16, 1, 1, 1)
    for length, members in ((4096, 2), (8192, 4)):
        rows = learning.rows(model, length, device.Sizes())
        assert rows.tokens.shape == (16384 // length, length)
        assert (rows.segment_ids > 0).all() and rows.segment_ids.max() == 1 + members
        assert set(rows.prefix_ids.ravel()) == {0, 1} and 0.4 < rows.mask.mean() < 0.6


@pytest.mark.parametrize(("rank", "times"), [(0, 6), (2, 4)])
def test_operations_by_hand(rank, times):
    """A row of 5 tokens, 3 of one dialogue and 2 of another, 2 of them scored; frozen weights have no gradient."""
    model = qwen2.Qwen2Config(100, 8, 16, 1, 2, 1, lora_rank=rank)
    segments, mask = np.array([[1, 1, 1, 2, 2, 0]]), np.array([[0, 1, 0, 0, 1, 0]], bool)
    positions, nothing = np.array([[0, 1, 2, 0, 1, 0]]), np.zeros((1, 6))
    rows = packing.Rows(
        tokens=nothing,
        positions=positions,
        segment_ids=segments,
        mask=mask,
        sampled_logprobs=nothing,
        turns=nothing,
    )
    adapters = rank * (2 * (8 + 8) + 2 * (8 + 4) + 3 * (8 + 16))
    layer = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16  # q, k and v, o, the MLP
    pairs = (1 + 2 + 3) + (1 + 2)
    by_hand = times * (5 * layer + 2 * 100 * 8) + 6 * 5 * adapters + 12 * 2 * 4 * pairs
    assert learning.operations(model, rows) == by_hand


def test_random_weights_write_whole_turns_of_a_few_tokens():
    tokenizer = tokenizers.train_tokenizer(["The order is late, I am sorry."], 300)
    rules = playing.terse(turn_format.grammar, tokenizer, 400)
    rng, lengths = np.random.default_rng(0), []
    for _ in range(50):
        ids, state = [], 0
        while not ids or ids[-1] != tokenizer.im_end:
            ids.append(rng.choice(np.flatnonzero(rules.allowed[state])))
            state = rules.follows[state, ids[-1]]
        assert turn_format.parse(tokenizer.decode(ids[:-1])).action
        lengths.append(len(ids))
    assert 15 < np.mean(lengths) < 60


def event(name, nanoseconds, **stats):
    return SimpleNamespace(name=name, duration_ns=nanoseconds, stats=list(stats.items()))


def profile(**planes):
    named = {"gpu": "/device:GPU:0", "cpu": "/host:CPU"}
    return SimpleNamespace(
        planes=[
            SimpleNamespace(
                name=named[plane],
                lines=[SimpleNamespace(name=line, events=events) for line, events in lines.items()],
            )
            for plane, lines in planes.items()
        ]
    )


def test_a_gpu_s_time_is_that_of_its_streams():
    found = profiles.nanoseconds(
        profile(
            gpu={
                "Stream #1(Compute)": [
                    event("nvjet", 5, hlo_op="gemm_fusion_dot.7"),
                    event("nvjet", 3, hlo_op="gemm_fusion_dot.7"),
                    event("MemcpyD2D", 2),
                    event("loop_kernel", 1, hlo_op="while.3"),
                ],
                "XLA Ops": [event("gemm_fusion_dot.7", 100, hlo_op="gemm_fusion_dot.7")],
            },
            cpu={"python": [event("launch", 1000, hlo_op="gemm_fusion_dot.7")]},
        )
    )
    assert found == {"gemm_fusion_dot.7": 8, "MemcpyD2D": 2, "loop_kernel": 1}


def test_a_cpu_s_loops_are_not_counted_beside_what_is_in_them():
    events = [event("while.3", 10, hlo_op="while.3"), event("dot.1", 9, hlo_op="dot.1"), event("wait", 50)]
    assert profiles.nanoseconds(profile(cpu={"thread": events})) == {"dot.1": 9}


def test_a_profile_without_operations_says_what_it_holds():
    with pytest.raises(RuntimeError, match=r"expected operations of a device .*, found /host:CPU \(python\)"):
        profiles.nanoseconds(profile(cpu={"python": [event("wait", 50)]}))
