"""Says, field by field, in what the conditions of two evaluations differ.

Two numbers can be compared if the fields in `MEASURED` were the same: customers, when they end a dialogue, the rules
and the judge. Two dialogues can be compared only if the fields in `DEALT`, which choose the customers, were the same
too. All other fields belong to the agent; their differences are reported and refuse nothing.
"""

import dataclasses
import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rollouts.endpoints.settings import ASKED, EMBEDDED, Endpoint
from rollouts.sections import flatten_config

MEASURED = (
    "episode.max_*",
    "episode.farewell",
    "data.user",
    "data.version",
    *(f"{name}.{field}" for name in ("user", "judge") for field in ASKED if field != "response_format"),
    "judge.votes",
    "judge.weights.*",
    "prompts.*",
)
"""Patterns of the fields whose difference makes any two numbers incomparable."""

DEALT = ("data.*", "eval.scenarios", "eval.seed", "seeds", "scenarios.*")
"""Patterns of the fields that say whom the agent met: dialogues are paired only if the scenarios were the same."""

REACHED = {"data.dir", "endpoints.record", "endpoints.replay"} | {
    f"{name}.{field.name}"
    for name in ("user", "judge", "agent")
    for field in dataclasses.fields(Endpoint)
    if field.name not in (*ASKED, "url")
}
"""Fields that change no number: how an endpoint is reached, what it may cost, where files are."""

_WHERE = ("user.url", "judge.url")  # two servers may be equally good, but embedded rules are not a model
NOT_RECORDED = "not recorded"
_OF_BOTH = ("scenarios.*", "step")  # reported only where both have it; `seeds` tells the rest, scripts have no step


class Difference(NamedTuple):
    """A field in which two evaluations, or a run and its evaluation, differ."""

    field: str
    ours: Any
    theirs: Any

    def __str__(self):
        return f"{self.field} {_format_value(self.ours)} and {_format_value(self.theirs)}"

    def is_of(self, patterns: Sequence[str]) -> bool:
        """Whether the field is one of `patterns`."""
        return any(fnmatch.fnmatchcase(self.field, pattern) for pattern in patterns)


def find_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Difference]:
    """Lists the fields in which two results of `results.read_result` differ, except `REACHED` and what was measured."""
    found = _compare_fields(_collect_fields(ours), _collect_fields(theirs))
    return [each for each in found if NOT_RECORDED not in (each.ours, each.theirs) or not each.is_of(_OF_BOTH)]


def select_incomparable(found: Sequence[Difference], *, paired: bool) -> list[Difference]:
    """Selects the differences that make numbers incomparable; with `paired`, those that make dialogues so, too.

    The scenarios alone decide whether the agents met the same customers, however these were chosen.
    """
    dealt = paired and any(difference.is_of(("seeds", "scenarios.*")) for difference in found)
    apart = (*MEASURED, *(DEALT if dealt else ()))
    return [one for one in found if one.is_of(apart) or (one.is_of(_WHERE) and EMBEDDED in (one.ours, one.theirs))]


def compare_with_training(run: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Compares the config of a run with that of its evaluation: field that differs -> {"run": …, "here": …}."""
    found = _compare_fields(flatten_config(run), flatten_config(config))
    return {field: {"run": ours, "here": theirs} for field, ours, theirs in found}


def describe_training(result: Mapping[str, Any]) -> str:
    """Says in one line which fields differ between an agent's training and its evaluation; "" if none does."""
    if (differ := result.get("since_training")) is None:
        return "" if result["step"] is None else f"how it was trained is {NOT_RECORDED}"
    shown = ((field, _format_value(x["run"]), _format_value(x["here"])) for field, x in differ.items())
    told = (f"{field} {run} in the run, {here} here" for field, run, here in shown)
    return f"not as trained: {'; '.join(told)}" if differ else ""


def list_caveats(evaluations: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lists in what each evaluation differs from the first one, and from how its agent was trained."""
    told = {name: [describe_training(found)] for name, found in evaluations.items()}
    first, *others = evaluations or [""]
    for name in others:
        found = find_differences(evaluations[name], evaluations[first])
        told[name].append(f"other than {first}: {'; '.join(map(str, found))}" if found else "")
    return [f"{name}, {line}" for name, lines in told.items() for line in filter(None, lines)]


def _collect_fields(result: Mapping[str, Any]) -> dict[str, Any]:
    seeds = result["seeds"]
    return {
        **flatten_config(result["config"]),
        **{f"prompts.{name}": digest for name, digest in result["prompts"].items()},
        "seeds": [one["seed"] for one in seeds],
        **{f"scenarios.{one['seed']}": one["scenarios"] for one in seeds},
        **({} if result["step"] is None else {"step": result["step"]}),
        "code": result.get("code", NOT_RECORDED),
        "failed": sum(bool(row["values"]["failure_rate"]) for row in result["dialogues"]),
    }


def _compare_fields(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Difference]:
    names = sorted((ours.keys() | theirs.keys()) - REACHED)
    pairs = (Difference(name, ours.get(name, NOT_RECORDED), theirs.get(name, NOT_RECORDED)) for name in names)
    return [pair for pair in pairs if pair.ours != pair.theirs]


def _format_value(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return value[:8]
    return value if value == NOT_RECORDED else f"{value!r:.60}"
