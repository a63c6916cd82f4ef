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
    ("prompts", "user"): (str,),
    ("config", "episode", "max_turns"): (int,),
    ("config", "user", "url"): (str,),
    ("config", "data", "path"): (str,),
    ("config", "data", "difficulty"): (str,),
    ("seeds",): (list,),
    ("dialogues",): (list,),
}
_NEEDED_OF_SEED = {("seed",): (int,), ("scenarios",): (str,)}
_NEEDED_OF_ROW = {("seed",): (int,), ("scenario",): (str,)}


def read(path: str | pathlib.Path) -> dict[str, Any]:
    """A result. Raises OSError, or ValueError, naming the file, if it is none."""
    found = files.read_object(pathlib.Path(path))
    lists = {"seeds": _NEEDED_OF_SEED, "dialogues": _NEEDED_OF_ROW}
    wrong = next(_wrong(found, _NEEDED), "")
    if not wrong:
        names = domain_of(found).measures
        summary = {("summary", name, field): _NUMBER for name in names for field in ("mean", "std")}
        lists["dialogues"] = _NEEDED_OF_ROW | {("values", name): _NUMBER for name in names}
        wrong = next(_wrong(found, summary), "")
    wrong = wrong or next(
        (f"{name}' {one}" for name, needed in lists.items() for row in found[name] for one in _wrong(row, needed)),
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
    """The domain that a result was measured in; files from before there were several are of FDS."""
    return domains.load(found["config"].get("domain", "fds"))


def _wrong(tree: Any, needed: Mapping[tuple[str, ...], tuple[type, ...]]) -> Iterator[str]:
    for names, types in needed.items():
        found = tree
        for name in names:
            found = found[name] if isinstance(found, Mapping) and name in found else _NOTHING
        if not isinstance(found, types):
            yield ".".join(names)
