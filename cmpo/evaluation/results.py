"""The files that `cmpo.evaluate` writes, read again by whoever compares or draws them."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from cmpo.run import files
from rollouts import domains
from rollouts.domain import Domain

_NUMBER = (int, float, type(None))
_NOTHING = object()
_NEEDED = {  # where in the file, and what has to be there
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


def needed(domain: Domain) -> tuple[Needed, Needed]:
    """What a file of this domain must have, besides what every file has, and what each of its dialogues must."""
    summary = {("summary", name, field): _NUMBER for name in domain.measures for field in ("mean", "std")}
    values = {("values", name): _NUMBER for name in domain.measures}
    return {**_NEEDED, **summary}, {("seed",): (int,), ("scenario",): (str,), **values}


def read(path: str | pathlib.Path) -> dict[str, Any]:
    """A result. Raises OSError, or ValueError, naming the file, if it is none."""
    found = files.read_object(pathlib.Path(path))
    wrong = next(_wrong(found, _NEEDED), "")
    if not wrong:
        summary, row = needed(domain_of(found))
        lists = {"seeds": _NEEDED_OF_SEED, "dialogues": row}
        wrong = next(_wrong(found, summary), "") or next(
            (f"{name}' {one}" for name, fields in lists.items() for row in found[name] for one in _wrong(row, fields)),
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


def domain_of(found: Mapping[str, Any]) -> Domain:
    """The domain that a result was measured in."""
    return domains.load(found["config"])


def _wrong(tree: Any, fields: Needed) -> Iterator[str]:
    for names, types in fields.items():
        found = tree
        for name in names:
            found = found[name] if isinstance(found, Mapping) and name in found else _NOTHING
        if not isinstance(found, types):
            yield ".".join(names)
