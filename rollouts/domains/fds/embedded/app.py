"""The embedded endpoint: a rule-based user and rule-based judges behind the OpenAI chat-completions protocol.

Stateless, as a model server is: every answer follows from the request's messages and `seed` alone, which is why the
same run gives the same transcripts in process and over HTTP.
"""

import json
import math
import random
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from rollouts.domains.fds.embedded import evaluators, latent, reading, writing

MODELS = ("embedded-user", "embedded-judge")


def play_user(messages: Sequence[dict[str, str]], seed: int) -> str:
    """Plays the customer. `messages` are the prompt, the cue to begin, then the customer's words and the agent's.

    Roles are swapped: the agent's words have the role `user`, each time with the line of system state.
    """
    case = reading.read_case(messages[0]["content"])
    mood, rng = latent.start_mood(case.customer), random.Random(seed)
    replies: list[str] = []
    text = writing.write_opening(case, rng)
    for message in messages[2:]:
        if message["role"] != "user":
            continue
        response, issued = reading.read_state(message["content"])
        events = reading.read_reply(response, replies, case, issued)
        replies.append(response)
        before, mood = mood, latent.apply_events(case.customer, mood, events)
        end = latent.find_end(case.customer, mood)
        if end == "quit":
            text = writing.write_walkout(rng)
        elif end == "rated":
            mean = latent.expected_rating(case.customer, mood)
            text = writing.write_farewell(math.floor(mean + random.Random(f"{seed} rating").random()), rng)
        else:
            text = writing.write_answer(case, before, mood, events, rng)
    return text


def judge_conversation(messages: Sequence[dict[str, str]]) -> str:
    """Scores the conversation by the rubric that the prompt names, as one JSON object."""
    prompt = messages[0]["content"]
    case, rubric = reading.read_case(prompt), reading.read_rubric(prompt, ("judge", *evaluators.EVALUATORS))
    turns = reading.read_transcript(messages[-1]["content"])
    steps = evaluators.trace_turns(case, turns)
    if rubric != "judge":
        happened = "; ".join(", ".join(sorted(step.events)) for step in steps)
        return json.dumps({"reason": f"turns: {happened}", **evaluators.EVALUATORS[rubric](case, steps)})
    if turns[-1]["role"] != "agent":
        raise reading.UnreadablePrompt("expected a conversation that ends with the agent's turn")
    return json.dumps(score_turn(case.customer, steps[-1].before, steps[-1].events))


def score_turn(customer: latent.Customer, mood: latent.Mood, events: frozenset[str]) -> dict[str, float | str]:
    """Scores a turn by the four principles: in it `events` happened, and `mood` was the customer's before it."""
    needs_listening = mood.anger > 0 or mood.heard == 0
    hostile = (
        customer.level == 1 and mood.heard == 0
    )  # wants to be heard before being asked anything, as the prompt says
    if needs_listening:
        fits = "listen" in events and not (hostile and "ask" in events)
        persona = 1.0 if fits else 0.5 if events & {"listen", "apology", "note"} else 0.0
    else:
        persona = 0.5 if events & {"apology", "nothing", "spam"} else 1.0
    if mood.evidence < 2:
        opening = "listen" if hostile else "ask"
        stage = 0.0 if events & {"offer", "voucher", "close"} else 1.0 if opening in events else 0.5
    else:
        fresh = {
            "explain_true": not mood.facts,
            "limit": not mood.limits,
            "note": not mood.noted,
            "offer": mood.deal < 2,
            "voucher": mood.deal == 2,
            "close": mood.heard > 0,
        }
        proposes = any(fresh.get(event) for event in events)
        stage = 0.0 if "ask" in events else 1.0 if proposes else 0.5
    faults = len(events & {"long", "repeat", "promise", "nothing", "apology"})
    quality = 0.0 if "spam" in events else max(0.0, 1.0 - 0.5 * faults)
    gives = events & {"offer", "voucher"}
    if (gives and mood.evidence < 2) or events & {"explain_false", "unbacked"}:
        conduct = 0.0
    else:
        doubtful = gives and customer.supported is False
        pressed = "voucher" in events and mood.deal != 2
        conduct = 0.5 if doubtful or pressed else 1.0
    turn = ", ".join(sorted(events))
    return {
        "reason": f"evidence {mood.evidence}, heard {mood.heard}, anger {mood.anger}; turn: {turn}",
        "persona": persona,
        "stage": stage,
        "quality": quality,
        "rules": conduct,
    }


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
