"""Tasks of the benchmark: what the agent is told first, and from which splits they come."""

import dataclasses
import functools
import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rollouts import tool_calls
from rollouts.domains.tau2.package import Package
from rollouts.domains.tau2.scoring import needs_llm
from rollouts.types import Message, Task

EXTRA = "extra"
"""The name of a split that the package does not have: the tasks of a domain that are not in its benchmark, `base`."""

_SHORT = "You are a customer service agent."
_TELECOM = re.compile(r"\[(?P<intent>\w+)\][^[]*\[PERSONA:(?P<persona>\w+)\]")


@dataclasses.dataclass(frozen=True)
class Tau2Task(Task):
    """A task of the benchmark."""

    domain: str
    told: str  # the system message, tools included
    tools: tuple[str, ...]  # names of those that the agent may call
    solo: bool  # there is no user
    source: Any = dataclasses.field(repr=False)  # the package's own

    @property
    def opening(self) -> Sequence[Message]:
        """See Task. Without a user, the episode says it: nobody else opens the dialogue."""
        return () if self.solo else self.told_first

    @property
    def told_first(self) -> Sequence[Message]:
        """See Task."""
        return (Message("system", self.told),)

    @property
    def labels(self) -> Mapping[str, Any]:
        """See Task: what is asked for, which telecom alone tells, and who the user is."""
        found = _TELECOM.fullmatch(self.id)
        intent, persona = (found["intent"].removesuffix("_issue"), found["persona"]) if found else (self.domain, "None")
        return {"domain": self.domain, "intent": intent, "persona": persona}

    @property
    def description(self) -> Mapping[str, Any]:
        """See Task."""
        return {"id": self.id, **self.labels, "scenario": str(self.source.user_scenario)}

    @property
    def digest(self) -> str:
        """See Task."""
        return hashlib.sha256(f"{self.told}\n{self._scenario}".encode()).hexdigest()[:16]

    @functools.cached_property
    def _scenario(self) -> str:
        """The package's own task as JSON, without the times at which it was read."""
        found = self.source.model_dump(mode="json")
        for message in (found["initial_state"] or {}).get("message_history") or []:
            message.pop("timestamp", None)
        return json.dumps(found, sort_keys=True)


class SplitTasks:
    """Tasks of some splits, as a `rollouts.domain.TaskSource`: in another order in each epoch.

    Those to train on take turns by what is asked for: else 19 of 20 would be of one kind, and the mean of a cost, which
    a budget is for, would be that kind's.
    """

    def __init__(self, train: Sequence[Tau2Task], test: Sequence[Tau2Task], seed: int):
        by_intent: dict[str, list[Tau2Task]] = {}
        for task in train:
            by_intent.setdefault(task.labels["intent"], []).append(task)
        self._train, self._test, self._seed = [*by_intent.values()], test, seed

    def train(self, cursor: int, count: int) -> list[Tau2Task]:
        """See TaskSource."""
        if count and not self._train:
            raise ValueError("config.data.train: expected splits to train on, got none")
        turns = (divmod(number, len(self._train)) for number in range(cursor, cursor + count))
        return [self._deal_task(self._train[kind], turn, f"train {self._seed} {kind}") for turn, kind in turns]

    def held_out(self, count: int, seed: int) -> list[Tau2Task]:
        """See TaskSource. Where `count` is more than there are, tasks come again, each as often as the others."""
        return [self._deal_task(self._test, number, f"test {seed}") for number in range(count)]

    def _deal_task(self, tasks: Sequence[Tau2Task], number: int, seed: str) -> Tau2Task:
        epoch, place = divmod(number, len(tasks))
        return tasks[_shuffle(len(tasks), f"{seed} {epoch}")[place]]


@functools.lru_cache(maxsize=64)
def _shuffle(count: int, seed: str) -> list[int]:
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order


