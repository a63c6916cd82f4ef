"""Sets two evaluations side by side: ``python -m cmpo.compare --result=A.json --against=B.json``.

Both are files that `cmpo.evaluate` wrote, on the same scenarios with the same seeds. The table gives A minus B,
dialogue by dialogue: pairs share their task, so that a difference is known better than either mean.
All other differences are listed below it, field by field. What makes the numbers incomparable
(`cmpo.evaluation.conditions`) is refused; --allow_different allows it, and pairs the dialogues that both have.
"""

from collections.abc import Mapping
from typing import Any

from absl import flags

from cmpo.cli import command
from cmpo.evaluation import conditions, measures, results

_RESULT = flags.DEFINE_string("result", None, "JSON file of an evaluation.")
_AGAINST = flags.DEFINE_string("against", None, "JSON file of the evaluation to subtract.")
_ALLOW_DIFFERENT = flags.DEFINE_bool(
    "allow_different", False, "Also compare what was measured with other customers, rules or judges, and say so."
)


def list_caveats(result: Mapping[str, Any], against: Mapping[str, Any]) -> list[str]:
    """Lists what differs between two evaluations besides the agents' names and numbers, one line each."""
    found = conditions.find_differences(result, against)
    lines = [str(difference) for difference in found]
    return lines + [f"{x['agent']}, {line}" for x in (result, against) if (line := conditions.describe_training(x))]


def run() -> None:
    """Prints the differences of the numbers and, below them, those of the conditions."""
    result, against = results.read_result(_RESULT.value), results.read_result(_AGAINST.value)
    wrong = conditions.select_incomparable(conditions.find_differences(result, against), paired=True)
    if wrong and not _ALLOW_DIFFERENT.value:
        raise ValueError(
            f"--result and --against: expected the same customers, rules and judge, got {'; '.join(map(str, wrong))}; "
            "--allow_different sets them side by side all the same"
        )
    title = f"{result['agent']} minus {against['agent']}"
    domain = results.load_domain(result)
    found = measures.compare_rows(domain, result["dialogues"], against["dialogues"], common=_ALLOW_DIFFERENT.value)
    print(measures.format_table(domain, title, found))
    for line in list_caveats(result, against):
        print(f"\nbeware, {line}")


if __name__ == "__main__":
    command.run(run, required=["result", "against"])
