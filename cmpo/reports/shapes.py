"""Checks what a page is made of, once, where it is read: what is of another type is named by its field."""

from collections.abc import Mapping
from typing import Any

import pydantic

_Text = pydantic.InstanceOf[str]  # not str, which half a character is not
_Numbers = dict[Any, float]
_EXPECTED = {  # by the type of pydantic's error
    "dict_type": "an object",
    "float_type": "a number",
    "int_type": "a whole number",
    "is_instance_of": "a text",
    "list_type": "a list",
    "model_type": "an object",
}


class _Part(pydantic.BaseModel):
    """An object of a file, of which only what the page needs is named."""

    model_config = pydantic.ConfigDict(extra="ignore", strict=True)


class _Record(_Part):
    """A line of metrics.jsonl."""

    step: int
    phase: _Text
    dialogues_ok: int = 0
    dialogues_failed: dict[Any, int] = {}
    alarms: dict[Any, _Text] | None = None
    judge_correlation: dict[Any, float | None] | None = None
    seconds: dict[Any, float | None] = {}


class _Task(_Part):
    id: _Text


class _Message(_Part):
    role: _Text
    content: _Text


class _Turn(_Part):
    messages: list[_Message]
    cost: _Numbers
    process_reward: float
    tokens: int
    mean_logprob: float | None
    credit: float | None = None


class _Dialogue(_Part):
    """A line of a file of dialogues."""

    task: _Task
    labels: dict[Any, Any] = {}
    index: int
    end: _Text
    outcome: float | None
    cost: _Numbers
    failure: _Text
    failure_message: _Text
    last_words: _Text
    turns: list[_Turn]


def check_record(row: Mapping[str, Any]) -> None:
    """Raises ValueError, naming the field, if a line of metrics.jsonl is not as a page needs it."""
    step = row.get("step")
    _check(_Record, row, f"step {step}: " if isinstance(step, int) and not isinstance(step, bool) else "")


def check_dialogue(row: Mapping[str, Any]) -> None:
    """Raises ValueError, naming the field, if a line is no dialogue. One without a task may be of an older version."""
    if "task" in row or "turns" not in row:
        _check(_Dialogue, row, "")


def _check(kind: type[_Part], row: Mapping[str, Any], where: str) -> None:
    try:
        kind.model_validate(row)
    except pydantic.ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        field = ".".join(map(str, wrong["loc"]))
        if wrong["type"] == "missing":
            raise ValueError(f"{where}{field}: expected this field, found none in {row!r:.100}") from None
        expected = _EXPECTED.get(wrong["type"], wrong["msg"])
        raise ValueError(f"{where}{field}: expected {expected}, got {wrong['input']!r:.100}") from None


def check_sections(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raises ValueError, naming the section, if a config has something else where `defaults` have settings."""
    for name, default in defaults.items():
        given = config.get(name, default)
        if isinstance(default, Mapping) and not isinstance(given, Mapping):
            raise ValueError(f"{name}: expected an object with the settings of this section, got {given!r:.100}")
