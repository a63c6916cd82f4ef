"""A user for tau2's client that says four things and goes. python user_server.py PORT"""

import sys, json
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

SAYS = [
    "Hello, I need help with my account please.",
    "Yes, please go ahead.",
    "My id is noah_muller_9847. What else do you need?",
    "###STOP###",
]


async def chat(request):
    body = await request.json()
    said = sum(m["role"] == "assistant" for m in body["messages"])
    text = SAYS[min(said, len(SAYS) - 1)]
    return JSONResponse(
        {
            "id": "u",
            "object": "chat.completion",
            "created": 0,
            "model": "user",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
    )


async def models(request):
    return JSONResponse({"object": "list", "data": [{"id": "user", "object": "model"}]})


uvicorn.run(
    Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"]), Route("/v1/models", models)]),
    host="127.0.0.1",
    port=int(sys.argv[1]),
    log_level="warning",
)
