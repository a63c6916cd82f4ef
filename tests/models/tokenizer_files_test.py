"""The files around a tokenizer.json: what they say is what the tokenizer does, or it is refused by file and name."""

import json
import re

import pytest
import tokenizers as backends
import transformers
from hypothesis import HealthCheck, given, settings
from tokenizers import normalizers, pre_tokenizers

from models import chat_template, hf, tokenizer
from models.config import Qwen2Config
from tests.builders import qwen_template
from tests.builders.almost import trees

TEXTS = ["The soup is cold, and it's 12 o'clock. <think>Sorry!</think> Ünïcödé 你好\n\n"] * 5
QWEN = (  # as Qwen2.5's: what it does without tools, and a system prompt of its own where there is none
    "{%- if tools %}\n{{- 'tools' }}\n{%- else %}\n{%- if messages[0]['role'] == 'system' %}\n"
    "{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}\n{%- else %}\n"
    "{{- '<|im_start|>system\\nYou are Qwen.<|im_end|>\\n' }}\n{%- endif %}\n{%- endif %}\n"
    "{%- for message in messages %}\n{%- if not (message.role == 'system' and loop.first) %}\n"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n{%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n{{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n"
)
FORGETFUL = chat_template.CHATML.replace("message['content']", "message['content'].split('</think>')[-1]")
DIALOGUE = [
    {"role": "system", "content": "Serve."},
    {"role": "user", "content": "It's cold"},
    {"role": "assistant", "content": "<think>So</think> Sorry"},
    {"role": "user", "content": "And?"},
]


@pytest.fixture(scope="module")
def trained():
    return tokenizer.train_tokenizer(TEXTS, 310)


@pytest.fixture
def directory(trained, tmp_path):
    """A tokenizer as on the hub, beside a config.json."""
    trained.save(tmp_path)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_layers": 1, "num_heads": 1, "num_kv_heads": 1}
    hf.write_config(tmp_path, Qwen2Config(vocab_size=310, **sizes))
    return tmp_path


def write(file, content):
    file.parent.mkdir(exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


def change(directory, name="tokenizer_config.json", **values):
    content = json.loads((directory / name).read_text())
    content |= values
    write(directory / name, {key: value for key, value in content.items() if value is not None})


def export(directory):
    """What a run keeps of the tokenizer, and an export writes, beside the model's config.json."""
    tokenizer.load(directory).save(directory / "out")
    (directory / "out" / "config.json").write_bytes((directory / "config.json").read_bytes())
    return transformers.AutoTokenizer.from_pretrained(directory / "out")


def one_template(directory):
    change(directory, chat_template=QWEN)


def a_file_of_its_own(directory):
    change(directory, chat_template=None)
    write(directory / "chat_template.jinja", QWEN)


def a_file_for_processors(directory):
    change(directory, chat_template=None)
    write(directory / "chat_template.json", {"chat_template": QWEN})


def a_list(directory):
    templates = {"default": QWEN, "tool_use": "{{ 'tools' }}"}
    change(directory, chat_template=[{"name": name, "template": text} for name, text in templates.items()])


def a_folder_beside(directory):
    a_file_of_its_own(directory)
    write(directory / "additional_chat_templates" / "tool_use.jinja", "{{ 'tools' }}")


def the_same_twice(directory):
    one_template(directory)
    write(directory / "chat_template.jinja", QWEN)


@pytest.mark.parametrize(
    "place", [one_template, a_file_of_its_own, a_file_for_processors, a_list, a_folder_beside, the_same_twice]
)
def test_templates_travel_from_wherever_they_stand(place, directory):
    place(directory)
    theirs = export(directory)
    default, others = theirs.chat_template, {}
    if place in (a_list, a_folder_beside):
        others = dict(default)
        default = others.pop("default")
        assert others == {"tool_use": "{{ 'tools' }}"}
    assert default == QWEN
    again = tokenizer.load(directory / "out")
    again.save(directory / "again")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (directory / "again" / name).read_bytes() == (directory / "out" / name).read_bytes()


def test_without_a_template_the_export_has_the_one_that_was_trained_on(directory):
    change(directory, chat_template=None, eos_token=None, pad_token=None)
    theirs = export(directory)
    assert theirs.chat_template == chat_template.CHATML
    assert (theirs.eos_token, theirs.pad_token) == ("<|im_end|>", "<|endoftext|>")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (FORGETFUL, "chat_template: expected a dialogue in ChatML"),
        (QWEN.replace("message.content", "message.content | trim"), "chat_template: expected a dialogue in ChatML"),
        ("{{ bos_token }}" + QWEN, "chat_template: expected a dialogue in ChatML"),
        (
            "{{ raise_exception('no system') }}",
            "chat_template: cannot render a dialogue with a system prompt.*no system",
        ),
        ("{% for", "chat_template: cannot render"),
        ([{"name": "tool_use", "template": QWEN}], "chat_template: expected one named 'default', found tool_use"),
        ([{"name": "default", "template": 1}], "tokenizer_config.json: chat_template: expected a text, or a list"),
        (
            [{"name": "default", "template": QWEN}] * 2,
            "tokenizer_config.json: chat_template: expected a text, or a list",
        ),
        (7, "tokenizer_config.json: chat_template: expected a text, or a list"),
    ],
)
def test_a_template_that_writes_anything_but_what_is_trained_on_is_refused(template, message, directory):
    change(directory, chat_template=template, bos_token="<|endoftext|>")
    with pytest.raises(ValueError, match=message):
        tokenizer.load(directory)


def test_two_templates_of_one_name_are_refused_by_their_files(directory):
    write(directory / "chat_template.jinja", QWEN)
    with pytest.raises(
        ValueError, match=r"tokenizer_config.json and chat_template.jinja have different chat templates"
    ):
        tokenizer.load(directory)


LATE = chat_template.CHATML.replace(  # as SmolLM2's
    "%}{{",
    "%}{% if loop.first and message['role'] != 'system' %}{{ '<|im_start|>system\\nLate.<|im_end|>\\n' }}{% endif %}{{",
    1,
)


@pytest.mark.parametrize(
    ("template", "system"),
    [
        (None, None),
        (chat_template.CHATML + "{# the same #}", None),
        (QWEN, "You are Qwen."),
        (qwen_template.TEMPLATE, qwen_template.DEFAULT_SYSTEM),
        (LATE, "Late."),
        (LATE.replace("Late.", ""), ""),
        (LATE.replace("Late.", "A<|im_end|>\\n<|im_start|>user\\nB"), ValueError),
        ("{% if messages[0].role != 'system' %}{{ raise_exception('no') }}{% endif %}" + chat_template.CHATML, None),
        ("{% if messages[0].role != 'system' %}{{ bos_token }}{% endif %}" + chat_template.CHATML, ValueError),
        ([{"name": "tool_use", "template": "x"}, {"name": "default", "template": QWEN}], "You are Qwen."),
    ],
)
def test_the_system_text_that_a_template_adds_is_found(template, system, directory):
    change(directory, chat_template=template, bos_token="<|endoftext|>")
    loaded = tokenizer.load(directory)
    ids = loaded.encode("<|im_end|> user")
    if system is ValueError:
        with pytest.raises(ValueError, match="^chat_template: expected a conversation without a system message in Ch"):
            loaded.find_default_system()
    else:
        assert loaded.find_default_system() == system
        loaded.save(directory / "out")
        assert tokenizer.load(directory / "out").find_default_system() == system
    assert loaded.encode("<|im_end|> user") == ids


def test_a_trained_tokenizer_adds_no_system_text(trained):
    assert trained.find_default_system() is None


def special(**changes):
    return {
        "content": "<|im_end|>",
        "special": True,
        **dict.fromkeys(("lstrip", "rstrip", "normalized"), False),
    } | changes


REFUSED = {
    "tokenizer_config.json": [
        ({"split_special_tokens": True}, "split_special_tokens: only False"),
        ({"auto_map": {"AutoTokenizer": ["code.Mine", None]}}, "auto_map: only None"),
        ({"fast_tokenizer_files": ["tokenizer.4.0.0.json"]}, "fast_tokenizer_files: only"),
        ({"add_prefix_space": True}, "add_prefix_space: True, while tokenizer.json"),
        ({"eos_token": "</s>"}, "eos_token: expected a token of tokenizer.json, got '</s>'"),
        ({"bos_token": {"content": "<s>"}}, "bos_token: expected a token of tokenizer.json, got '<s>'"),
        ({"eos_token": 5}, "eos_token: expected a token, got 5"),
        ({"add_prefix_space": 0}, "add_prefix_space: expected true or false, got 0"),
        ({"added_tokens_decoder": ["<|im_end|>"]}, "added_tokens_decoder: expected an object"),
        ({"additional_special_tokens": "<|im_end|>"}, "additional_special_tokens: expected a list of tokens"),
        ({"image_token": "<|image|>"}, "image_token: expected a token"),
        ({"additional_special_tokens": ["<|new|>"]}, "additional_special_tokens: expected a token"),
        ({"extra_special_tokens": {"a": "<|new|>"}}, "extra_special_tokens: expected a token"),
        ({"added_tokens_decoder": {"310": special(content="<|new|>")}}, "added_tokens_decoder: expected a token"),
        ({"added_tokens_decoder": {"7": special()}}, "expected '<.im_end.>' to be 303, as in tokenizer.json, got '7'"),
        ({"added_tokens_decoder": {"303": special(rstrip=True)}}, "rstrip of '<.im_end.>': expected False"),
    ],
    "added_tokens.json": [
        ({"<|new|>": 310}, "<.new.>: expected a token of tokenizer.json"),
        ({"<|im_end|>": 12}, "expected '<.im_end.>' to be 303"),
    ],
    "special_tokens_map.json": [
        (
            {"eos_token": "<|endoftext|>"},
            r"eos_token is '<.im_end.>' in tokenizer_config.json, '<.endoftext.>' in spec",
        ),
        ({"bos_token": "<s>"}, "bos_token: expected a token of tokenizer.json"),
    ],
    "vocab.json": [({"a": 0}, "vocab.json and tokenizer.json have different vocabularies")],
}


@pytest.mark.parametrize(
    ("file", "values", "message"), [(file, *case) for file, cases in REFUSED.items() for case in cases]
)
def test_what_the_tokenizer_does_not_do_is_refused(file, values, message, directory):
    if not (directory / file).exists():
        write(directory / file, {})
    change(directory, file, **values)
    with pytest.raises(ValueError, match=f"^{re.escape(str(directory))}.*{message}"):
        tokenizer.load(directory)


EVERYTHING = {  # that a tokenizer_config.json may say
    "chat_template": [{"name": "default", "template": chat_template.CHATML}, {"name": "rag", "template": "x"}],
    "added_tokens_decoder": {"303": special()},
    "additional_special_tokens": ["<|im_end|>", special()],
    "bos_token": special(),
    "add_prefix_space": False,
    "add_bos_token": False,
    "clean_up_tokenization_spaces": False,
    "model_max_length": 32768,
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees(EVERYTHING))
def test_whatever_it_says_is_read_or_refused_by_its_directory(directory, content):
    (directory / "tokenizer_config.json").write_text(json.dumps(content))
    try:
        tokenizer.load(directory)
    except ValueError as error:
        assert str(error).startswith(str(directory))


def test_merges_beside_are_the_same_or_refused(directory):
    merges = json.loads((directory / "tokenizer.json").read_text())["model"]["merges"]
    text = "#version: 0.2\n" + "".join(" ".join(merge) + "\n" for merge in merges)
    write(directory / "merges.txt", text)
    write(directory / "vocab.json", json.loads((directory / "tokenizer.json").read_text())["model"]["vocab"])
    tokenizer.load(directory)
    write(directory / "merges.txt", text + "a b\n")
    with pytest.raises(ValueError, match=r"merges.txt and tokenizer.json have different merges"):
        tokenizer.load(directory)


def altered(directory, alter):
    backend = backends.Tokenizer.from_file(str(directory / "tokenizer.json"))
    alter(backend)
    backend.save(str(directory / "tokenizer.json"))


def lower(backend):
    backend.normalizer = normalizers.Lowercase()


def prefix(backend):
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def digits(backend):
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def strip(backend):
    backend.add_special_tokens([backends.AddedToken("<|im_end|>", special=True, normalized=False, rstrip=True)])


def plain(backend):
    content = json.loads(backend.to_str())
    for token in content["added_tokens"]:
        token["special"] = False
    backend.__setstate__(json.dumps(content).encode())


@pytest.mark.parametrize(
    ("alter", "kind", "message"),
    [
        (lower, "llama", "tokenizer.json: expected the ids of a dialogue"),
        (prefix, "llama", "tokenizer.json: expected the ids of a dialogue"),
        (strip, "llama", "tokenizer.json: expected the ids of a dialogue"),
        (plain, "llama", "expected special tokens, else a text that spells one becomes one"),
        (digits, "qwen2", "tokenizer.json: pre_tokenizer: expected Qwen2's, which transformers gives every model"),
        (lower, "qwen2", "tokenizer.json: normalizer: expected Qwen2's"),
    ],
)
def test_a_tokenizer_that_writes_dialogues_otherwise_is_refused(alter, kind, message, directory):
    altered(directory, alter)
    change(directory, "config.json", model_type=kind)
    with pytest.raises(ValueError, match=message):
        tokenizer.load(directory)


def test_chance_in_a_tokenizer_is_refused(directory):
    model = json.loads((directory / "tokenizer.json").read_text())["model"]
    change(directory, "tokenizer.json", model=model | {"dropout": 0.1})
    with pytest.raises(ValueError, match=r"tokenizer.json: model.dropout: expected none"):
        tokenizer.load(directory)


def test_truncation_and_padding_in_the_file_change_nothing(directory, trained):
    def alter(backend):
        backend.enable_truncation(max_length=3)
        backend.enable_padding(length=64)

    altered(directory, alter)
    assert tokenizer.load(directory).encode("The soup is cold again") == trained.encode("The soup is cold again")


@pytest.mark.parametrize(("alter", "kind"), [(None, "qwen2"), (digits, "llama")])
def test_what_is_exported_is_the_same_in_transformers_whatever_class_was_named(alter, kind, directory):
    """Of the class GPT2Tokenizer, transformers would build another normalizer and pre-tokenizer than the file's."""
    if alter:
        altered(directory, alter)
    change(directory, "config.json", model_type=kind)
    change(directory, tokenizer_class="GPT2Tokenizer", clean_up_tokenization_spaces=True, chat_template=QWEN)
    theirs, ours = export(directory), tokenizer.load(directory)
    text = "It's 12:45 , cafe\u0301 你好 \r\n\n <think> yes!"
    ids = ours.encode(text)
    assert theirs.encode(text, split_special_tokens=True, add_special_tokens=False) == ids
    assert theirs.decode(ids) == ours.decode(ids)
    stream = []
    for message in DIALOGUE:
        stream += [ours.im_start, *ours.encode(f"{message['role']}\n{message['content']}"), ours.im_end]
        stream += ours.encode("\n")
    rendered = theirs.apply_chat_template(DIALOGUE, tokenize=True, return_dict=False, add_generation_prompt=True)
    assert rendered == [*stream, ours.im_start, *ours.encode("assistant\n")]


def test_the_highest_id_counts_not_the_number_of_tokens(directory):
    content = json.loads((directory / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.get)] = 400
    write(directory / "tokenizer.json", content)
    assert tokenizer.load(directory).vocab_size == 401


def test_an_id_that_reading_the_file_would_change_is_refused(directory):
    content = json.loads((directory / "tokenizer.json").read_text())
    content["added_tokens"].append(content["added_tokens"][-1] | {"id": 400, "content": "<late>"})
    write(directory / "tokenizer.json", content)
    with pytest.raises(ValueError, match="tokenizer.json: added_tokens: expected '<late>' to be 310, .* got 400"):
        tokenizer.load(directory)
