"""Contenders at the same work, each in a process of its own: what benchmarks have in common."""

import argparse
import contextlib
import functools
import importlib.util
import json
import os
import pathlib
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import httpx

from cmpo.run import files

SHAPE = {"hidden_size": 256, "intermediate_size": 768, "num_layers": 6, "num_heads": 8, "num_kv_heads": 2}
"""The model of all of them, float32, with tied embeddings; the vocabulary differs."""


def checkpoint(path: pathlib.Path, vocab_size: int) -> None:
    """Writes random weights in Hugging Face's format."""
    import jax

    from models import hf, qwen2

    config = qwen2.Qwen2Config(vocab_size=vocab_size, max_positions=4096, **SHAPE)
    hf.save(path, config, qwen2.init(config, jax.random.key(0)))


def tunix_model(path: str, vocab_size: int) -> Any:
    """The checkpoint as Tunix loads it; returns the model and its mesh."""
    import jax
    from tunix.models.qwen2 import model, params

    config = model.ModelConfig(
        num_layers=SHAPE["num_layers"],
        vocab_size=vocab_size,
        embed_dim=SHAPE["hidden_size"],
        hidden_dim=SHAPE["intermediate_size"],
        num_heads=SHAPE["num_heads"],
        head_dim=SHAPE["hidden_size"] // SHAPE["num_heads"],
        num_kv_heads=SHAPE["num_kv_heads"],
        rope_theta=1_000_000,
        norm_eps=1e-6,
        use_tied_embedding=True,
    )
    mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    with mesh:
        return params.create_model_from_safe_tensors(str(path), config, mesh), mesh


def run(
    doc: str, contenders: Mapping[str, Callable[[str], dict]], vocab_size: int
) -> tuple[dict[str, dict], Callable[[list[dict]], None]]:
    """What each contender returns for the path of the checkpoint, by name, and where to hand the records for --json.

    The process that plays a single contender prints what it returns, and ends here.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures there")
    parser.add_argument("--only", nargs=2, metavar=("NAME", "CHECKPOINT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        name, path = arguments.only
        print(json.dumps(contenders[name](path)))
        sys.exit()
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "model")
        checkpoint(path, vocab_size)
        for name in contenders:
            command = [sys.executable, *sys.orig_argv[1:3], "--only", name, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
            found[name] = json.loads(done.stdout.splitlines()[-1])

    return found, functools.partial(write, arguments.json)


def name_missing(*modules: str) -> str:
    """Says which of these modules are not installed; "" if all of them are."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


class Server(NamedTuple):
    """A server in a process of its own, on this machine."""

    url: str
    pid: int
    log: pathlib.Path  # what it printed


@contextlib.contextmanager
def serving(command: Callable[[int], Sequence[str]], environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Runs the server that `command` starts at a port, until the block ends. Gives it once its /health answers.

    `environment` is added to this process's. Raises ChildProcessError, with what the server printed, if it does not
    start.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        own = {**os.environ, **(environment or {})}
        process = subprocess.Popen(command(port), stdout=log, stderr=subprocess.STDOUT, env=own)
        try:
            server = Server(f"http://127.0.0.1:{port}", process.pid, pathlib.Path(log.name))
            while not _is_healthy(server.url):
                if process.poll() is not None:
                    said = server.log.read_text()[-2000:].strip()
                    raise ChildProcessError(f"{' '.join(command(port))} did not start:\n{said}")
                time.sleep(0.1)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).is_success
    except httpx.TransportError:
        return False


def write(path: pathlib.Path | None, records: Sequence[Mapping[str, Any]]) -> None:
    """Writes the records of --json, each with this machine as its device; nothing without a path."""
    if path:
        device = {"device": f"{platform.machine()}, {os.cpu_count()} cores"}
        files.replace_file(path, json.dumps([device | record for record in records], indent=2) + "\n")


def seconds(work: Callable[[], Any]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def resident() -> int:
    """Bytes that this process holds now."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
