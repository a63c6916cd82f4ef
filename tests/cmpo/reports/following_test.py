"""A page that follows a training, both as processes of their own: the death of either leaves the other as it was."""

import contextlib
import gzip
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import httpx

from cmpo.run.log import read_metrics
from tests.builders.runs import ROOT

PATIENCE = 900  # seconds for each thing that is waited for: machines may be busy, and a test must not hang

PROGRAM = """
import pathlib, sys, time
from cmpo import main
from tests import conftest
from tests.builders.runs import tiny

workdir, gates = map(pathlib.Path, sys.argv[1:])

def wait_for_gate(step):
    def run_step(self, state):
        gate = gates / str(int(state.step) + 1)
        while not gate.exists():
            time.sleep(0.05)
        return step(self, state)
    return run_step

main.Trainer.sft_step = wait_for_gate(main.Trainer.sft_step)
main.Trainer.rl_step = wait_for_gate(main.Trainer.rl_step)
main.train(tiny(**{"train.sft_steps": 1, "train.rl_steps": 3, "train.checkpoint_every": 1}), workdir)
"""


@contextlib.contextmanager
def started(*arguments):
    """Gives a process, which does not outlive the test."""
    with subprocess.Popen(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(holds, *processes):
    """Waits until something holds; fails if that takes too long, or if one of `processes` ends before."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert all(process.poll() is None for process in processes) and time.monotonic() < deadline
        time.sleep(0.05)


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait(PATIENCE)


def test_a_page_follows_a_training_and_neither_is_harmed_by_the_others_death(tmp_path):
    workdir, gates = tmp_path / "run", tmp_path / "gates"
    gates.mkdir()

    def open_gates(*steps):
        for step in steps:
            (gates / str(step)).touch()

    def count_steps():
        return len(read_metrics(workdir)) if (workdir / "metrics.jsonl").exists() else 0

    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    serve = ("-m", "cmpo.report", f"--workdir={workdir}", "--serve", f"--port={url.rpartition(':')[2]}")
    train = ("-c", PROGRAM, workdir, gates)
    with contextlib.ExitStack() as stack:
        http = stack.enter_context(httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE))

        def shows(step):
            try:
                answer = http.get("/data")
            except httpx.TransportError:  # it has not begun
                return False
            assert answer.status_code == 200
            return answer.json()["runs"][0]["step"] == step

        training = stack.enter_context(started(*train))
        open_gates(1)
        wait_until(lambda: count_steps() == 1, training)
        server = stack.enter_context(started(*serve))
        wait_until(lambda: shows(1), training, server)
        open_gates(2)
        wait_until(lambda: shows(2), training, server)

        kill(training)  # the page stays as it was
        data, chunk = http.get("/data"), http.get("/chunks/0/2")
        assert json.loads(gzip.decompress(chunk.content))[0]["dialogues"] and http.get("/").status_code == 200
        assert http.get("/data", headers={"If-None-Match": data.headers["etag"]}).status_code == 304
        assert shows(2) and server.poll() is None

        training = stack.enter_context(started(*train))  # and follows the same run when it goes on
        open_gates(3)
        wait_until(lambda: shows(3), training, server)

        kill(server)  # the training does not notice
        open_gates(4)
        assert training.wait(PATIENCE) == 0
    assert [record["step"] for record in read_metrics(workdir)] == [1, 2, 3, 4]
    assert (workdir / "report.html").exists() and pathlib.Path(workdir, "checkpoints", "4").is_dir()
