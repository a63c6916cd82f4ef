"""Joins several processes into one run by JAX's own runtime, where the environment says so.

Every process runs the same program on the same data. Only dialogues are divided among them, and only process 0 writes
text.
"""

import os
import pickle
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

T = TypeVar("T")

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_LAUNCHERS = {  # number of processes -> number on this host; JAX finds out the rest
    "SLURM_STEP_NUM_TASKS": "SLURM_STEP_TASKS_PER_NODE",
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_LOCAL_SIZE",
}


def join_processes(environment: Mapping[str, str] = os.environ) -> None:
    """Joins the other processes of this run. Call it before the first use of a device. A single process does nothing.

    Reads JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID, or what Slurm's srun
    and Open MPI's mpirun set. A process that is alone on its host takes all devices there; where a launcher starts
    several processes on a host, each takes one device.

    Raises:
      ValueError: if only some of the three are set, or one is not a number.
    """
    given = [name for name in VARIABLES if environment.get(name)]
    if given and len(given) < len(VARIABLES):
        raise ValueError(f"several processes need {', '.join(VARIABLES)}; only {', '.join(given)} is set")
    if given:
        address, count, number = (environment[name] for name in VARIABLES)
        if not (count.isdigit() and number.isdigit() and int(number) < int(count)):
            raise ValueError(f"expected {VARIABLES[2]} below {VARIABLES[1]}, got {number} of {count}")
        jax.distributed.initialize(address, int(count), int(number))
        return
    for total, on_host in _LAUNCHERS.items():
        if int(environment.get(total, 1)) > 1:
            alone = re.fullmatch(r"1(\(x\d+\))?", environment.get(on_host, ""))
            # JAX's default under a launcher is one device for each process, even for the only one on its host.
            jax.distributed.initialize(local_device_ids=[] if alone else None)
            return


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def run_everywhere(work: Callable[[], T]) -> list[T]:
    """Does `work` on every process; each gets all results, in the order of the processes.

    What `work` raises on one process is raised on all, so that none waits for a process that has ended.
    """
    if jax.process_count() == 1:
        return [work()]
    try:
        result, error = work(), None
    except Exception as caught:
        result, error = None, caught
    outcomes = _gather_parts((result, error))
    for _, error in outcomes:
        if error is not None:
            raise error
    return [result for result, _ in outcomes]


def run_once(work: Callable[[], T]) -> T:
    """Does `work` on process 0; every process gets its result, or its error."""
    return run_everywhere(lambda: work() if is_first() else None)[0]


def _gather_parts(part: T) -> list[T]:
    data = np.frombuffer(pickle.dumps(part), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(data)]))[:, 0]
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(data)] = data
    parts = multihost_utils.process_allgather(padded)
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(parts, sizes, strict=True)]
