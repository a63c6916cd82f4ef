"""The process judge and the evaluators: what they are shown, how they are asked, and what becomes of bad answers."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rollouts.domains.fds import rubrics, turn_format
from rollouts.domains.fds.rubrics import Rubric, Verdict
from rollouts.endpoints.client import ChatClient
from rollouts.seeds import fold
from rollouts.types import Dialogue, DialogueError, Message


class Utterance(NamedTuple):
    """One utterance as judges read it."""

    role: str  # customer | agent
    text: str
    voucher: str = "no"  # whether the system issued a voucher by then: no | this turn | earlier


class Evaluation(NamedTuple):
    """What an evaluator made of a dialogue: a verdict, or the failure to get one."""

    verdict: Verdict | None
    failure: str = ""  # the cause
    failure_message: str = ""

    @property
    def total(self) -> float | None:
        """The sum of the scores."""
        return self.verdict.total if self.verdict else None

    @property
    def record(self) -> dict[str, Any]:
        """What result files keep of it."""
        if self.verdict:
            return self.verdict._asdict()
        return {"failure": self.failure, "failure_message": self.failure_message}


def write_request(prompt: str, conversation: Sequence[Utterance]) -> list[Message]:
    """Writes the request to judge `conversation`. It is JSON, so that an agent cannot pose as somebody else."""
    transcript = json.dumps([said._asdict() for said in conversation], ensure_ascii=False)
    return [Message("system", prompt), Message("user", transcript)]


async def ask_judge(
    client: ChatClient, rubric: Rubric, request: Sequence[Message], *, seed: int, votes: int = 1
) -> Verdict:
    """Asks for a verdict by `rubric`: the mean of `votes` answers, each drawn with a seed of its own.

    Raises DialogueError with the client's cause, or with `{rubric.name}_malformed` where an answer and its repair both
    break the schema. If one vote fails, so does the verdict: the mean of the others would have another variance.
    """
    asked = (_ask_once(client, rubric, request, fold(seed, vote)) for vote in range(votes))
    answers = await asyncio.gather(*asked, return_exceptions=True)  # until all are done: nothing is left running
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    scores = {item: float(np.mean([answer.scores[item] for answer in answers])) for item in rubric.items}
    return Verdict(scores, "\n".join(answer.reason for answer in answers))


async def _ask_once(client: ChatClient, rubric: Rubric, request: Sequence[Message], seed: int) -> Verdict:
    answer = await client.chat(request, seed=seed, response_format=rubric.response_format)
    try:
        return rubric.read_answer(answer)
    except ValueError as error:
        repair = f"This answer cannot be used: {error}. Answer again, with one JSON object only: {rubric.shape}"
    again = [*request, Message("assistant", answer), Message("user", repair)]
    answer = await client.chat(again, seed=fold(seed, "repair"), response_format=rubric.response_format)
    try:
        return rubric.read_answer(answer)
    except ValueError as error:
        raise DialogueError(
            f"{rubric.name}_malformed", f"the judge, asked for {rubric.name} twice, answered {answer[:200]!r}: {error}"
        ) from None


def transcribe_dialogue(dialogue: Dialogue) -> list[Utterance]:
    """Returns a dialogue as evaluators read it: what was heard, and the system's record of vouchers.

    It leaves out the agent's thoughts, end marks, and a turn that broke the format: the customer never saw these.
    """
    said, voucher = [], "no"
    for turn in dialogue.turns:
        said.append(Utterance("customer", turn.messages[-1].content, voucher))
        if action := turn.notes["action"]:
            issued = "this turn" if action == "voucher" else voucher
            said.append(Utterance("agent", turn_format.hear(turn.notes["response"]), issued))
            voucher = "no" if issued == "no" else "earlier"
    last = turn_format.hear(dialogue.last_words)
    answered = dialogue.turns and dialogue.turns[-1].messages[-1].content == last  # with a farewell
    if last and not answered:
        said.append(Utterance("customer", last, voucher))
    return said


async def evaluate_dialogue(
    client: ChatClient, dialogue: Dialogue, *, seed: int, votes: int = 1
) -> Mapping[str, Evaluation]:
    """Asks the evaluators about a dialogue that did not fail; returns an evaluation for each rubric.

    They judge compensation only if a voucher was given. An agent that never said anything in the turn format gets 0 on
    every item, and nobody is asked.
    """
    said = transcribe_dialogue(dialogue)

    async def apply_rubric(rubric: Rubric) -> Evaluation:
        if not any(utterance.role == "agent" for utterance in said):
            return Evaluation(Verdict(dict.fromkeys(rubric.items, 0.0), "The agent said nothing."))
        request = write_request(rubric.write_prompt(dialogue.task), said)
        try:
            return Evaluation(await ask_judge(client, rubric, request, seed=fold(seed, rubric.name), votes=votes))
        except DialogueError as error:
            return Evaluation(None, error.cause, str(error))

    given = any(turn.notes["action"] == "voucher" for turn in dialogue.turns)
    asked = [rubric for rubric in rubrics.EVALUATORS if given or rubric is not rubrics.COMPENSATION]
    return dict(zip((rubric.name for rubric in asked), await asyncio.gather(*map(apply_rubric, asked)), strict=True))