def open_splits(package: Package, data: Mapping[str, Any], seed: int) -> SplitTasks:
    """Opens the splits that a config's section `data` names.

    Raises ValueError, naming the field, for a split that the domain does not have, where a task is in both, and for a
    task that only an LLM can score: nobody here asks one.
    """
    domain = data["domain"]
    found, splits = _load_splits(package, domain)
    chosen = {field: _choose_ids(splits, data[field], f"config.data.{field}", domain) for field in ("train", "test")}
    if both := sorted(set(chosen["train"]) & set(chosen["test"])):
        raise ValueError(
            f"config.data: expected no task in both train={data['train']} and test={data['test']}, got {len(both)}, "
            f"{both[0]!r} among them; a score on tasks that were trained on says nothing"
        )
    if not chosen["test"]:
        raise ValueError("config.data.test: expected splits to evaluate on, got none")
    for field, ids in chosen.items():
        if unscored := [name for name in ids if needs_llm(found[name])]:
            raise ValueError(
                f"config.data.{field}: expected tasks that are scored without an LLM, got {unscored[0]!r} of {domain}, "
                "which is rewarded for an NL_ASSERTION; choose other splits"
            )
    make = functools.partial(make_task, package, domain, solo=data["user"] == "solo", short=data["prompt"] == "short")
    return SplitTasks(*([make(found[name]) for name in ids] for ids in chosen.values()), seed)


def load_tasks(package: Package, domain: str, *, split: str = "base", solo: bool = False) -> list[Tau2Task]:
    """Loads the tasks of some splits, joined by +, in the order in which the package has them."""
    found, splits = _load_splits(package, domain)
    ids = _choose_ids(splits, split, "split", domain)
    return [make_task(package, domain, found[name], solo=solo) for name in ids]


def make_task(package: Package, domain: str, source: Any, *, solo: bool, short: bool = False) -> Tau2Task:
    """Makes a task of the package's own; `short` tells the agent nothing of policy and tools.

    Raises ValueError for a task that is not for an agent without a user, where `solo` asks for one.
    """
    if not solo:
        told, tools = _describe_work(package, domain)
        return Tau2Task(source.id, domain, _SHORT if short else told, tools, solo, source)
    if not package.agents.LLMSoloAgent.check_valid_task(source):
        raise ValueError(f"config.data.user: expected tasks with a ticket for solo, got {source.id} of {domain}")
    policy, tools = _describe_solo_work(package, domain)
    agent = package.agents.LLMSoloAgent(tools=[*tools], domain_policy=policy, task=source)
    told = f"{_SHORT}\n\n{source.ticket}" if short else _write_prompt(agent)
    return Tau2Task(source.id, domain, told, tuple(tool.name for tool in agent.tools), solo, source)


@functools.cache
def _describe_work(package: Package, domain: str) -> tuple[str, tuple[str, ...]]:
    """Returns what an agent with a user is told, the same in all tasks, and the names of its tools."""
    environment = package.registry.get_env_constructor(domain)()
    agent = package.agents.LLMAgent(tools=environment.get_tools(), domain_policy=environment.get_policy())
    return _write_prompt(agent), tuple(tool.name for tool in agent.tools)


@functools.cache
def _describe_solo_work(package: Package, domain: str) -> tuple[str, Sequence[Any]]:
    """Returns the policy of an agent without a user, and its tools, those of the user among them."""
    environment = package.registry.get_env_constructor(domain)(solo_mode=True)
    users = environment.get_user_tools() if environment.user_tools else []
    return environment.get_policy(), [*environment.get_tools(), *users]


def _write_prompt(agent: Any) -> str:
    """Writes what an official agent is told, with its tools as Qwen2.5 has them."""
    return tool_calls.write_system(agent.system_prompt, [tool.openai_schema for tool in agent.tools])


def _load_splits(package: Package, domain: str) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Loads the tasks of a domain by id, and the ids of each split; a domain that has none is all `base`."""
    found = {task.id: task for task in package.registry.get_tasks_loader(domain)(None)}
    load = package.registry.get_task_splits_loader(domain)
    splits = dict(load()) if load else {"base": list(found)}
    base = set(splits["base"])
    if rest := [name for name in found if name not in base]:
        splits[EXTRA] = rest
    return found, splits


def _choose_ids(splits: Mapping[str, Sequence[str]], names: str, field: str, domain: str) -> list[str]:
    """Returns the ids of the tasks of some splits, each once."""
    chosen: dict[str, None] = {}
    for name in filter(None, names.split("+")):
        if name not in splits:
            raise ValueError(f"{field}: expected some of {sorted(splits)}, the splits of {domain}, got {name!r}")
        chosen |= dict.fromkeys(splits[name])
    return list(chosen)
