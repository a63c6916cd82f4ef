"""Two processes over loopback are one run: the same dialogues, parameters and files as one process makes."""

import os
import re
import shutil
import socket
import subprocess
import sys

import chex
import jax
import numpy as np
import pytest

from cmpo import main
from cmpo.distributed import processes
from cmpo.run.json_lines import read_lines
from cmpo.run.log import read_metrics
from tests.builders.runs import ROOT, tiny

CHANGES = {"mesh.data": 2, "mesh.fsdp": -1, "train.learning_rate": 1e-3}
CHANGES |= {"train.tokens_every": 4, "train.weight_decay": 100.0}  # decay moves a policy whose dialogues are all alike

PROGRAM = """
import os, signal, sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
from cmpo import main
from cmpo.distributed import processes
from tests.builders import runs
from tests.cmpo.distributed import processes_test
processes.join_processes()
assert jax.process_count() == 2 and jax.device_count() == 4
step, stop_in = main.Trainer.rl_step, sys.argv[2]
def rl_step(self, state):
    if stop_in == str(jax.process_index()):
        os.kill(os.getpid(), signal.SIGTERM)
    return step(self, state)
main.Trainer.rl_step = rl_step
state = main.train(runs.tiny(**processes_test.CHANGES), __import__("pathlib").Path(sys.argv[1]))
print("at step", int(state.step))
"""


FAILING = """
def work():
    if jax.process_index() == 1:
        raise ValueError("only here")
main.Trainer.rl_step = lambda self, state: processes.run_everywhere(work)
processes_test.CHANGES["train.sft_steps"] = 0
"""


def free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def two(*arguments, program=PROGRAM):
    """Runs `program` in two processes, joined by our variables; see `together`."""
    address = free_address()
    named = [dict(zip(processes.VARIABLES, (address, "2", str(number)), strict=True)) for number in range(2)]
    return together(program, [{"JAX_COORDINATOR_BIND_ADDRESS": address, **names} for names in named], *arguments)


def together(program, environments, *arguments):
    """Runs `program` once for each of `environments`; returns exit status, output and errors of each."""
    inherited = {name: value for name, value in os.environ.items() if name not in processes.VARIABLES}
    inherited |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            env=inherited | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for environment in environments
    ]
    try:
        ended = [process.communicate(timeout=600) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, *output) for process, output in zip(started, ended, strict=True)]


def transcripts(workdir):
    """What was said; the log-probabilities beside it differ by rounding."""
    files = sorted((workdir / "transcripts").iterdir())
    rounded = r'"mean_logprob": [-.e\d]+|"token_(logprobs|ratios|advantages)": \[[^\]]*\]'
    return {path.name: re.sub(rounded, "", path.read_text()) for path in files}


def columns_of_tokens(workdir, name):
    """A column of the tokens of the last step, one array of all turns."""
    rows = read_lines(workdir / "transcripts" / "step_000004.jsonl")
    return np.concatenate([turn[name] for row in rows if not row["failure"] for turn in row["turns"]])


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same run in this process alone, never interrupted."""
    workdir = tmp_path_factory.mktemp("alone")
    return workdir, main.train(tiny(**CHANGES), workdir)


def test_two_processes_train_stop_resume_and_restore_into_one(alone, tmp_path):
    workdir = tmp_path / "two"
    for code, out, err in two(workdir, 1):  # process 1 is told to stop, amid its dialogues; both do before the update
        assert code == 0 and "at step 2" in out, err
    shutil.copytree(workdir, tmp_path / "one")
    first, second = two(workdir, "nobody")
    assert first[0] == second[0] == 0 and "at step 4" in first[1] and "at step 4" in second[1], first[2] + second[2]
    assert "report" not in second[1] and "4 of 4 steps done" in first[1] and "4 of 4" not in second[1]
    resumed = main.train(tiny(**CHANGES), tmp_path / "one")

    expected_dir, expected = alone
    assert transcripts(workdir) == transcripts(tmp_path / "one") == transcripts(expected_dir)
    assert [record["step"] for record in read_metrics(workdir)] == [1, 2, 3, 4]
    for name, rounding in (("token_logprobs", 0.011), ("token_ratios", 0.0021)):
        kept, *others = (columns_of_tokens(path, name) for path in (expected_dir, workdir, tmp_path / "one"))
        for other in others:
            np.testing.assert_allclose(other, kept, atol=rounding)
    assert np.abs(kept - 1).max() > 0.005  # the update moved what the tokens of all processes are likely to be
    restored = main.train(tiny(**CHANGES), workdir)  # is done: restores what the two processes saved
    for state in (resumed, restored):
        got, want = jax.device_get((state, expected))
        # Keys' biases have next to no gradient, of which AdamW makes steps all the same: rounding is magnified there.
        for weights in zip(*((run.policy.params, run.reference) for run in (got, want)), strict=True):
            biases = [tree["layers"]["attention"]["k"].pop("bias") for tree in weights]
            np.testing.assert_allclose(*biases, rtol=1e-4, atol=1e-5)
        chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-6)


def test_an_error_in_one_process_ends_both(tmp_path):
    """The endpoint fails for everybody; the error is the same, and nobody is left waiting."""
    program = PROGRAM.replace("state = main.train", FAILING + "state = main.train")
    ended = two(tmp_path, "nobody", program=program)
    assert all(code == 1 and "ValueError: only here" in err for code, _, err in ended)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"JAX_NUM_PROCESSES": "2"}, "several processes need .* only JAX_NUM_PROCESSES is set"),
        (dict(zip(processes.VARIABLES, ("x:1", "2", "2"), strict=True)), "expected JAX_PROCESS_ID below JAX_NUM_PROC"),
        (dict(zip(processes.VARIABLES, ("x:1", "two", "0"), strict=True)), "got 0 of two"),
    ],
)
def test_half_an_environment_is_refused(environment, message):
    with pytest.raises(ValueError, match=message):
        processes.join_processes(environment)


SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}


@pytest.mark.parametrize(
    ("environment", "devices"),
    [
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "1(x2)"}, []),  # all
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "2"}, None),  # one each, says JAX
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, []),
        ({"OMPI_COMM_WORLD_SIZE": "16", "OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, None),
    ],
)
def test_the_only_process_of_a_host_takes_all_its_devices(environment, devices, monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: calls.append(options))
    processes.join_processes(environment)
    assert calls == [{"local_device_ids": devices}]


def test_slurms_variables_join_two_processes():
    """Through JAX's own reading of them, with the job's first node standing for loopback."""
    program = """
import jax
from cmpo.distributed import processes
processes.join_processes()
print(jax.process_index(), jax.process_count(), processes.run_everywhere(jax.process_index))
"""
    host, port = (address := free_address()).split(":")
    slurm = SLURM | {"SLURM_STEP_NODELIST": host, "SLURM_STEP_TASKS_PER_NODE": "2"}
    slurm |= {"JAX_COORDINATOR_PORT": port, "JAX_COORDINATOR_BIND_ADDRESS": address}
    ended = together(program, [slurm | dict.fromkeys(("SLURM_PROCID", "SLURM_LOCALID"), str(n)) for n in range(2)])
    assert [out.splitlines()[-1] for _, out, _ in ended] == ["0 2 [0, 1]", "1 2 [0, 1]"], ended


def test_alone_nothing_is_started():
    processes.join_processes({"SLURM_STEP_NUM_TASKS": "1"})
    assert jax.process_count() == 1 and processes.is_first()
    assert processes.run_everywhere(lambda: 7) == [7] and processes.run_once(lambda: 8) == 8
