"""What a dialogue was worth: the official evaluator's reward, from the world as it is at the end.

The official evaluator builds three worlds and plays all calls again. Here the world that was played in is asked, and
the one that a task wants is built once. A test holds both to the same reward.
"""

from typing import Any

from rollouts.domains.tau2.package import Package
from rollouts.domains.tau2.world import PROPER, World

_Hashes = tuple[str | None, str | None]


class Scorer:
    """Scores dialogues of a domain; it keeps the hashes of the worlds that tasks want."""

    def __init__(self, package: Package, domain: str):
        self._package, self._construct = package, package.registry.get_env_constructor(domain)
        self._wanted: dict[str, _Hashes] = {}  # task id -> hashes

    def score_dialogue(self, source: Any, world: World) -> float:
        """Returns the reward of a dialogue that has ended: the product over what the task rewards, 0 or 1 each."""
        criteria = source.evaluation_criteria
        if world.end not in PROPER:
            return 0.0
        if criteria is None:
            return 1.0
        checks = {
            "DB": lambda: self._has_wanted_databases(source, world),
            "ENV_ASSERTION": lambda: _holds_assertions(source, world),
            "ACTION": lambda: self._package.actions.calculate_reward(source, world.messages).reward,
            "COMMUNICATE": lambda: self._package.communication.calculate_reward(source, world.messages).reward,
        }
        return float(all(checks[kind.value]() for kind in criteria.reward_basis))

    def _has_wanted_databases(self, source: Any, world: World) -> bool:
        if _is_unchecked(source):
            return True
        if source.id not in self._wanted:
            self._wanted[source.id] = self._hash_wanted(source)
        return hash_databases(world.environment) == self._wanted[source.id]

    def _hash_wanted(self, source: Any) -> _Hashes:
        """Hashes the databases as they are after the actions that a task wants; some of these may fail."""
        environment, start = self._construct(), source.initial_state
        environment.set_state(
            initialization_data=start and start.initialization_data,
            initialization_actions=start and start.initialization_actions,
            message_history=(start and start.message_history) or [],
        )
        for action in source.evaluation_criteria.actions or []:
            try:
                environment.make_tool_call(tool_name=action.name, requestor=action.requestor, **action.arguments)
            except Exception:  # as the official evaluator has it, which goes on
                continue
        return hash_databases(environment)


def needs_llm(source: Any) -> bool:
    """Whether only an LLM can score a task."""
    criteria = source.evaluation_criteria
    return bool(criteria) and any(kind.value == "NL_ASSERTION" for kind in criteria.reward_basis)


def hash_databases(environment: Any) -> _Hashes:
    """Hashes the agent's database and the user's; None for one that there is not."""
    return environment.get_db_hash(), environment.get_user_db_hash()


def _holds_assertions(source: Any, world: World) -> bool:
    """Whether the world is as a task asserts it to be."""
    if _is_unchecked(source):
        return True
    assertions = source.evaluation_criteria.env_assertions or []
    return all(world.environment.run_env_assertion(each, raise_assertion_error=False) for each in assertions)


def _is_unchecked(source: Any) -> bool:
    """Whether a task says nothing of the world at its end."""
    return source.evaluation_criteria.actions is None and source.evaluation_criteria.env_assertions is None
