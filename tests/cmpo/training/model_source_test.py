"""Which architecture a run has."""

import types

import jax
import pytest

from cmpo.training import model_source
from configs import fds


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
