"""How an update grows: with tokens, layers, a dialogue's length, devices and processes; time, memory, compilation.

    .venv/bin/python -m benchmarks.scaling [--json=FILE]

One update by `cmpo.training.update_step.make_update` (hidden 128, vocabulary 2,048, float32; 4 layers and 8 rows of 512
tokens where nothing else is said), each in processes of its own: once to compile, then REPEATS times, of which the
median counts. Memory is the highest resident one of a process, less what it held before the first update. `growth` is
time per unit of work, against the smallest: 1 is linear. Virtual devices and processes share the same cores, and the
work stays the same: what is seen there is what dividing it costs.
"""

import argparse
import functools
import json
import os
import pathlib
import resource
import socket
import statistics
import subprocess
import sys
import time

from benchmarks import contest

SHAPE = {"vocab_size": 2048, "hidden_size": 128, "intermediate_size": 384, "num_heads": 4, "num_kv_heads": 2}
USUAL = {"rows": 8, "length": 512, "layers": 4, "devices": 1, "processes": 1}
SWEEPS = {
    "rows": (4, 8, 16, 32),
    "layers": (2, 4, 8, 16),
    "length": (256, 512, 1024, 2048),
    "devices": (1, 2, 4, 8),
    "processes": (1, 2),
}
WORK = {"rows", "layers", "length"}  # what makes more of it
REPEATS = 5


def measure(rows: int, length: int, layers: int, devices: int, processes: int) -> dict[str, float]:
    """Runs in a process of its own."""
    import jax

    jax.config.update("jax_num_cpu_devices", devices)

    import numpy as np
    import optax

    from cmpo.algorithms.algorithm import Rows, Signals
    from cmpo.algorithms.clipped import clipped_loss
    from cmpo.distributed import processes as joined
    from cmpo.distributed import sharding
    from cmpo.run.train_state import begin_training
    from cmpo.training import update_step
    from models import qwen2

    joined.join_processes()
    config = qwen2.Qwen2Config(num_layers=layers, max_positions=4096, **SHAPE)
    mesh = sharding.make_mesh()
    params = jax.device_put(qwen2.init(config, jax.random.key(0)), sharding.find_shardings(mesh, qwen2.shapes(config)))
    optimizer = optax.adamw(1e-4)
    loss = functools.partial(clipped_loss, clip_low=0.2, clip_high=0.2, kl_weight=0.0)
    update = update_step.make_update(config, mesh, optimizer, loss)
    tokens = np.random.default_rng(0).integers(0, SHAPE["vocab_size"], (rows, length)).astype(np.int32)
    zeros = np.zeros(tokens.shape, np.float32)
    packed = Rows(
        tokens=tokens,
        positions=np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape),
        segment_ids=np.ones_like(tokens),
        mask=np.broadcast_to(np.arange(length) >= length // 2, tokens.shape),
        sampled_logprobs=zeros,
        turns=np.zeros_like(tokens),
    )
    packed, signals = sharding.place_rows(mesh, (packed, Signals(zeros + 1, zeros)), 1)
    held = contest.resident()
    policy = jax.jit(functools.partial(begin_training, optimizer))(params)
    state, seconds = [policy, update_step.WITHOUT_HEAD], []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        *state, _ = jax.block_until_ready(update(*state, {}, packed, signals))
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - held
    usual = statistics.median(seconds[1:])
    return {"seconds": usual, "compile": seconds[0] - usual, "peak": peak}


def run(setting: dict[str, int]) -> dict[str, float]:
    """One measurement: of process 0, where there are several."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = []
    for number in range(setting["processes"]):
        joined = {}
        if setting["processes"] > 1:
            joined = {
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_COORDINATOR_BIND_ADDRESS": address,
                "JAX_NUM_PROCESSES": str(setting["processes"]),
                "JAX_PROCESS_ID": str(number),
            }
        command = [sys.executable, "-m", "benchmarks.scaling", f"--only={json.dumps(setting)}"]
        started.append(subprocess.Popen(command, env=os.environ | joined, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        sys.exit(f"{setting} failed")
    return json.loads(outputs[0].splitlines()[-1])


def main() -> None:
    """Prints the tables; with --json, writes them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures there")
    parser.add_argument("--only", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(**arguments.only)))
        return
    records = []
    for name, values in SWEEPS.items():
        print(f"\n| {name} | seconds | growth | peak memory, MB | first update beyond the others, s |")
        print("|---:|---:|---:|---:|---:|", flush=True)
        first = None
        for value in values:
            found = run(USUAL | {name: value})
            first = first or found
            growth = found["seconds"] / first["seconds"] / (value / values[0] if name in WORK else 1)
            peak, compilation = f"{found['peak'] / 1e6:.0f}", f"{found['compile']:.1f}"
            print(f"| {value} | {found['seconds']:.2f} | {growth:.2f} | {peak} | {compilation} |", flush=True)
            compared = {"ours": found["seconds"], "peer": first["seconds"], "peer_name": f"{name} {values[0]}"}
            note = f"peak {peak} MB, compilation {compilation} s"
            figures = {**compared, "ratio": 1 / growth, "unit": "s", "note": note}
            records.append({"what": f"update, {name} {value}", **figures})
    contest.write(arguments.json, records)


if __name__ == "__main__":
    main()
