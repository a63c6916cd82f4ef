"""Checkpoints in Hugging Face's format: what goes out comes back, and what is wrong is refused by name."""

import dataclasses
import json
import shutil

import chex
import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from safetensors.numpy import load_file, save_file

from models import hf, hf_config, qwen2
from models.config import Qwen2Config, Yarn

CONFIG = Qwen2Config(
    vocab_size=24,
    hidden_size=8,
    intermediate_size=16,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    tie_embeddings=False,
    max_positions=64,
)
TOKENS = {"eos_token_id": 2, "pad_token_id": 0}


@pytest.fixture(scope="module")
def params():
    leaves, tree = jax.tree.flatten(qwen2.init(CONFIG, jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return jax.tree.unflatten(tree, [jax.random.normal(key, x.shape) for key, x in zip(keys, leaves, strict=True)])


@pytest.fixture(scope="module")
def saved(params, tmp_path_factory):
    """A checkpoint in one file, and one in several."""
    root = tmp_path_factory.mktemp("saved")
    hf.save(root / "single", CONFIG, params, tokens=TOKENS)
    hf.save(root / "sharded", CONFIG, params, max_shard_bytes=2000)
    return root


@pytest.mark.parametrize("kind", ["single", "sharded"])
def test_what_is_saved_is_loaded(kind, saved, params):
    config, loaded = hf.load(saved / kind)
    assert config == CONFIG
    chex.assert_trees_all_equal(loaded, params)


def test_files_hold_matrices_as_out_in_and_layers_apart(saved, params):
    tensors = load_file(saved / "single" / hf.SINGLE)
    attention = params["layers"]["attention"]
    np.testing.assert_array_equal(tensors["model.layers.1.self_attn.k_proj.weight"], attention["k"]["kernel"][1].T)
    np.testing.assert_array_equal(tensors["model.layers.2.self_attn.q_proj.bias"], attention["q"]["bias"][2])
    np.testing.assert_array_equal(tensors["lm_head.weight"], params["head"]["kernel"].T)
    assert len(tensors) == 3 + 3 * 12
    assert json.loads((saved / "single" / "generation_config.json").read_text()) == TOKENS


def test_shards_keep_to_the_limit(saved):
    index = json.loads((saved / "sharded" / hf.INDEX).read_text())
    files = sorted((saved / "sharded").glob("*.safetensors"))
    sizes = [sum(tensor.nbytes for tensor in load_file(file).values()) for file in files]
    assert len(files) > 3 and max(sizes) <= 2000 and sum(sizes) == index["metadata"]["total_size"]
    assert set(index["weight_map"]) == set(hf.table(CONFIG))


def test_loads_into_the_sharding_asked_for(saved, params):
    """Each device gets its part, of layers and of whole matrices alike."""
    mesh = jax.make_mesh((2, 2), ("fsdp", "tensor"), axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[:4])

    def sharding(path, leaf):
        return NamedSharding(mesh, P(*(None,) * (leaf.ndim - 2), "fsdp", "tensor") if path[-1].key == "kernel" else P())

    shardings = jax.tree_util.tree_map_with_path(sharding, params)
    _, loaded = hf.load(saved / "sharded", shardings=shardings)
    chex.assert_trees_all_equal(loaded, params)
    jax.tree.map(lambda leaf, wanted: chex.assert_equal(leaf.sharding, wanted), loaded, shardings)
    assert loaded["layers"]["mlp"]["up"]["kernel"].addressable_shards[0].data.shape == (3, 4, 8)


def test_a_sharded_layers_axis_is_refused(saved, params):
    mesh = jax.make_mesh((3,), ("fsdp",), axis_types=(AxisType.Auto,), devices=jax.devices()[:3])
    shardings = jax.tree.map(lambda x: NamedSharding(mesh, P("fsdp") if x.shape[0] == 3 else P()), params)
    with pytest.raises(ValueError, match="layers' axis"):
        hf.load(saved / "single", shardings=shardings)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtypes_of_file_and_parameters(dtype, saved, params, tmp_path):
    hf.save(tmp_path / "half", CONFIG, params, dtype=dtype)
    assert json.loads((tmp_path / "half" / "config.json").read_text())["torch_dtype"] == dtype
    _, loaded = hf.load(tmp_path / "half")
    chex.assert_trees_all_equal(loaded, jax.tree.map(lambda x: x.astype(dtype).astype("float32"), params))
    _, loaded = hf.load(saved / "single", param_dtype=dtype)
    chex.assert_trees_all_equal(loaded, jax.tree.map(lambda x: x.astype(dtype), params))


def test_nothing_is_overwritten_and_nothing_half_written(saved, params, tmp_path):
    with pytest.raises(FileExistsError, match="single"):
        hf.save(saved / "single", CONFIG, params)
    wrong = params | {"norm": {"scale": params["norm"]["scale"][:-1]}}
    with pytest.raises(ValueError, match="norm/scale"):
        hf.save(tmp_path / "new", CONFIG, wrong)
    assert not list(tmp_path.iterdir())


def rewritten(change):
    def damage(directory):
        tensors = load_file(directory / hf.SINGLE)
        change(tensors)
        save_file(tensors, directory / hf.SINGLE)

    return damage


def rename(tensors):
    tensors["model.layers.0.self_attn.qproj.weight"] = tensors.pop("model.layers.0.self_attn.q_proj.weight")


def truncate(directory):
    content = (directory / hf.SINGLE).read_bytes()
    (directory / hf.SINGLE).write_bytes(content[: len(content) // 2])


DAMAGES = {
    "missing": (rewritten(lambda t: t.pop("model.norm.weight")), "missing tensors: model.norm.weight"),
    "renamed": (rewritten(rename), "missing tensors: model.layers.0.self_attn.q_proj.weight"),
    "unknown": (rewritten(lambda t: t.update(extra=t["model.norm.weight"])), "no place for: extra"),
    "shape": (
        rewritten(lambda t: t.update({"lm_head.weight": t["lm_head.weight"].T.copy()})),
        r"lm_head.weight: expected shape \(24, 8\), got \(8, 24\)",
    ),
    "integers": (
        rewritten(lambda t: t.update({"model.norm.weight": t["model.norm.weight"].astype(np.int32)})),
        "model.norm.weight: expected F32, BF16 or F16, got I32",
    ),
    "truncated": (truncate, "model.safetensors: damaged"),
    "no weights": (lambda directory: (directory / hf.SINGLE).unlink(), "neither model.safetensors nor"),
    "no config": (lambda directory: (directory / "config.json").unlink(), "no config.json"),
    "broken config": (lambda directory: (directory / "config.json").write_text("{"), "single"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused(damage, saved, tmp_path):
    spoil, message = DAMAGES[damage]
    shutil.copytree(saved / "single", tmp_path / "single")
    spoil(tmp_path / "single")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        hf.load(tmp_path / "single")


def reindexed(change):
    def damage(directory):
        index = json.loads((directory / hf.INDEX).read_text())
        change(index["weight_map"])
        (directory / hf.INDEX).write_text(json.dumps(index))

    return damage


def duplicate(directory):
    first, second = sorted(directory.glob("*.safetensors"))[:2]
    save_file(load_file(second) | {"model.embed_tokens.weight": np.zeros((24, 8), np.float32)}, second)


INDEX_DAMAGES = {
    "lost shard": (lambda directory: sorted(directory.glob("*.safetensors"))[1].unlink(), "model-00002-of"),
    "listed only": (reindexed(lambda m: m.update(ghost=m["model.norm.weight"])), "no file holds: ghost"),
    "unlisted": (reindexed(lambda m: m.pop("model.norm.weight")), "model.norm.weight is in .* index says None"),
    "double": (duplicate, "model.embed_tokens.weight is in both"),
    "no map": (lambda directory: (directory / hf.INDEX).write_text("[]"), "weight_map"),
}


@pytest.mark.parametrize("damage", INDEX_DAMAGES)
def test_a_damaged_index_is_refused(damage, saved, tmp_path):
    spoil, message = INDEX_DAMAGES[damage]
    shutil.copytree(saved / "sharded", tmp_path / "sharded")
    spoil(tmp_path / "sharded")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        hf.load(tmp_path / "sharded")


def test_old_buffers_are_passed_over(saved, params, tmp_path):
    shutil.copytree(saved / "single", tmp_path / "old")
    rewritten(lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(1, np.float32)}))(
        tmp_path / "old"
    )
    chex.assert_trees_all_equal(hf.load(tmp_path / "old")[1], params)


# config.json

RAW = {  # Qwen2.5-0.5B-Instruct's, as on the hub
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 896,
    "initializer_range": 0.02,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.43.1",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
SMALLEST = Qwen2Config(
    vocab_size=151936, hidden_size=896, intermediate_size=4864, num_layers=24, num_heads=14, num_kv_heads=2
)
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def test_the_published_config_is_read():
    assert hf_config.read(RAW) == SMALLEST
    assert SMALLEST.head_dim == 64 and SMALLEST.rope_theta == 1e6
    assert hf_config.read(RAW, dtype="bfloat16", remat=True) == dataclasses.replace(
        SMALLEST, dtype="bfloat16", remat=True
    )


def test_yarn_in_both_spellings():
    expected = dataclasses.replace(SMALLEST, yarn=Yarn(4.0, 32768), max_positions=131072)
    assert hf_config.read(RAW | {"rope_scaling": YARN}) == expected
    new = {name: value for name, value in RAW.items() if name != "rope_theta"}
    new["rope_parameters"] = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}
    assert hf_config.read(new) == expected  # the original context defaults to max_position_embeddings


def test_sliding_windows():
    on = RAW | {"use_sliding_window": True, "sliding_window": 4096}
    assert hf_config.read(on) == dataclasses.replace(SMALLEST, sliding_window=4096, window_from=21)
    assert hf_config.read(on | {"max_window_layers": 24}) == SMALLEST  # no layer has one


@pytest.mark.parametrize(
    "config",
    [
        SMALLEST,
        dataclasses.replace(SMALLEST, tie_embeddings=False, head_dim=128),
        dataclasses.replace(SMALLEST, yarn=Yarn(2.0, 1000, beta_fast=16.0, truncate=False), max_positions=4000),
        dataclasses.replace(SMALLEST, sliding_window=128, window_from=3),
        dataclasses.replace(SMALLEST, attention_bias=False, rope_theta=1e5, max_positions=2048),
    ],
)
def test_configs_survive_the_round_trip(config):
    assert hf_config.read(json.loads(json.dumps(hf_config.write(config, eos_token_id=[1, 2])))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mistral"}, "model_type: expected one of qwen2, llama, got 'mistral'"),
        ({"model_type": "llama", "attention_bias": True}, "attention_bias: only False"),
        ({"hidden_act": "gelu"}, "hidden_act: only 'silu'"),
        ({"attention_dropout": 0.1}, "attention_dropout: only 0.0"),
        ({"quantization_config": {"bits": 4}}, "quantization_config: only None"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "expected default or yarn, got dynamic"),
        ({"rope_scaling": YARN | {"mscale": 0.7}}, "rope option mscale"),
        ({"rope_scaling": {"type": "yarn"}}, "rope option factor: missing"),
        ({"logit_softcap": 30.0}, "logit_softcap: unknown option"),
        ({"use_sliding_window": True, "sliding_window": None}, "sliding_window: missing"),
        ({"use_sliding_window": True, "layer_types": ["sliding_attention"] * 24}, "layer_types: expected full"),
        ({"layer_types": ["sliding_attention"] * 24}, "layer_types: names sliding_attention while"),
        ({"hidden_size": None}, "hidden_size: missing"),
        ({"num_key_value_heads": 3}, "num_heads 14 is no multiple"),
    ],
)
def test_what_cannot_be_honoured_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        hf_config.read(RAW | change)
