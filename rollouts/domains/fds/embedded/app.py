"""The embedded endpoint: a rule-based user and rule-based judges behind the OpenAI chat-completions protocol.

Stateless, as a model server is: every answer follows from the request's messages and `seed` alone, which is why the
same run gives the same transcripts in process and over HTTP.
"""

import json
import random
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from rollouts.domains.fds.embedded import evaluators, latent, reading, signals, tracing, verdicts, writing
from rollouts.domains.fds.embedded.case import UnreadablePrompt, read_case
from rollouts.seeds import fold

MODELS = ("embedded-user", "embedded-judge")


def play_user(messages: Sequence[dict[str, str]], seed: int) -> str:
    """Plays the customer. `messages` are the prompt, the cue to begin, then the customer's words and the agent's.

    Roles are swapped: the agent's words have the role `user`, each time with the line of system state. What is drawn
    in a turn follows from `seed` and the turn's number, so all requests of a dialogue must have the same seed.
    """
    case = read_case(messages[0]["content"])
    customer = case.customer
    mood, replies, rng = latent.start_mood(customer), [], random.Random(fold(seed, "turn", 0))
    signal = signals.draw_signal(signals.list_openings(customer), rng)
    for message in messages[2:]:
        if message["role"] != "user":
            continue
        response, issued = reading.read_state(message["content"])
        events = tracing.read_turn(response, tuple(replies), case, issued)
        replies.append(response)
        rng = random.Random(fold(seed, "turn", len(replies)))
        outcomes = latent.list_outcomes(customer, mood, events)
        before, mood = mood, rng.choices([after for _, after in outcomes], [chance for chance, _ in outcomes])[0]
        signal = signals.draw_signal(signals.list_signals(customer, before, mood, events), rng)
    return writing.write_message(signal, case, rng, case.shift)


def judge_conversation(messages: Sequence[dict[str, str]]) -> str:
    """Scores the conversation by the rubric that the prompt names, as one JSON object."""
    prompt = messages[0]["content"]
    case, rubric = read_case(prompt), reading.read_rubric(prompt, ("judge", *evaluators.EVALUATORS))
    turns = reading.read_transcript(messages[-1]["content"])
    steps = tracing.trace_turns(case, turns)
    if rubric != "judge":
        happened = "; ".join(", ".join(sorted(step.events)) for step in steps)
        return json.dumps({"reason": f"turns: {happened}", **evaluators.EVALUATORS[rubric](case, steps)})
    if turns[-1]["role"] != "agent":
        raise UnreadablePrompt("expected a conversation that ends with the agent's turn")
    return json.dumps(verdicts.score_turn(case.customer, steps[-1].before, steps[-1].events))


async def _answer_request(request: Request) -> JSONResponse:
    try:
        return JSONResponse(_complete_chat(await request.json()))
    except RecursionError:
        message = "expected a JSON object, got one too deeply nested"
    except ValueError as error:
        message = str(error)
    return JSONResponse({"error": {"message": message, "type": "invalid_request_error"}}, 400)


def _complete_chat(body: object) -> dict:
    """Answers a request. Raises ValueError saying what is wrong with it."""
    if not isinstance(body, dict):
        raise ValueError(f"expected a JSON object, got {body!r:.100}")
    model, messages, seed = body.get("model"), body.get("messages"), body.get("seed")
    if model not in MODELS:
        raise ValueError(f"model: expected one of {MODELS}, got {model!r:.100}")
    if not (isinstance(messages, list) and messages and all(_is_message(message) for message in messages)):
        raise ValueError('messages: expected a list of one or more {"role": text, "content": text}')
    if not isinstance(seed, int | None):
        raise ValueError(f"seed: expected an integer, got {seed!r:.100}")
    content = play_user(messages, seed or 0) if model == MODELS[0] else judge_conversation(messages)
    prompt_words = sum(len(message["content"].split()) for message in messages)
    words = len(content.split())
    return {
        "id": "chatcmpl-embedded",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt_words, "completion_tokens": words, "total_tokens": prompt_words + words},
    }


def _is_message(message: object) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))


async def _list_models(request: Request) -> JSONResponse:
    return JSONResponse({"object": "list", "data": [{"id": name, "object": "model"} for name in MODELS]})


async def _report_health(request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


app = Starlette(
    routes=[
        Route("/v1/chat/completions", _answer_request, methods=["POST"]),
        Route("/v1/models", _list_models),
        Route("/health", _report_health),
    ]
)
