"""Chat templates of a tokenizer directory: reads them from all files, and refuses those that do not write ChatML.

A template may add a system message of its own where a conversation has none: `find_default_system` says which.
"""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import tokenizers

from models.objects import read_object, read_text

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The template that dialogues are rendered in, whatever the template of the model that training begins with."""

_DEFAULT = "default"
_SYSTEM = r"<\|im_start\|>system\n((?:(?!<\|im_).)*)<\|im_end\|>\n"
# A dialogue before the agent's first and second turn, with all that a template might remove: spaces, thoughts and tags.
_OPENING = [
    {"role": "system", "content": "You serve customers.\n"},
    {"role": "user", "content": "The soup is cold."},
]
_DIALOGUE = [
    *_OPENING,
    {"role": "assistant", "content": "<think>look</think><response> Sorry! </response><action>chat</action>\n"},
    {"role": "user", "content": "And now?"},
]


def read_templates(path: pathlib.Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """Reads the chat templates of the tokenizer in `path`, by name; the one that is used by default is "default".

    They may be in `chat_template` of tokenizer_config.json (`settings`), as a text or as a list of named ones, in
    chat_template.jinja, chat_template.json and additional_chat_templates/NAME.jinja.

    Raises ValueError, naming the file, if one is not a template, or if two files have different ones of the same name.
    """
    said = {"tokenizer_config.json": settings}
    if (path / "chat_template.json").is_file():
        said["chat_template.json"] = read_object(path / "chat_template.json")
    sources = [(name, _read_named(path / name, content.get("chat_template"))) for name, content in said.items()]
    for file in [path / "chat_template.jinja", *sorted((path / "additional_chat_templates").glob("*.jinja"))]:
        if file.is_file():
            name = _DEFAULT if file.parent == path else file.stem
            sources.append((str(file.relative_to(path)), {name: read_text(file)}))
    found: dict[str, tuple[str, str]] = {}
    for source, templates in sources:
        for name, template in templates.items():
            other, same = found.setdefault(name, (source, template))
            if same != template:
                raise ValueError(
                    f"{path}: {other} and {source} have different chat templates named {name!r}; "
                    "keep the one that is meant"
                )
    if found and _DEFAULT not in found:
        raise ValueError(f"{path}: chat_template: expected one named {_DEFAULT!r}, found {', '.join(found)}")
    return {name: template for name, (_, template) in found.items()}


def to_setting(templates: Mapping[str, str]) -> str | list[dict[str, str]]:
    """Returns the templates as `chat_template` of tokenizer_config.json."""
    if set(templates) == {_DEFAULT}:
        return templates[_DEFAULT]
    return [{"name": name, "template": template} for name, template in templates.items()]


def check_template(path: pathlib.Path, template: str, backend: tokenizers.Tokenizer, tokens: Mapping[str, str]) -> None:
    """Checks that `template` writes dialogues in ChatML, as it would be used in `transformers`.

    Raises ValueError if not: a policy that is trained in one format and served in another is not the same.

    Args:
      path: of the tokenizer, for the message.
      template: the chat template.
      backend: the tokenizer.
      tokens: the special tokens by their names (`bos_token`, …), which a template may write.
    """
    if template == CHATML:
        return
    reference = _make_reference(backend, tokens)
    for messages in (_OPENING, _DIALOGUE):
        expected, actual = (_render_dialogue(path, reference, messages, written) for written in (CHATML, template))
        if actual != expected:
            raise ValueError(
                f"{path}: chat_template: expected a dialogue in ChatML, which policies are trained in, {expected!r}, "
                f"got {actual!r}; take the template away, and the export gets one of ChatML"
            )


def find_default_system(template: str, backend: tokenizers.Tokenizer, tokens: Mapping[str, str]) -> str | None:
    """Returns the system text that `template` adds where a conversation has none; None where it adds none.

    Qwen2.5-Instruct's adds "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."

    Raises ValueError if it writes anything else than a system message before the conversation in ChatML.

    Args:
      template: the chat template, checked by `check_template`.
      backend: the tokenizer.
      tokens: the special tokens by their names, which a template may write.
    """
    if template == CHATML:
        return None
    reference, asked = _make_reference(backend, tokens), _OPENING[1:]
    plain = reference.apply_chat_template(asked, chat_template=CHATML, tokenize=False, add_generation_prompt=True)
    try:
        written = reference.apply_chat_template(
            asked, chat_template=template, tokenize=False, add_generation_prompt=True
        )
    except Exception:  # a template may refuse a conversation without a system message: then it adds none
        return None
    if written == plain:
        return None
    if found := re.fullmatch(_SYSTEM + re.escape(plain), written, re.DOTALL):
        return found[1]
    raise ValueError(
        f"chat_template: expected a conversation without a system message in ChatML, {plain!r}, with or without a "
        f"system message before it, got {written!r}"
    )


def _make_reference(backend: tokenizers.Tokenizer, tokens: Mapping[str, str]) -> Any:
    """Makes the tokenizer of `transformers` that renders templates."""
    from transformers import PreTrainedTokenizerFast  # takes a second, and few need it

    return PreTrainedTokenizerFast(tokenizer_object=backend, **tokens)


def _render_dialogue(path: pathlib.Path, reference: Any, messages: list[dict[str, str]], template: str) -> str:
    try:
        return reference.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=True
        )
    except Exception as error:  # whatever a template may do
        raise ValueError(f"{path}: chat_template: cannot render a dialogue with a system prompt: {error!r}") from None


def _read_named(file: pathlib.Path, raw: Any) -> dict[str, str]:
    """Reads templates by name, from one text or a list of named ones."""
    match raw:
        case None:
            return {}
        case str():
            return {_DEFAULT: raw}
        case list() if all(
            isinstance(item, dict) and isinstance(item.get("name"), str) and isinstance(item.get("template"), str)
            for item in raw
        ):
            named = {item["name"]: item["template"] for item in raw}
            if len(named) == len(raw):
                return named
    raise ValueError(
        f"{file}: chat_template: expected a text, or a list of different {{name, template}}, got {raw!r:.80}"
    )
