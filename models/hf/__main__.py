"""``python -m models.hf import DIR --workdir=W`` and ``python -m models.hf export --workdir=W OUT``."""

import argparse
import pathlib
import sys

from models.hf import transfer


def _expand_path(text: str) -> pathlib.Path:
    return pathlib.Path(text).expanduser()


def main() -> None:
    """Runs the command that the arguments name; an expected error is one line and exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m models.hf", description="Imports and exports models of a run.")
    commands = parser.add_subparsers(dest="command", required=True)
    importing = commands.add_parser("import", help="import a checkpoint, which a run then starts from")
    importing.add_argument("directory", type=_expand_path, metavar="DIR", help="in Hugging Face's format")
    exporting = commands.add_parser("export", help="write a run's policy for transformers and vLLM")
    exporting.add_argument("directory", type=_expand_path, metavar="OUT", help="new or empty")
    exporting.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: as it was trained")
    for command in (importing, exporting):
        command.add_argument("--workdir", type=_expand_path, required=True, help="directory of the run")
    arguments = parser.parse_args()
    try:
        if arguments.command == "import":
            print(transfer.import_model(arguments.directory, arguments.workdir))
        else:
            print(transfer.export_model(arguments.workdir, arguments.directory, dtype=arguments.dtype))
    except (ValueError, OSError) as error:
        sys.exit("error: " + " ".join(str(error).split()))


if __name__ == "__main__":
    main()
