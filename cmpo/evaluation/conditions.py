"""What an evaluation was measured with, and what of it another's numbers do not share: said field by field.

Two numbers can be compared where the customers, their mood to end a dialogue, the rules and the judge were the same,
`MEASURED`; and two dialogues where the customer was, `DEALT`. All else is the agent's own, and is said.
"""

import dataclasses
import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cmpo.run import ranges
from rollouts.endpoints.settings import ASKED, EMBEDDED, Endpoint

MEASURED = (
    "episode.max_turns",
    "episode.farewell",
    *(f"{name}.{field}" for name in ("user", "judge") for field in ASKED if field != "response_format"),
    "judge.votes",
    "judge.weights.*",
    "prompts.*",
)
"""Fields, as patterns, whose difference makes any two numbers incomparable."""

DEALT = ("data.*", "eval.scenarios", "eval.seed", "seeds", "scenarios.*")
"""Fields that say whom the agent met: dialogues can be paired only where the scenarios were the very same."""

REACHED = {"data.dir", "endpoints.record", "endpoints.replay"} | {
    f"{name}.{field.name}"
    for name in ("user", "judge", "agent")
    for field in dataclasses.fields(Endpoint)
    if field.name not in (*ASKED, "url")
}
"""Fields that change no number: how an endpoint is reached, what that may cost, where files lie."""

_WHERE = ("user.url", "judge.url")  # one server may be as good as another, but rules are no model
NOT_RECORDED = "not recorded"
_OF_BOTH = ("scenarios.*", "step")  # said where both have it: of seeds, `seeds` says so; scripted agents have no step


class Difference(NamedTuple):
    """A field in which two evaluations, or a run and its evaluation, differ."""

    field: str
    ours: Any
    theirs: Any

    def __str__(self):
        return f"{self.field} {_shown(self.ours)} and {_shown(self.theirs)}"

    def is_of(self, patterns: Sequence[str]) -> bool:
        """Whether the field is one of `patterns`."""
        return any(fnmatch.fnmatchcase(self.field, pattern) for pattern in patterns)


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Difference]:
    """What two results, as `results.read` has them, differ in, but for what `REACHED` says and what was measured."""
    found = _differences(_facts(ours), _facts(theirs))
    return [each for each in found if NOT_RECORDED not in (each.ours, each.theirs) or not each.is_of(_OF_BOTH)]


def incomparable(found: Sequence[Difference], *, paired: bool) -> list[Difference]:
    """Those that make numbers incomparable; `paired`, dialogues too.

    The scenarios decide whether the same customers were met, however they came to be dealt.
    """
    dealt = paired and any(difference.is_of(("seeds", "scenarios.*")) for difference in found)
    apart = (*MEASURED, *(DEALT if dealt else ()))
    return [one for one in found if one.is_of(apart) or (one.is_of(_WHERE) and EMBEDDED in (one.ours, one.theirs))]


def since_training(run: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What differs between the config of a run and that of its evaluation: field -> {"run": …, "here": …}."""
    found = _differences(ranges.flatten(run), ranges.flatten(config))
    return {field: {"run": ours, "here": theirs} for field, ours, theirs in found}


def as_trained(result: Mapping[str, Any]) -> str:
    """A line on what the agent of a result was trained with and not evaluated with; "" if there is nothing to say."""
    if (differ := result.get("since_training")) is None:
        return "" if result["step"] is None else f"how it was trained is {NOT_RECORDED}"
    told = (f"{field} {_shown(x['run'])} in the run, {_shown(x['here'])} here" for field, x in differ.items())
    return f"not as trained: {'; '.join(told)}" if differ else ""


def _facts(result: Mapping[str, Any]) -> dict[str, Any]:
    seeds = result["seeds"]
    return {
        **ranges.flatten(result["config"]),
        **{f"prompts.{name}": digest for name, digest in result["prompts"].items()},
        "seeds": [one["seed"] for one in seeds],
        **{f"scenarios.{one['seed']}": one["scenarios"] for one in seeds},
        **({} if result["step"] is None else {"step": result["step"]}),
        "code": result.get("code", NOT_RECORDED),
        "failed": sum(bool(row["values"]["failure_rate"]) for row in result["dialogues"]),
    }


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Difference]:
    names = sorted((ours.keys() | theirs.keys()) - REACHED)
    pairs = (Difference(name, ours.get(name, NOT_RECORDED), theirs.get(name, NOT_RECORDED)) for name in names)
    return [pair for pair in pairs if pair.ours != pair.theirs]


def _shown(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return value[:8]
    return value if value == NOT_RECORDED else f"{value!r:.60}"
