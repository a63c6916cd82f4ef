"""Reads the files that `cmpo.evaluate` writes, for commands that compare or draw them."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from cmpo.run import files
from rollouts import domains
from rollouts.domain import Domain

_NUMBER = (int, float, type(None))
_NOTHING = object()
_NEEDED = {  # place in the file -> types that its value may have
    ("agent",): (str,),
    ("step",): (int, type(None)),
    ("user", "url"): (str,),
    ("user", "model"): (str,),
    ("judge", "url"): (str,),
    ("prompts",): (dict,),
    ("config", "episode", "max_turns"): (int,),
    ("config", "user", "url"): (str,),
    ("config", "data", "path"): (str,),
    ("config", "data", "difficulty"): (str,),
    ("seeds",): (list,),
    ("dialogues",): (list,),
}
_NEEDED_OF_SEED = {("seed",): (int,), ("scenarios",): (str,)}


Needed = Mapping[tuple[str, ...], tuple[type, ...]]


def list_needed_fields(domain: Domain) -> tuple[Needed, Needed]:
    """Returns what a file of this domain must have beyond the fields of every file, and what each dialogue must."""
    summary = {("summary", name, field): _NUMBER for name in domain.measures for field in ("mean", "std")}
    values = {("values", name): _NUMBER for name in domain.measures}
    return {**_NEEDED, **summary}, {("seed",): (int,), ("scenario",): (str,), **values}


def read_result(path: str | pathlib.Path) -> dict[str, Any]:
    """Reads a result. Raises OSError; ValueError, naming the file, if it is not a result."""
    found = files.read_object(pathlib.Path(path))
    wrong = next(_find_wrong(found, _NEEDED), "")
    if not wrong:
        summary, row = list_needed_fields(load_domain(found))
        lists = {"seeds": _NEEDED_OF_SEED, "dialogues": row}
        wrong = next(_find_wrong(found, summary), "") or next(
            (
                f"{name}' {at}"
                for name, needed in lists.items()
                for row in found[name]
                for at in _find_wrong(row, needed)
            ),
            next((name for name in lists if not found[name]), ""),
        )
    since = found.get("since_training") or {}
    if not isinstance(since, Mapping) or not all(
        isinstance(x, Mapping) and {"run", "here"} <= {*x} for x in since.values()
    ):
        wrong = wrong or "since_training"
    if wrong:
        raise ValueError(f"{path}: expected a file that cmpo.evaluate wrote, found no sound {wrong}")
    return found


def load_domain(found: Mapping[str, Any]) -> Domain:
    """Loads the domain that a result was measured in."""
    return domains.load(found["config"])


def _find_wrong(tree: Any, fields: Needed) -> Iterator[str]:
    for names, types in fields.items():
        found = tree
        for name in names:
            found = found[name] if isinstance(found, Mapping) and name in found else _NOTHING
        if not isinstance(found, types):
            yield ".".join(names)
