"""Sets two evaluations side by side: ``python -m cmpo.compare --result=A.json --against=B.json``.

Both are files that `cmpo.evaluate` wrote, on the same scenarios with the same seeds. The table gives A minus B,
dialogue by dialogue: pairs share customer, order and demand, so that a difference is known better than either mean.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from absl import flags

from cmpo import command, measures

_RESULT = flags.DEFINE_string("result", None, "JSON file of an evaluation.")
_AGAINST = flags.DEFINE_string("against", None, "JSON file of the evaluation to subtract.")

SAME = ("user", "judge", "prompts")
"""What has to be the same for a difference to be the agents' own."""


def load(path: str) -> dict[str, Any]:
    """Reads a result. Raises FileNotFoundError or ValueError, naming the file, if it is none."""
    try:
        found = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        rows = [
            (row["seed"], row["scenario"], *(row["values"][name] for name in measures.MEASURES))
            for row in found["dialogues"]
        ]
        if not rows or not all(name in found for name in ("agent", *SAME)):
            raise ValueError("no dialogues, or nothing on who judged them")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: expected a file that cmpo.evaluate wrote, got {type(error).__name__}: {error}"
        ) from None
    return found


def caveats(result: Mapping[str, Any], against: Mapping[str, Any]) -> list[str]:
    """What differs between two evaluations besides the agent, one line each."""
    lines = []
    for name in SAME:
        ours, theirs = result[name], against[name]
        differ = [key for key in sorted(ours.keys() | theirs.keys()) if ours.get(key) != theirs.get(key)]
        told = (f"{key} {ours.get(key)!s:.40} and {theirs.get(key)!s:.40}" for key in differ)
        lines += [f"not the same {name}: {', '.join(told)}"] if differ else []
    return lines


def run() -> None:
    """Prints the differences and, below them, what else is different."""
    result, against = load(_RESULT.value), load(_AGAINST.value)
    title = f"{result['agent']} minus {against['agent']}"
    print(measures.table(title, measures.differences(result["dialogues"], against["dialogues"])))
    for line in caveats(result, against):
        print(f"\nbeware, {line}")


if __name__ == "__main__":
    command.run(run, required=["result", "against"])
