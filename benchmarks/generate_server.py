"""transformers' generate behind the OpenAI protocol, as little of it as benchmarks/serving.py asks for.

    python -m benchmarks.generate_server DIR [--batch=8] --port=8001

Answers /v1/completions for a prompt of tokens, at temperature 0 and up to max_tokens: no token ends an answer. Requests
wait in a queue, of which `--batch` at a time are padded to one length and given to generate.
"""

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

import torch
import transformers
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

WINDOW = 0.01  # seconds that a batch waits for more requests, as the engine of ours does


class Waiting(NamedTuple):
    """A request in the queue."""

    prompt: list[int]
    new: int
    answer: asyncio.Future[list[int]]


def make_app(
    generate: Callable[[Sequence[Sequence[int]], int], list[list[int]]], decode: Callable[[list[int]], str], batch: int
) -> Starlette:
    """Makes the application; `generate` gives so many tokens after each of up to `batch` prompts."""
    queue: asyncio.Queue[Waiting] = asyncio.Queue()

    async def complete(request: Request) -> Response:
        asked = await request.json()
        waiting = Waiting(asked["prompt"], asked["max_tokens"], asyncio.get_running_loop().create_future())
        queue.put_nowait(waiting)
        ids = await waiting.answer
        choice = {"index": 0, "text": decode(ids), "finish_reason": "length", "logprobs": None}
        usage = {"prompt_tokens": len(waiting.prompt), "completion_tokens": len(ids)}
        return JSONResponse({"object": "text_completion", "choices": [choice], "usage": usage})

    async def answer_batches() -> None:
        while True:
            taken = [await queue.get()]
            if batch > 1:
                await asyncio.sleep(WINDOW)
            while len(taken) < batch and not queue.empty():
                taken.append(queue.get_nowait())
            longest = max(waiting.new for waiting in taken)
            drawn = await asyncio.to_thread(generate, [waiting.prompt for waiting in taken], longest)
            for waiting, ids in zip(taken, drawn, strict=True):
                waiting.answer.set_result(ids[: waiting.new])

    async def report_health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    @contextlib.asynccontextmanager
    async def live(app: Starlette) -> AsyncIterator[None]:
        answering = asyncio.create_task(answer_batches())
        yield
        answering.cancel()

    routes = [Route("/v1/completions", complete, methods=["POST"]), Route("/health", report_health)]
    return Starlette(routes=routes, lifespan=live)


def main() -> None:
    """Serves a checkpoint until it is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory")
    parser.add_argument("--batch", type=int, default=1, help="requests that are answered together")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    model = transformers.AutoModelForCausalLM.from_pretrained(arguments.directory, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.directory)

    def generate(prompts: Sequence[Sequence[int]], new: int) -> list[list[int]]:
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        options = {"do_sample": False, "pad_token_id": 0, "eos_token_id": -1}
        with torch.inference_mode():
            return model.generate(ids, attention_mask=mask, max_new_tokens=new, **options)[:, longest:].tolist()

    def decode(ids: list[int]) -> str:
        return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    app = make_app(generate, decode, arguments.batch)
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
