"""Models by name: a directory, or a model on the hub, which is kept in Hugging Face's cache."""

import contextlib
import pathlib
from typing import Any

import huggingface_hub
from huggingface_hub.errors import LocalEntryNotFoundError

from models.hf.files import holds_weights
from models.objects import read_object

_WANTED = ("*.json", "*.safetensors", "*.jinja", "merges.txt")
_COMMIT = "_commit_hash"  # in config.json; transformers' own name for it


def find(path: str, *, download: bool, commit: str | None = None) -> pathlib.Path | None:
    """The directory of the model that `path` names.

    Args:
      path: a directory, or the name of a model on the hub.
      download: whether the hub is asked for it, and what is not in the cache yet is fetched. Otherwise the cache is all
        there is, and None is returned where it does not hold the model.
      commit: of the model on the hub that is meant; None: the newest, or, without `download`, the newest that was
        fetched.

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
                cached = _snapshot(path, commit, local_files_only=True)
                if holds_weights(cached) and (cached / "config.json").exists():
                    return cached
            if not download:
                return None
        return _snapshot(path, commit)
    except Exception as error:  # the hub's client has many kinds of its own
        reason = " ".join(str(error).split())
        raise FileNotFoundError(f"config.model.path: {path!r} is no directory, nor to be had: {reason}") from None


def origin(directory: pathlib.Path | None) -> dict[str, str]:
    """What config.json keeps of where `directory` came from: the commit, if it is in Hugging Face's cache."""
    return {_COMMIT: directory.name} if directory and directory.parent.name == "snapshots" else {}


def recorded(directory: pathlib.Path) -> str | None:
    """The commit in `directory`/config.json; None: there is none."""
    file = directory / "config.json"
    return read_object(file).get(_COMMIT) if file.exists() else None


def _snapshot(path: str, commit: str | None, **options: Any) -> pathlib.Path:
    wanted = list(_WANTED)
    return pathlib.Path(huggingface_hub.snapshot_download(path, revision=commit, allow_patterns=wanted, **options))
