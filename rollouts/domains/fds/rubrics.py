"""What judges are asked for: rubrics, each a set of items with the scores they may have.

This is the only place that defines them. The JSON schema of a request, the scores and the answer's shape in the prompt
(whose words are in `prompts/{name}.txt`), and the reading of answers follow from it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rollouts.domains.fds import generator
from rollouts.domains.fds.scenario import Scenario

PRINCIPLES = ("persona", "stage", "quality", "rules")
"""What the process judge scores every turn on, each 0, 0.5 or 1."""

_FENCED = re.compile(r"\s*+(?P<fence>`{3,9}|~{3,9})[ \t]*+\w*+(?P<inside>.*)(?P=fence)\s*+", re.DOTALL)


class Verdict(NamedTuple):
    """An answer that follows its rubric."""

    scores: dict[str, float]  # item -> score
    reason: str

    @property
    def total(self) -> float:
        """The sum of the scores."""
        return sum(self.scores.values())

    def compute_reward(self, weights: Mapping[str, float]) -> float:
        """The process reward R_P: the mean of the process judge's scores, weighted by principle; 0..1."""
        return sum(weights[name] * self.scores[name] for name in PRINCIPLES) / sum(weights[name] for name in PRINCIPLES)


class Rubric(NamedTuple):
    """Items in the order in which they are asked for."""

    name: str
    items: Mapping[str, tuple[float, ...]]  # item -> the scores it may have, lowest first

    @property
    def maximum(self) -> float:
        """The best total."""
        return sum(scores[-1] for scores in self.items.values())

    @property
    def response_format(self) -> dict:
        """The `response_format` of the OpenAI protocol: a JSON schema, the reason before the scores it leads to."""
        scores = {item: {"type": "number", "enum": list(scores)} for item, scores in self.items.items()}
        schema = {
            "type": "object",
            "properties": {"reason": {"type": "string"}, **scores},
            "required": ["reason", *scores],
            "additionalProperties": False,
        }
        return {"type": "json_schema", "json_schema": {"name": self.name, "strict": True, "schema": schema}}

    @property
    def shape(self) -> str:
        """The answer's shape in words."""
        return "{" + ", ".join(['"reason": "one or two sentences"', *(f'"{item}": …' for item in self.items)]) + "}"

    def write_prompt(self, scenario: Scenario) -> str:
        """The judge's system prompt."""
        case = generator.fill_prompt(
            "case",
            **generator.case_values(scenario),
            signals="\n".join(f"{name}: {value}" for name, value in scenario.order.signals),
        )
        scores = {item: f"({_list_choices(scores)})" for item, scores in self.items.items()}
        return generator.fill_prompt(self.name, case=case.strip(), answer=self.shape, **scores)

    def read_answer(self, answer: str) -> Verdict:
        """Reads an answer, which may stand in a Markdown fence.

        Raises ValueError, saying what is wrong and what came, unless it is exactly what the schema describes. Words
        around it are refused: a judge that quotes an agent could be made to say what the agent wants.
        """
        fenced = _FENCED.fullmatch(answer)
        try:
            found = json.loads(fenced["inside"] if fenced else answer, object_pairs_hook=_refuse_duplicates)
        except RecursionError:
            raise ValueError("expected a JSON object, got one too deeply nested") from None
        except ValueError as error:  # JSONDecodeError, a key twice, or a number of too many digits for Python
            raise ValueError(f"expected one JSON object and nothing else: {error}; got {answer!r:.100}") from None
        if not isinstance(found, dict) or found.keys() != {"reason", *self.items}:
            got = sorted(found) if isinstance(found, dict) else type(found).__name__
            raise ValueError(f"expected an object with exactly the keys {['reason', *self.items]}, got {got!r:.300}")
        for item, allowed in self.items.items():
            if type(found[item]) not in (int, float) or found[item] not in allowed:  # True does not count as 1
                raise ValueError(f"expected {item} to be {_list_choices(allowed)}, got {found[item]!r:.100}")
        if not isinstance(found["reason"], str):
            raise ValueError(f"expected the reason as text, got {found['reason']!r:.100}")
        reason = found["reason"].encode(errors="replace").decode()  # no file can hold half a surrogate pair
        return Verdict({item: float(found[item]) for item in self.items}, reason)


def _list_choices(scores: Sequence[float]) -> str:
    *others, last = (f"{score:g}" for score in scores)
    return f"{', '.join(others)} or {last}"


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError(f"a key comes twice in {[key for key, _ in pairs]!r:.300}")
    return found


PROCESS = Rubric("judge", dict.fromkeys(PRINCIPLES, (0, 0.5, 1)))
"""Asked about every turn of the agent."""

COMMUNICATION = Rubric(
    "communication",
    dict.fromkeys(
        (
            "identity",
            "novelty",
            "focus",
            "style_match",
            "complexity_match",
            "substance",
            "promise_limits",
            "concise",
            "sincere",
            "sentence_variety",
            "transitions",
            "issue_depth",
            "user_level",
            "responsiveness",
        ),
        (0, 1, 2),
    ),
)
"""How the agent talked; 28 points. The last item is ours: the paper counts fourteen items, but names only thirteen."""

LOGIC = Rubric(
    "logic",
    {
        **dict.fromkeys(("profiling", "motive", "strategy"), (0, 1, 2)),
        **dict.fromkeys(("procedure", "truthfulness", "fairness", "consistency", "closing", "out_of_domain"), (0, 1)),
    },
)
"""What the agent understood and did; 12 points."""

COMPENSATION = Rubric("compensation", dict.fromkeys(("negotiated", "timing", "evidence"), (0, 1, 2)))
"""How a voucher came about, asked where one was given; 6 points."""

EVALUATORS = (COMMUNICATION, LOGIC, COMPENSATION)
"""Asked about whole dialogues, in evaluation only."""
