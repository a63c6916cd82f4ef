"""Time of one update, beside torch with TRL's loss and Tunix's, and beside what the machine can do.

    python3 -m venv .bench && .bench/bin/pip install -e . -r benchmarks/requirements.txt
    .bench/bin/python -m benchmarks.update [--json=FILE]

Every contender updates the same model (hidden 256, 6 layers, vocabulary 4,096, float32) on the same 32 x 512 tokens,
the second half of which is scored, with AdamW; each in a process of its own, from the same checkpoint: once to compile,
and then REPEATS times, of which the median counts. "6 N T" are six floating-point operations a parameter and token, all
that an update has to compute but for attention; the ceiling is the rate of float32 matrix products, measured before
each contender begins. Gradient norms of the first update are compared: all must have computed the same thing.
"""

import functools
import pathlib
import statistics
import time

from benchmarks import contest, updates
from benchmarks.updates import LENGTH

ROWS, VOCABULARY, REPEATS = 32, 4096, 5


def ceiling(size: int = 2048) -> float:
    """The best rate of float32 matrix products seen, in operations a second."""
    import jax

    product = jax.jit(lambda a, b: a @ b)
    a = jax.random.normal(jax.random.key(0), (size, size))
    product(a, a).block_until_ready()
    return 2 * size**3 / min(contest.seconds(lambda: product(a, a).block_until_ready()) for _ in range(10))


def measure(contender, path: str) -> dict[str, float]:
    """Runs one contender in this process."""
    best, started = ceiling(), time.perf_counter()
    work = contender(path, VOCABULARY, ROWS)
    _, norm = work()
    first = time.perf_counter() - started
    took = statistics.median(contest.seconds(work) for _ in range(REPEATS))
    parameters = sum(file.stat().st_size for file in pathlib.Path(path).glob("*.safetensors")) / 4
    rate = 6 * parameters * ROWS * LENGTH / took
    return {"seconds": took, "first": first, "rate": rate, "ceiling": best, "grad_norm": norm}


CONTENDERS = {name: functools.partial(measure, contender) for name, contender in updates.CONTENDERS.items()}


def main() -> None:
    """Prints the table; with --json, writes it."""
    found, hand_in = contest.run(__doc__, CONTENDERS, VOCABULARY)
    mine, records = found["ours"], []
    note = f"{ROWS} x {LENGTH} tokens, vocabulary {VOCABULARY:,}, hidden 256, 6 layers, float32"

    def record(what: str, peer_name: str, peer: float) -> dict:
        values = {"ours": mine["rate"] / 1e9, "peer": peer / 1e9, "peer_name": peer_name, "ratio": mine["rate"] / peer}
        return {"what": what, **values, "unit": "GFLOP/s", "note": note}

    print(f"An update, {note}\n")
    print("| | tokens/s | ours over it | GFLOP/s (6 N T) | of the ceiling, % | first update, s | gradient norm |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    records.append(record("an update, 6 N T, beside the rate of matrix products", "the machine", mine["ceiling"]))
    for name, result in found.items():
        speed, share = ROWS * LENGTH / result["seconds"], result["rate"] / result["ceiling"]
        row = (
            f"{speed:,.0f}",
            f"{mine['rate'] / result['rate']:.2f}",
            f"{result['rate'] / 1e9:.0f}",
            f"{100 * share:.0f}",
        )
        print(f"| {name} | {' | '.join(row)} | {result['first']:.1f} | {result['grad_norm']:.5f} |")
        if name != "ours":
            records.append(record("an update", name, result["rate"]))
    updates.check(found)
    hand_in(records)


if __name__ == "__main__":
    main()
