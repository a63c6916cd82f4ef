"""Describes the plane of utility and cost: the best possible, a run's path, and agents with their spread over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cmpo.evaluation import conditions, results
from cmpo.reports.run_data import Run, select_phase
from rollouts.domain import Bound

_SHORTEST = 5  # steps of a path: a bound takes seconds to compute


def find_bound(evaluation: Mapping[str, Any]) -> Bound | None:
    """Finds the bound that an evaluation can be drawn beside.

    None where its domain knows none for its config, or all its dialogues failed.
    """
    bound = results.load_domain(evaluation).find_bound(evaluation["config"])
    if bound is None or evaluation["summary"][bound.objective]["mean"] is None:
        return None
    return bound


def describe_path(run: Run) -> dict[str, Any] | None:
    """Describes the plane that a run moved in; None for a domain without costs, and where there is no way to speak of.

    The path's columns are those of `curves.collect_columns`. Without a bound, the first cost is the plane's.
    """
    domain = run.domain
    if not domain.costs or len(select_phase(run.records, "rl")) < _SHORTEST:
        return None
    bound = run.find_bound()
    names = [cost.name for cost in domain.costs]
    number = names.index(bound.cost.name) if bound and bound.cost.name in names else 0
    cost = domain.costs[number]
    plane = _describe_bound(bound) if bound else {"title": "", "frontier": None}
    return plane | {
        "cost": cost.panel,
        "objective": domain.panel or domain.objective,
        "percent": cost.total == "any",
        "budget": run.budgets[number] if run.budgets else None,
        "path": {"cost": f"rl.{cost.measure}", "objective": f"rl.{domain.objective}"},
        "agents": [],
    }


def describe_evaluations(evaluations: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Describes a plane for each group of evaluations that share a bound and can be compared."""
    return [_describe_agents(bound, agents) for bound, agents in _group_comparable(evaluations)]


def _describe_agents(bound: Bound, agents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    points = []
    for name, found in agents.items():
        cost, objective = (found["summary"][measure] for measure in (bound.cost.measure, bound.objective))
        points.append(
            {
                "name": name,
                "at": [cost["mean"], objective["mean"]],
                "spread": [cost["std"] or 0.0, objective["std"] or 0.0],
            }
        )
    return _describe_bound(bound) | {
        "cost": bound.cost.panel,
        "objective": bound.panel,
        "percent": True,
        "budget": None,
        "path": None,
        "agents": points,
    }


def _describe_bound(bound: Bound) -> dict[str, Any]:
    rates = np.append(bound.rates, 1.0)
    return {"title": bound.title, "frontier": [[float(rate), bound.best_at(rate)] for rate in rates]}


def _group_comparable(evaluations: Mapping[str, Mapping]) -> Sequence[tuple[Bound, dict[str, Mapping]]]:
    """Groups the evaluations that have a bound, so that those in a group share it and can be compared."""
    groups: list[tuple[Bound, dict[str, Mapping]]] = []
    for name, found in evaluations.items():
        bound = find_bound(found)
        if bound is None:
            continue
        for known, agents in groups:
            differ = conditions.find_differences(found, next(iter(agents.values())))
            if known.title == bound.title and not conditions.select_incomparable(differ, paired=False):
                agents[name] = found
                break
        else:
            groups.append((bound, {name: found}))
    return groups
