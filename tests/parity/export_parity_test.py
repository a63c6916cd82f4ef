"""What a run exports is in transformers what it was in training: logits, tokens, template, ends. Needs torch."""

import dataclasses
import json

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import load_file, save_file

torch = pytest.importorskip("torch")

import transformers  # noqa: E402

from cmpo.training import demonstrations  # noqa: E402
from models import hf, lora, qwen2  # noqa: E402
from models import tokenizer as tokenizers  # noqa: E402
from models.hf import transfer  # noqa: E402
from rollouts.domains.fds import turn_format  # noqa: E402
from rollouts.types import Message  # noqa: E402
from tests.builders import runs  # noqa: E402

TEXTS = ["The soup is cold, and it's 12 o'clock. Where is the order? I am sorry to hear that. Ünïcödé 你好\n"] * 9
TEMPLATE = (  # as Qwen2.5's, in a file of its own
    "{%- if messages[0].role != 'system' %}\n{{- '<|im_start|>system\\nYou are Qwen.<|im_end|>\\n' }}\n{%- endif %}\n"
    "{%- for message in messages %}\n{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}\n"
    "{%- endfor %}\n{%- if add_generation_prompt %}\n{{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n"
)
DIALOGUE = [
    Message("system", "Serve.\n"),
    Message("user", "The soup is cold, it's 12!"),
    Message("assistant", "<think>So</think><response>I am sorry.</response><action>chat</action>"),
    Message("user", "And?"),
    Message("assistant", "<think>Well</think><response>Where is it?</response><action>chat</action>"),
]


def base(directory, kind):
    """A model as others save it: by transformers, tied, its head in the file too, the template apart."""
    tokenizer = tokenizers.train_tokenizer(TEXTS, 320)
    tokenizer.save(directory)
    config_class, model_class = {
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    }[kind]
    sizes = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
    torch.manual_seed(0)
    model = model_class(config_class(**sizes, tie_word_embeddings=True, bos_token_id=None, eos_token_id=None)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    settings["tokenizer_class"] = "GPT2Tokenizer"
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    generation = {"eos_token_id": [tokenizer.im_end, tokenizer.endoftext], "temperature": 0.7}
    (directory / "generation_config.json").write_text(json.dumps(generation))
    return tokenizer


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_adapters_merged_and_exported_give_the_logits_of_training(kind, tmp_path):
    tokenizer = base(tmp_path / "base", kind)
    run = tmp_path / "run"
    config, frozen = hf.load(tmp_path / "base")
    adapted = dataclasses.replace(config, lora_rank=2)
    adapters = lora.split(adapted, qwen2.init(adapted, jax.random.key(0)))[1]
    adapters = jax.tree.map(lambda leaf: leaf + 0.01, adapters)
    settings = runs.tiny(**{"model.path": str(tmp_path / "base"), "model.lora_rank": 2, "eval.temperature": 0.5})
    tokenizers.load(tmp_path / "base").save(run / "tokenizer")
    hf.write_config(run / "model", config, **hf.token_ids(tmp_path / "base", tokenizer))
    (run / "config.json").write_text(json.dumps(settings.to_dict()))
    with ocp.CheckpointManager((run / "checkpoints").absolute()) as manager:
        manager.save(1, args=ocp.args.PyTreeSave({"policy": {"params": adapters}}))
    transfer.export_model(run, tmp_path / "out")

    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    stream = demonstrations.encode_conversation(tokenizer, turn_format, DIALOGUE).tokens
    messages = [{"role": message.role, "content": message.content} for message in DIALOGUE]
    rendered = theirs.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert rendered[: len(stream)] == list(stream)
    assert theirs.chat_template == TEMPLATE and theirs.decode(rendered) == tokenizer.decode(rendered)

    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager").eval()
    tokens = np.asarray(stream)[None]
    with torch.no_grad():
        expected = model(torch.tensor(tokens)).logits.numpy()
    trained = qwen2.forward(adapted, lora.combine(frozen, adapters), tokens)
    np.testing.assert_allclose(trained, expected, atol=1e-4)
    assert np.abs(expected - qwen2.forward(config, frozen, tokens)).max() > 1e-2  # the adapters do something
    generation = model.generation_config
    assert generation.eos_token_id == [tokenizer.im_end, tokenizer.endoftext]
    assert (generation.do_sample, generation.temperature, generation.top_p) == (True, 0.5, 1.0)


def test_a_head_beside_a_tied_embedding_is_read_as_transformers_reads_it(tmp_path):
    base(tmp_path / "base", "qwen2")
    file = tmp_path / "base" / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}, file, metadata={"format": "pt"})
    config, params = hf.load(tmp_path / "base")
    tokens = np.arange(40)[None]
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", attn_implementation="eager").eval()
    with torch.no_grad():
        expected = model(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(qwen2.forward(config, params, tokens), expected, atol=1e-4)
