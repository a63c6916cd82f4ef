"""Which architecture a run has, and what a new model begins with."""

import types

import chex
import jax
import pytest

from cmpo.training import build, model_source
from configs import fds
from models import induction, qwen2


@pytest.mark.parametrize(
    ("asked", "dtype", "platforms", "expected"),
    [
        ("auto", "bfloat16", ["gpu"], "cudnn"),
        ("auto", "bfloat16", ["gpu", "gpu"], "blocks"),
        ("auto", "float32", ["gpu"], "blocks"),
        ("auto", "bfloat16", ["cpu"], "blocks"),
        ("cudnn", "bfloat16", ["gpu", "gpu"], "cudnn"),
        ("xla", "float32", ["cpu"], "xla"),
    ],
)
def test_the_kernel_of_attention_follows_the_devices(monkeypatch, asked, dtype, platforms, expected):
    monkeypatch.setattr(jax, "devices", lambda: [types.SimpleNamespace(platform=name) for name in platforms])
    config = fds.get_config("model=qwen2.5-0.5b")
    config.model.attention, config.model.dtype = asked, dtype
    assert model_source.find_architecture(config, None).attention == expected


@pytest.mark.parametrize("tied", [True, False])
def test_a_new_model_copies_where_its_outputs_read_what_its_inputs_write(tied):
    config = fds.get_config("smoke")
    config.model.tie_embeddings = tied
    model = model_source.find_architecture(config, None)
    plain = qwen2.init(model, jax.random.key(3))
    expected = induction.plant_head(model, plain) if tied else plain
    mesh = build.make_mesh(config, model)
    chex.assert_trees_all_close(model_source.make_trained_params(model, mesh, None, 3), expected, rtol=1e-5, atol=1e-6)
