"""What one GPU makes of updates, decoding and a whole step, beside its own ceilings: a table, within eight minutes.

    pip install -e '.[cuda13]'                             # or cuda12
    python -m benchmarks.gpu [--json=FILE] [--part=NAME[,NAME]] [--minutes=8]

Weights are random, in Qwen2.5's shapes: nothing is downloaded, and no other project is needed. Where packages cannot
be installed and JAX, Flax, optax, orbax, chex, tokenizers, httpx and msgpack are there, what is still wanted is pure
Python: ml-collections, starlette, and sniffio. PARTS are in the order in which they are wanted;
docs/gpu.md says what they mean.

Each part has a process of its own, on the first GPU (or the first of CUDA_VISIBLE_DEVICES): one that runs out of memory
costs the others nothing, and the peak of memory is its own. A part that fails is named with its error, one that is not
done when the minutes are over likewise, and the exit status is then 1. FILE is written whole after each figure. What is
compiled is kept in ~/.cache/cmpo: a second run goes further in the same time.
"""

import argparse
import contextlib
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from benchmarks import contest
from benchmarks.gpu import device, drawing, learning, playing
from benchmarks.gpu.device import Record, Sizes
from cmpo.cli import command
from cmpo.training import memory_plan

PARTS: dict[str, Callable[[Sizes], Iterator[Record]]] = {  # what is wanted most comes first
    "ceilings": device.ceilings,
    "update-1.5b": functools.partial(learning.update, "1.5b"),
    "decode-1.5b": functools.partial(drawing.decode, "1.5b"),
    "step-1.5b": functools.partial(playing.rl_step, "1.5b"),
    "gap-0.5b": functools.partial(drawing.gap, "0.5b"),
    "update-0.5b": functools.partial(learning.update, "0.5b"),
    "update-7b": functools.partial(learning.update, "7b", **{"model.lora_rank": 32}),
    "decode-7b": functools.partial(drawing.decode, "7b"),
}
"""Name -> what yields its records."""

HEADS = ("what", "ours", "unit", "beside", "ratio", "note")


def run(names: Iterable[str], measure: Callable[[str], Iterable[Record]], path: pathlib.Path | None) -> list[str]:
    """Prints what `measure` yields for each part, and writes it to `path` each time; returns the parts that failed."""
    records, failed = [], []
    print(f"| {' | '.join(HEADS)} |\n|---|---:|---|---:|---:|---|", flush=True)
    for name in names:
        for record in measure(name):
            records.append(record)
            contest.write(path, records)
            print(line(record), flush=True)
            if record["ours"] is None:
                failed.append(name)
    return failed


def line(record: Record) -> str:
    """A record as a row of the table."""
    if record["ours"] is None:
        return f"| {record['what']} | - | | | | {record['note']} |"
    beside = f"{record['peer']:.4g} ({record['peer_name']})"
    cells = record["what"], f"{record['ours']:.4g}", record["unit"], beside, f"{record['ratio']:.3g}", record["note"]
    return f"| {' | '.join(cells)} |"


def failure(name: str, reason: str, on: str) -> Record:
    """The record of a part that failed, in a line."""
    reason = " ".join(reason.split())[:500]
    return dict.fromkeys(("ours", "peer", "ratio")) | {
        "what": name,
        "peer_name": "",
        "unit": "",
        "device": on,
        "note": f"failed: {reason}",
    }


def guarded(name: str, sizes: Sizes) -> Iterator[Record]:
    """What the part yields and, where it fails, the record of that, last."""
    try:
        yield from PARTS[name](sizes)
    except Exception as error:  # of whatever kind: the others' figures are worth having
        yield failure(name, f"{type(error).__name__}: {error}", device.accelerator().device_kind)


def apart(name: str, arguments: Sequence[str], until: float) -> Iterator[Record]:
    """What the program `arguments` prints, a record a line; it is killed at the time `until` (of time.monotonic).

    A record of failure comes last where it was killed, or ended without one and with another exit status than 0.
    """
    left, on = until - time.monotonic(), "?"
    if left <= 0:
        yield failure(name, "not begun, the time was over", on)
        return
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=said, text=True, env=environment()) as process:
            timer = threading.Timer(left, process.kill)
            timer.start()
            try:
                for text in process.stdout:
                    record = json.loads(text)
                    on = record["device"]
                    yield record
                process.wait()
            finally:
                timer.cancel()
                process.kill()  # whoever reads no further does not leave it on the device
        if process.returncode:
            said.seek(0)
            last = said.read().strip().splitlines()[-1:] or ["nothing said"]
            over = "the time was over" if time.monotonic() >= until else f"exit status {process.returncode}: {last[0]}"
            yield failure(name, over, on)


def environment() -> dict[str, str]:
    """What JAX is told: one GPU, and as much of its memory as a plan may fill, instead of three quarters."""
    told = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]}
    if "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:  # the older name; both at once are an error
        told["XLA_CLIENT_MEM_FRACTION"] = os.environ.get("XLA_CLIENT_MEM_FRACTION", str(memory_plan.USABLE))
    return os.environ | told


def parts(text: str) -> list[str]:
    """The names in "NAME,NAME"."""
    names = text.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(PARTS)}, got {unknown[0]!r}")
    return names


def main() -> None:
    """Runs the parts, each in a process of its own, or, with --only, one of them in this one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures there")
    parser.add_argument("--part", type=parts, default=list(PARTS), help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all of it; what is not done then is left")
    parser.add_argument("--only", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        if device.accelerator().platform == "cpu":
            sys.exit("expected a GPU, and JAX sees none: is jax[cuda13] or jax[cuda12] installed?")
        command.keep_programs()
        with contextlib.redirect_stdout(sys.stderr):  # what others print is no record
            for record in guarded(arguments.only, Sizes()):
                print(json.dumps(record), file=sys.__stdout__, flush=True)
        return
    until = time.monotonic() + 60 * arguments.minutes

    def measure(name: str) -> Iterator[Record]:
        return apart(name, [sys.executable, "-m", "benchmarks.gpu", "--only", name], until)

    if failed := run(arguments.part, measure, arguments.json):
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
