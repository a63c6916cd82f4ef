"""Peak memory of one update with Qwen2.5's vocabulary, beside torch with TRL's loss and Tunix's.

    python3 -m venv .bench && .bench/bin/pip install -e . -r benchmarks/requirements.txt
    .bench/bin/python -m benchmarks.memory [--json=FILE]

Every contender updates the same model (hidden 256, 6 layers, vocabulary 151,936, float32) on the same 4 x 512 tokens,
the second half of which is scored, with AdamW; each in a process of its own, from the same checkpoint. The figure is
the highest resident memory of the process, less what it held after the same update with a vocabulary of 512: what its
runtime and compiler take is not the update's. The second column leaves out, too, what everybody must hold: parameters,
gradients and two moments, 16 bytes a parameter. Gradient norms are compared: all must have computed the same thing.
"""

import functools
import gc
import pathlib
import resource
import tempfile

from benchmarks import contest, updates
from benchmarks.updates import LENGTH

ROWS, VOCABULARY, SMALL = 4, 151936, 512


def measure(contender, path: str) -> dict[str, float]:
    """Runs one contender in this process."""
    with tempfile.TemporaryDirectory() as directory:
        small = pathlib.Path(directory, "model")
        contest.checkpoint(small, SMALL)
        contender(small, SMALL, ROWS)()
    gc.collect()
    held = contest.resident()
    loss, norm = contender(path, VOCABULARY, ROWS)()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    lasting = 4 * sum(file.stat().st_size for file in pathlib.Path(path).glob("*.safetensors"))  # float32 there
    return {"bytes": peak - held, "beyond": peak - held - lasting, "loss": loss, "grad_norm": norm}


CONTENDERS = {name: functools.partial(measure, contender) for name, contender in updates.CONTENDERS.items()}


def main() -> None:
    """Prints the table; with --json, writes it."""
    found, hand_in = contest.run(__doc__, CONTENDERS, VOCABULARY)
    mine, records = found["ours"], []
    note = f"{ROWS} x {LENGTH} tokens, vocabulary {VOCABULARY:,}, hidden 256, 6 layers, float32"
    print(f"Peak memory of an update, {note}\n")
    print("| | GB | over ours | beyond what lasts, GB | over ours | loss | gradient norm |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, result in found.items():
        row = []
        for what in ("bytes", "beyond"):
            ratio = result[what] / mine[what]
            row += [f"{result[what] / 1e9:.2f}", f"{ratio:.2f}"]
            if name != "ours":
                values = {"ours": mine[what] / 1e9, "peer": result[what] / 1e9, "peer_name": name, "ratio": ratio}
                title = "peak memory of an update" + ("" if what == "bytes" else " beyond 16 bytes a parameter")
                records.append({"what": title, **values, "unit": "GB", "note": note})
        print(f"| {name} | {' | '.join(row)} | {result['loss']:.5f} | {result['grad_norm']:.5f} |")
    updates.check(found)
    hand_in(records)


if __name__ == "__main__":
    main()
