"""Which files of a directory in Hugging Face's format hold its weights; two sources of them are refused by name."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import safetensors

from models.objects import read_object

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"

_OTHERS = ("*.safetensors", "pytorch_model*", "consolidated*", "tf_model*", "flax_model*")
_ADAPTERS = ("adapter_config.json", "adapter_model.*")


def holds_weights(path: str | pathlib.Path) -> bool:
    """Whether directory `path` holds weights in this format, sound or not."""
    return any((pathlib.Path(path) / name).exists() for name in (INDEX, SINGLE))


def refuse_adapters(directory: pathlib.Path) -> None:
    """Raises ValueError if `directory` holds adapters, which would change what the model beside them computes."""
    if found := _match_files(directory, _ADAPTERS):
        raise ValueError(
            f"{directory / found[0]}: adapters are not read; merge them into their model first (peft: merge_and_unload)"
        )


@contextlib.contextmanager
def open_tensors(directory: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Opens the tensors of all files in `directory`, by name, without reading them.

    Raises:
      FileNotFoundError: no weights, or a file that the index names is not there.
      ValueError: two sources of weights, adapters, or a file that is damaged or is not as the index says.
    """
    refuse_adapters(directory)
    listed = _read_index(directory)
    files = sorted(set(listed.values())) if listed is not None else [SINGLE]
    if not (directory / INDEX).exists() and not (directory / SINGLE).exists():
        raise FileNotFoundError(f"{directory}: found neither {SINGLE} nor {INDEX}; other formats are not read")
    if others := [name for name in _match_files(directory, _OTHERS) if name not in (*files, INDEX)]:
        source = INDEX if listed is not None else SINGLE
        raise ValueError(
            f"{directory}: {source} and {others[0]} are two sources of the weights; keep the one that is meant"
        )
    found: dict[str, tuple[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        for file in files:
            if not (directory / file).exists():
                raise FileNotFoundError(f"{directory / file}: the index names this file; it is not there")
            try:
                opened = stack.enter_context(safetensors.safe_open(directory / file, framework="numpy"))
            except safetensors.SafetensorError as error:
                raise ValueError(f"{directory / file}: damaged or not a safetensors file ({error})") from None
            for name in opened.keys():  # noqa: SIM118, no mapping
                if name in found:
                    raise ValueError(f"{directory}: tensor {name} is in both {found[name][0]} and {file}")
                if listed is not None and listed.get(name) != file:
                    raise ValueError(f"{directory}: tensor {name} is in {file}, the index says {listed.get(name)}")
                found[name] = file, opened.get_slice(name)
        if listed is not None and (absent := listed.keys() - found):
            raise ValueError(f"{directory}: the index lists tensors that no file holds: {name_some(absent)}")
        yield {name: tensor for name, (_, tensor) in found.items()}


def name_some(names: Any) -> str:
    """Names the first three of `names`, and says how many more there are."""
    shown = sorted(names)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")


def _read_index(directory: pathlib.Path) -> dict[str, str] | None:
    """Reads from the index which tensor is in which file; None if there is no index."""
    index = directory / INDEX
    if not index.exists():
        return None
    expected = "expected {weight_map: {tensor: file of this directory}}"
    try:
        listed = read_object(index).get("weight_map")
    except ValueError as error:
        raise ValueError(f"{error}; {expected}") from None
    names = [*listed.values()] if isinstance(listed, dict) else [None]
    if not names or any(not isinstance(name, str) or pathlib.Path(name).name != name for name in names):
        raise ValueError(f"{index}: weight_map: {expected}, got {listed!r:.60}")
    return listed


def _match_files(directory: pathlib.Path, patterns: tuple[str, ...]) -> list[str]:
    return sorted(path.name for pattern in patterns for path in directory.glob(pattern))
