"""Models by name: a directory, or a model on the hub, which Hugging Face's cache keeps."""

import contextlib
import pathlib
from typing import Any

import huggingface_hub
from huggingface_hub.errors import LocalEntryNotFoundError

from models.hf.files import holds_weights
from models.objects import read_object

_WANTED = ("*.json", "*.safetensors", "*.jinja", "merges.txt")
_COMMIT = "_commit_hash"  # in config.json; transformers' own name for it


def find_model(path: str, *, download: bool, commit: str | None = None) -> pathlib.Path | None:
    """Finds the directory of the model that `path` names.

    Args:
      path: a directory, or the name of a model on the hub.
      download: whether to ask the hub and to fetch what is not in the cache yet. If not, only the cache is searched,
        and the result is None if it does not hold the model.
      commit: of the model on the hub; None: the newest, or, without `download`, the newest that was fetched.

    Raises FileNotFoundError if there is neither such a directory nor such a model.
    """
    directory = pathlib.Path(path).expanduser()
    if directory.is_dir():
        return directory
    if path.count("/") != 1 or path.startswith((".", "/", "~")):
        raise FileNotFoundError(f"config.model.path: expected a directory or a model on the hub, found no {path!r}")
    try:
        if commit or not download:
            with contextlib.suppress(LocalEntryNotFoundError):
                cached = _fetch_snapshot(path, commit, local_files_only=True)
                if holds_weights(cached) and (cached / "config.json").exists():
                    return cached
            if not download:
                return None
        return _fetch_snapshot(path, commit)
    except Exception as error:  # the hub's client raises many kinds
        reason = " ".join(str(error).split())
        raise FileNotFoundError(
            f"config.model.path: {path!r} is neither a directory nor a model that can be fetched: {reason}"
        ) from None


def describe_origin(directory: pathlib.Path | None) -> dict[str, str]:
    """Returns what config.json says about the origin of `directory`: the commit, if it is in Hugging Face's cache."""
    return {_COMMIT: directory.name} if directory and directory.parent.name == "snapshots" else {}


def read_commit(directory: pathlib.Path) -> str | None:
    """Reads the commit from `directory`/config.json; None if there is none."""
    file = directory / "config.json"
    return read_object(file).get(_COMMIT) if file.exists() else None


def _fetch_snapshot(path: str, commit: str | None, **options: Any) -> pathlib.Path:
    wanted = list(_WANTED)
    return pathlib.Path(huggingface_hub.snapshot_download(path, revision=commit, allow_patterns=wanted, **options))
