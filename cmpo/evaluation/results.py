"""Reads the files that `cmpo.evaluate` writes, for commands that compare or draw them."""

import pathlib
from collections.abc import Mapping
from typing import Any

import pydantic

from cmpo.run import files
from rollouts import domains
from rollouts.domain import Domain


class _Part(pydantic.BaseModel):
    """A part of a file, of which only what others rely on is named."""

    model_config = pydantic.ConfigDict(extra="ignore", strict=True)


class _Asked(_Part):
    url: str


class _Named(_Asked):
    model: str


class _Estimate(_Part):
    mean: float | None
    std: float | None


class _Rules(_Part):
    max_turns: int


class _FdsData(_Part):
    path: str
    difficulty: str


class _Config(_Part):
    domain: str = "fds"  # files from before there were others do not say
    episode: _Rules
    user: _Asked | None = None


class _FdsConfig(_Part):
    data: _FdsData | None = None  # the frontier is found by it


class _Seed(_Part):
    seed: int
    scenarios: str  # a digest


class _Row(_Part):
    seed: int
    scenario: str
    values: dict[str, float | None]


class _Change(_Part):
    run: Any
    here: Any


class _Result(_Part):
    agent: str
    step: int | None
    user: _Named | None = None  # of domains that ask them
    judge: _Asked | None = None
    prompts: dict[str, Any]
    config: _Config
    seeds: list[_Seed] = pydantic.Field(min_length=1)
    dialogues: list[_Row] = pydantic.Field(min_length=1)
    summary: dict[str, _Estimate]
    since_training: dict[str, _Change] | None = None


class _FdsResult(_Part):
    config: _FdsConfig


def read_result(path: str | pathlib.Path) -> dict[str, Any]:
    """Reads a result. Raises OSError; ValueError, naming the file and the place, if it is not a result."""
    found = files.read_object(pathlib.Path(path))
    if wrong := _find_wrong(found):
        raise ValueError(f"{path}: expected a file that cmpo.evaluate wrote, found no sound {wrong}")
    return found


def load_domain(found: Mapping[str, Any]) -> Domain:
    """Loads the domain that a result was measured in."""
    return domains.load(found["config"])


def _find_wrong(found: Mapping[str, Any]) -> str:
    """Finds the first place in a file that is not as a result has it; "" if there is none."""
    try:
        result = _Result.model_validate(found)
        if result.config.domain == "fds":
            _FdsResult.model_validate(found)
    except pydantic.ValidationError as error:
        return ".".join(map(str, error.errors(include_url=False)[0]["loc"]))
    for name in load_domain(found).measures:
        if name not in result.summary:
            return f"summary.{name}"
        for number, row in enumerate(result.dialogues):
            if name not in row.values:
                return f"dialogues.{number}.values.{name}"
    return ""
