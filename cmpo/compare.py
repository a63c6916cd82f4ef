"""Sets two evaluations side by side: ``python -m cmpo.compare --result=A.json --against=B.json``.

Both are files that `cmpo.evaluate` wrote, on the same scenarios with the same seeds. The table gives A minus B,
dialogue by dialogue: pairs share customer, order and demand, so that a difference is known better than either mean.
"""

from collections.abc import Mapping
from typing import Any

from absl import flags

from cmpo import command, measures, results

_RESULT = flags.DEFINE_string("result", None, "JSON file of an evaluation.")
_AGAINST = flags.DEFINE_string("against", None, "JSON file of the evaluation to subtract.")

SAME = ("user", "judge", "prompts")
"""What has to be the same for a difference to be the agents' own."""


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
    result, against = results.read(_RESULT.value), results.read(_AGAINST.value)
    title = f"{result['agent']} minus {against['agent']}"
    print(measures.table(title, measures.differences(result["dialogues"], against["dialogues"])))
    for line in caveats(result, against):
        print(f"\nbeware, {line}")


if __name__ == "__main__":
    command.run(run, required=["result", "against"])
