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

from models import hf, qwen2
from models.config import Qwen2Config

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
    assert set(index["weight_map"]) == set(hf.list_places(CONFIG))


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


@pytest.fixture(scope="module")
def tied(params, tmp_path_factory):
    """A checkpoint whose head is its embedding."""
    directory = tmp_path_factory.mktemp("tied") / "model"
    config = dataclasses.replace(CONFIG, tie_embeddings=True)
    hf.save(directory, config, {name: leaf for name, leaf in params.items() if name != "head"})
    return directory


@pytest.mark.parametrize("equal", [True, False])
def test_a_head_beside_the_embedding_it_is_tied_to_is_the_same_or_refused(equal, tied, tmp_path):
    shutil.copytree(tied, tmp_path / "both")

    def add(tensors):
        head = tensors["model.embed_tokens.weight"].copy()
        head[-1, -1] += 0 if equal else 1e-6
        tensors["lm_head.weight"] = head

    rewritten(add)(tmp_path / "both")
    if equal:
        hf.verify_checkpoint(tmp_path / "both")
        config, loaded = hf.load(tmp_path / "both")
        assert config.tie_embeddings
        chex.assert_trees_all_equal(loaded, hf.load(tied)[1])
        return
    for read in (hf.load, hf.verify_checkpoint):
        with pytest.raises(ValueError, match="tensor lm_head.weight differs from model.embed_tokens.weight, while"):
            read(tmp_path / "both")


@pytest.mark.parametrize(
    ("kind", "beside", "message"),
    [
        ("sharded", "model.safetensors", "index.json and model.safetensors are two sources of the weights"),
        ("sharded", "model-00001-of-00002.safetensors", "index.json and model-00001-of-00002.safetensors are two"),
        ("single", "model-00001-of-00002.safetensors", "model.safetensors and model-00001-of-00002.safetensors are"),
        ("single", "consolidated.safetensors", "model.safetensors and consolidated.safetensors are two sources"),
        ("single", "consolidated.00.pth", "model.safetensors and consolidated.00.pth are two sources"),
        ("single", "pytorch_model.bin", "model.safetensors and pytorch_model.bin are two sources"),
        ("sharded", "pytorch_model.bin.index.json", "index.json and pytorch_model.bin.index.json are two"),
        ("single", "adapter_model.safetensors", "adapter_model.safetensors: adapters are not read; merge"),
        ("single", "adapter_config.json", "adapter_config.json: adapters are not read; merge"),
    ],
)
def test_two_sources_of_the_weights_are_refused_by_name(kind, beside, message, saved, tmp_path):
    shutil.copytree(saved / kind, tmp_path / "model")
    shutil.copyfile(saved / "single" / hf.SINGLE, tmp_path / "model" / beside)
    for read in (hf.load, hf.verify_checkpoint):
        with pytest.raises(ValueError, match=message):
            read(tmp_path / "model")


def test_adapters_alone_are_named(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"adapter_config.json: adapters are not read"):
        hf.read_config(tmp_path)


def test_an_index_of_one_file_is_no_second_source(saved, params, tmp_path):
    shutil.copytree(saved / "single", tmp_path / "model")
    index = {"weight_map": dict.fromkeys(hf.list_places(CONFIG), hf.SINGLE)}
    (tmp_path / "model" / hf.INDEX).write_text(json.dumps(index))
    chex.assert_trees_all_equal(hf.load(tmp_path / "model")[1], params)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "expected a JSON object, got list"),
        ('{"vocab_size": 24, "vocab_size": 25}', "the key 'vocab_size' 2 times"),
        ("[" * 100_000, "expected a JSON object"),
        ('{"model_type": "qwen2", "vocab_size": "24"}', "config.json: hidden_size, .* missing"),
    ],
)
def test_a_config_that_is_no_object_is_refused_by_its_file(content, message, saved, tmp_path):
    shutil.copytree(saved / "single", tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(content)
    with pytest.raises(ValueError, match=f"config.json: .*{message}|{message}"):
        hf.load(tmp_path / "model")
