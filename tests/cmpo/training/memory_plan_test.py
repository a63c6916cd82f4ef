"""What a run is said to need, against what XLA says of the very update, and by hand."""

import jax
import pytest

from benchmarks import fits
from cmpo import algorithms
from cmpo.algorithms.sft import imitation_loss
from cmpo.distributed import sharding
from cmpo.training import build, memory_plan, model_source, packing, update_step
from configs import fds, tau2
from models import qwen2
from rollouts import domains
from tests.builders import runs


def run(variant, devices="8x80", file=fds):
    config = file.get_config(variant)
    return memory_plan.plan_memory(
        config, model_source.find_architecture(config, None), memory_plan.read_devices(devices)
    )


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("0.5b", 494_032_768), ("1.5b", 1_543_714_304), ("3b", 3_085_938_688), ("7b", 7_615_616_512)],
)
def test_published_sizes_fit_on_eight_devices(name, parameters):
    """The numbers of parameters are those of the checkpoints on the hub."""
    text = run(f"model=qwen2.5-{name}")
    assert f"{parameters:,} parameters" in text and "mesh data 1 x fsdp 8 x tensor 1: 8 devices of 80 GB" in text
    assert "fits: " in text


@pytest.mark.parametrize("file", [fds, tau2])
def test_14b_fits_on_eight_devices(file):
    text = run("model=qwen2.5-14b", file=file)
    assert "14,770,033,664 parameters" in text and "fsdp 4 x tensor 2" in text and "fits: " in text


def test_72b_does_not_and_a_mesh_is_named_that_would(capsys):
    with pytest.raises(
        ValueError, match=r"does not fit: .* GB on each device \(moments of the optimizer: 72.7\)"
    ) as error:
        run("model=qwen2.5-72b")
    assert "72,706,203,648 parameters" in capsys.readouterr().out
    advised = {"mesh.data": 1, "mesh.fsdp": 8, "mesh.tensor": 8}
    assert "the mesh data 1 x fsdp 8 x tensor 8 would do, 64 devices" in str(error.value)
    config = fds.get_config("model=qwen2.5-72b")
    config.update_from_flattened_dict(advised)
    assert "fits: " in memory_plan.plan_memory(
        config, model_source.find_architecture(config, None), memory_plan.read_devices("64x80")
    )


def test_what_stays_by_hand():
    """One weight matrix of hidden x hidden in the middle of it all: shares of fsdp and tensor, bytes by dtype."""
    config = runs.tiny(**{"model.dtype": "bfloat16", "model.num_heads": 2, "model.num_kv_heads": 2})
    model = model_source.find_architecture(config, None)
    total = sum(leaf.size for leaf in jax.tree.leaves(qwen2.shapes(model)))
    whole = memory_plan.estimate_needs(config, model, {"data": 2, "fsdp": 1, "tensor": 1})["always"]
    assert whole["parameters that are trained, float32"] == 4 * total
    assert whole["moments of the optimizer"] == 2 * 4 * total + 2 * 4  # and AdamW's two counters
    # 1 layer, 8 slots over 2 devices, 2048 tokens, 2 heads of 8, keys and values, 2 bytes
    assert whole["keys and values of the sampler"] == 1 * 4 * 2048 * 2 * 8 * 2 * 2
    norms = 3 * 16 + 3 * 16  # scales and, with 2 heads of 8, biases: float32 in the reference as well
    assert whole["the reference"] == 2 * (total - norms) + 4 * norms
    split = memory_plan.estimate_needs(config, model, {"data": 1, "fsdp": 2, "tensor": 2})["always"]
    biases = 3 * 16 // 2
    assert split["parameters that are trained, float32"] == 4 * ((total - norms) // 4 + 3 * 16 + biases)


@pytest.mark.parametrize(("mesh", "remat"), [((8, 1, 1), True), ((1, 8, 1), False), ((2, 2, 2), True)], ids=str)
def test_the_update_needs_what_is_planned(mesh, remat):
    """XLA's own account of the compiled update's temporary memory."""
    sizes = {"model.hidden_size": 256, "model.intermediate_size": 1024, "model.num_layers": 8, "model.num_heads": 4}
    config = runs.tiny(**sizes, **{"model.num_kv_heads": 2, "model.vocab_size": 4096, "model.remat": remat})
    config.train.row_length = 512
    model, on = model_source.find_architecture(config, None), dict(zip(sharding.AXES, mesh, strict=True))
    planned = sum(memory_plan.estimate_needs(config, model, on)["updating"].values())
    devices = sharding.make_mesh(*mesh)
    state = build.lay_out_state(config, model, devices, algorithms.load(config, domains.load(config)), 0)
    unit = config.train.micro_rows * sharding.rows_axis_size(devices)
    empty = packing.pack_rows([], row_length=512, rows=2 * unit)
    rows = sharding.place_rows(devices, empty, config.train.micro_rows)
    update = update_step.make_update(model, devices, build.make_optimizers(config)["sft"], imitation_loss)
    memory = update.lower(state.policy, update_step.WITHOUT_HEAD, {}, rows, ()).compile().memory_analysis()
    assert 0.7 < memory.temp_size_in_bytes / planned < 1.4


@pytest.mark.parametrize("size", ["0.5b", "7b", "14b"])
def test_the_table_in_the_documentation_is_what_is_computed(size):
    written = (runs.ROOT / "docs" / "memory.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in written if line.startswith(f"| {size.upper()} |")] == fits.rows(size)


def test_momentum_in_bfloat16_takes_two_bytes_less():
    config = runs.tiny()
    model, sizes = model_source.find_architecture(config, None), {"data": 1, "fsdp": 1, "tensor": 1}
    name, total = "moments of the optimizer", sum(leaf.size for leaf in jax.tree.leaves(qwen2.shapes(model)))
    full = memory_plan.estimate_needs(config, model, sizes)["always"][name]
    config.train.momentum_dtype = "bfloat16"
    assert full - memory_plan.estimate_needs(config, model, sizes)["always"][name] == 2 * total


def test_devices_are_read():
    assert memory_plan.read_devices("16x141.5") == (16, 141.5)
    assert memory_plan.read_devices("") == (8, 80.0)  # there are only CPUs here
    with pytest.raises(ValueError, match="--devices: expected COUNTxGIGABYTES"):
        memory_plan.read_devices("80GB")
