"""tau2-bench as a domain; see `rollouts.domain.Domain`."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rollouts.domain import (
    EVERYWHERE,
    Cost,
    Domain,
    Effect,
    Episodes,
    Measure,
    Shown,
    TaskSource,
    add_costs,
    choose_costs,
)
from rollouts.domains.tau2 import package as packages
from rollouts.domains.tau2 import scripted, turn_format
from rollouts.domains.tau2.costs import COSTS, REFUNDS, TRANSFER
from rollouts.domains.tau2.episode import Rules, Service, note_turn
from rollouts.domains.tau2.llm_user import LlmUser
from rollouts.domains.tau2.package import Package
from rollouts.domains.tau2.rules_user import RulesUser
from rollouts.domains.tau2.schema import Tau2Settings
from rollouts.domains.tau2.scoring import Scorer
from rollouts.domains.tau2.tasks import Tau2Task, open_splits
from rollouts.domains.tau2.users import User
from rollouts.play import Agent
from rollouts.seeds import fold
from rollouts.types import Dialogue

_AGENTS = {
    "idle": scripted.Idle,
    "knowing": scripted.Knowing,
    "by_the_book": scripted.ByTheBook,
    "hasty": scripted.Hasty,
}


class Tau2Domain(Domain):
    """Customers who need an agent that uses tools by a policy; success is checked in databases."""

    turn_format, settings = turn_format, Tau2Settings
    endpoints = ("user",)
    breaches = ("agent_error",)
    panel = "Tasks solved (share)"
    scripted = tuple(_AGENTS)
    objective = "solved"

    def __init__(self, costs: tuple[Cost, ...]):
        self.costs = costs
        free = [cost for cost in COSTS if cost not in costs]  # without a budget they are measured all the same
        self.scores = {"solved": lambda dialogue: dialogue.outcome} | {cost.measure: _sum_cost(cost) for cost in free}
        self.measures = {
            "solved": Measure("solved, %", 100, 1),
            "finish_rate": EVERYWHERE["finish_rate"],
            **{cost.measure: _show_cost(cost) for cost in COSTS},
            **{name: EVERYWHERE[name] for name in ("turns", "tokens", "failure_rate")},
        }
        self.groups = {
            "intent": ("service", "mobile_data", "mms", "retail", "airline", "mock"),
            "persona": ("None", "Easy", "Hard"),
        }

    def open_tasks(self, data: Mapping[str, Any], seed: int, prepared: Any) -> TaskSource:
        """See Domain."""
        if data["user"] == "rules" and data["domain"] != "telecom":
            raise ValueError(
                f"config.data.user: expected llm for {data['domain']}, got 'rules', who knows telecom alone"
            )
        if any(cost.name == "refund" for cost in self.costs) and data["domain"] not in REFUNDS:
            raise ValueError(
                f"config.pid.target.refund: expected a domain whose tools move money ({', '.join(REFUNDS)}), got "
                f"{data['domain']}: this budget would never bind"
            )
        return open_splits(packages.load_package(data["version"]), data, seed)

    def episodes(self, config: Mapping[str, Any], chats: Mapping[str, Any]) -> Episodes:
        """See Domain."""
        data, episode = config["data"], config["episode"]
        package = packages.load_package(data["version"])
        rules = Rules(episode["max_steps"], episode["max_errors"], episode["max_turns"])
        scorer = Scorer(package, data["domain"])

        def begin(task: Tau2Task, *, seed: int, judge_seed: int) -> Service:
            return Service(
                package, scorer, task, self._make_user(data["user"], package, chats, task, seed), rules, self.costs
            )

        return Episodes(begin, self.costs)

    def _make_user(
        self, kind: str, package: Package, chats: Mapping[str, Any], task: Tau2Task, seed: int
    ) -> User | None:
        """Makes the user of a dialogue; None where there is none."""
        if kind == "solo":
            return None
        if kind == "rules":
            known = task.source.user_scenario.instructions.known_info or ""
            return RulesUser(task.labels["intent"], known, fold(seed, "user"))
        return LlmUser(package, task.domain, task.source, chats["user"], fold(seed, "user"))

    def scripted_agent(self, config: Mapping[str, Any], name: str, budget: float | None = None) -> Agent:
        """See Domain. Those who work by the book know the telephone company, and need a user to ask."""
        data = config["data"]
        if name not in ("idle", "knowing") and (data["domain"] != "telecom" or data["user"] == "solo"):
            field, expected = ("--agent", "idle or knowing") if name else ("config.sft.path", "demonstrations")
            raise ValueError(
                f"{field}: expected {expected}: {name or 'who writes them'} knows telecom with a user alone, got "
                f"{data['domain']}, user={data['user']}"
            )
        return scripted.PlannedAgent(_AGENTS[name or "hasty"])

    def decline_action(self, text: str, seed: int) -> str:
        """See Domain. What costs something is a call: it is not made."""
        return scripted.SORRY

    def read_turn(self, text: str, before: Sequence[str] = (), *, truncated: bool = False) -> Effect:
        """See Domain. What only the world can tell of a call is NaN."""
        try:
            output = turn_format.parse(text)
        except ValueError:
            output = turn_format.AgentOutput("", text, [], True)
        counted = dict.fromkeys((cost.name for cost in COSTS), float("nan"))
        counted["transfer"] = float(any(call.name == TRANSFER for call in output.calls))
        counted["message"] = float(not output.calls)
        if not output.calls:
            counted |= {"write": 0.0, "refund": 0.0, "tool_error": float(output.malformed)}
        cost = np.array([counted[cost.name] for cost in self.costs], np.float32)
        return Effect(cost, note_turn(text, output, (), counted), over=False)

    def view_output(self, text: str) -> tuple[str, dict[str, Any]]:
        """See Domain."""
        notes = self.read_turn(text).notes
        return turn_format.hear(notes["said"]), {"action": notes["calls"][0]["name"] if notes["calls"] else None}

    def show_turn(self, notes: Mapping[str, Any]) -> Shown:
        """See Domain."""
        called = [f"{call['name']} {call['arguments']} → {call.get('content', '')}" for call in notes["calls"]]
        tones = {"transfer": "cost", "refund": "cost", "tool_error": "bad", "write": "plain"}
        spent = [(f"{name} {notes['costs'][name]:g}", tone) for name, tone in tones.items() if notes["costs"][name] > 0]
        return Shown("\n".join([notes["said"], *called]).strip(), notes["think"], spent)

    def show_task(self, description: Mapping[str, Any]) -> list[str]:
        """See Domain."""
        return [description["id"], *description["scenario"].splitlines()]

    def digest(self, tasks: Sequence[Tau2Task]) -> str:
        """See Domain."""
        return hashlib.sha256(" ".join(task.digest for task in tasks).encode()).hexdigest()


def _sum_cost(cost: Cost) -> Callable[[Dialogue], float]:
    """Returns what sums a cost over a dialogue, from the notes of its turns."""

    def measure(dialogue: Dialogue) -> float:
        amounts = [turn.notes["costs"][cost.name] for turn in dialogue.turns]
        return float(add_costs([cost], np.array(amounts, float).reshape(-1, 1))[0])

    return measure


def _show_cost(cost: Cost) -> Measure:
    return Measure(cost.heading, 100, 1) if cost.total == "any" else Measure(cost.heading, 1, 2)


def make(constrained: Sequence[str]) -> Tau2Domain:
    """Returns the domain with these costs constrained; by default, transfers. Raises ValueError for an unknown name."""
    return Tau2Domain(choose_costs(COSTS, constrained))
