"""generation_config.json: where a policy's turn ends, and how it is sampled."""

import pathlib
from typing import Any

from models.objects import read_object
from models.tokenizer import Tokenizer

GENERATION = "generation_config.json"


def token_ids(source: pathlib.Path | None, tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns `eos_token_id` and `pad_token_id` of a policy that begins as the model in `source`; None: as a new one.

    A turn ends with `<|im_end|>`, as in training, and with whatever else generation_config.json or config.json names.

    Raises ValueError, naming the file, if they name neither an id nor a list of ids.
    """
    ends = [tokenizer.im_end]
    for name in (GENERATION, "config.json") if source else ():
        given = read_optional(source / name).get("eos_token_id")
        listed = given if isinstance(given, list) else [given]
        if given is not None and any(type(id) is not int for id in listed):
            raise ValueError(f"{source / name}: eos_token_id: expected an id, or a list of ids, got {given!r:.60}")
        ends += [id for id in listed if id is not None and 0 <= id < tokenizer.vocab_size and id not in ends]
    return {"eos_token_id": ends if len(ends) > 1 else ends[0], "pad_token_id": tokenizer.endoftext}


def read_optional(file: pathlib.Path) -> dict[str, Any]:
    """Reads the object in `file`; an empty one if there is no such file."""
    return read_object(file) if file.exists() else {}
