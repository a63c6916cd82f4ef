"""Imports and exports models of a run.

python -m models.hf import DIR --workdir=W: a run in W then starts from the checkpoint in DIR.

python -m models.hf export --workdir=W OUT: writes the policy of the run in W for transformers and vLLM, to a directory
OUT that is new or empty.
"""

import pathlib
import sys
from collections.abc import Sequence

from absl import app, flags, logging

from models.hf import transfer

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
_DTYPE = flags.DEFINE_enum(
    "dtype", None, ["float32", "bfloat16", "float16"], "Of an export's numbers; default: as it was trained."
)


def main(line: Sequence[str]) -> None:
    """Runs the command that the arguments name; an expected error is one line and exit status 1."""
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        if len(line) != 3 or line[1] not in ("import", "export"):
            raise ValueError(f"expected import DIR, or export OUT, got {' '.join(line[1:]) or 'nothing'}")
        command, directory, workdir = line[1], _find_path(line[2]), _find_path(_WORKDIR.value)
        if command == "export":
            print(transfer.export_model(workdir, directory, dtype=_DTYPE.value))
        elif _DTYPE.value:
            raise ValueError("--dtype: an import keeps the numbers as they are")
        else:
            print(transfer.import_model(directory, workdir))
    except (ValueError, OSError) as error:
        _refuse(error)


def _find_path(text: str) -> pathlib.Path:
    return pathlib.Path(text).expanduser()


def _parse_flags(line: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(line)
    except flags.Error as error:
        _refuse(error)


def _refuse(error: Exception) -> None:
    sys.exit("error: " + " ".join(str(error).split()))


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
