"""Makes the runs of a sweep, as many at a time as there are jobs, each as processes of its own."""

import concurrent.futures
import contextlib
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

from cmpo.run import lock
from cmpo.sweeping.plan import PlannedRun, list_arguments

RESULT = "evaluation_policy.json"


class Runner:
    """Runs what is planned in `workdir`: starts/ holds what runs share, runs/ the runs. What is done is not done again.

    Each job has CPUs of its own, as far as there are enough: processes that compute on the same ones wait for each
    other.

    A context manager: on leaving, what is still running is asked to save and stop, and waited for.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        *,
        jobs: int,
        evaluation_seeds: int,
        python: Sequence[str] = (sys.executable, "-m"),
    ):
        self.workdir, self.evaluation_seeds, self._python = workdir, evaluation_seeds, python
        self._pool = concurrent.futures.ThreadPoolExecutor(jobs)
        self._shares: queue.SimpleQueue[set[int]] = queue.SimpleQueue()  # the CPUs of jobs that are not at work
        for share in divide_cpus(jobs):
            self._shares.put(share)
        self._children: set[subprocess.Popen] = set()
        self._guard, self._stopping = threading.Lock(), False

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_):
        with self._guard:
            self._stopping = True
            for child in self._children:
                child.send_signal(signal.SIGTERM)
        self._pool.shutdown(cancel_futures=True)

    def run_all(self, runs: Sequence[PlannedRun]) -> dict[str, str]:
        """Makes all runs, and returns why some failed, by their names: the last line that they said.

        Waits for another sweep in `workdir`, and for runs that a killed one left under way.
        """
        with lock.wait_for_lock(self.workdir, print) as self._held:
            starts: dict[str, list[PlannedRun]] = {}
            for run in runs:
                if run.start and not self.find_directory(run).exists():  # else it has its copy
                    starts.setdefault(run.start, []).append(run)
            failed = _wait_for_each({key: self._pool.submit(self._make_start, some) for key, some in starts.items()})
            able = [run for run in runs if run.start not in failed]
            lost = {run.name: f"its start failed: {failed[run.start]}" for run in runs if run.start in failed}
            return lost | _wait_for_each({run.name: self._pool.submit(self._make_run, run) for run in able})

    def is_done(self, run: PlannedRun) -> bool:
        """Whether a run is trained and evaluated."""
        return (self.find_directory(run) / RESULT).exists()

    def find_directory(self, run: PlannedRun) -> pathlib.Path:
        """The workdir of a run."""
        return self.workdir / "runs" / run.name

    def _make_start(self, runs: Sequence[PlannedRun]) -> str:
        """Trains phase 1 by the settings of the first of `runs` with which that works. Returns why none does, or ""."""
        for run in runs:
            arguments = list_arguments(run, self._find_start(run))
            if not (reason := self._call("cmpo.main", arguments, "--config.train.rl_steps=0")):
                return ""
        return reason

    def _make_run(self, run: PlannedRun) -> str:
        directory = self.find_directory(run)
        if self.is_done(run):
            return ""
        if run.start and not directory.exists():
            partial = directory.with_name(directory.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(
                self._find_start(run), partial, ignore=shutil.ignore_patterns("lock", "report.html", "wandb")
            )
            partial.rename(directory)
        arguments = list_arguments(run, directory)
        return self._call("cmpo.main", arguments) or self._call(
            "cmpo.evaluate", arguments, f"--seeds={self.evaluation_seeds}", f"--out={directory / RESULT}"
        )

    def _find_start(self, run: PlannedRun) -> pathlib.Path:
        return self.workdir / "starts" / run.start[:16]

    def _call(self, module: str, arguments: Sequence[str], *others: str) -> str:
        """Runs a command to its end. Returns the last line of its errors if it failed, else ""."""
        share = self._shares.get()
        try:
            return self._call_on(share, module, arguments, *others)
        finally:
            self._shares.put(share)

    def _call_on(self, share: set[int], module: str, arguments: Sequence[str], *others: str) -> str:
        """Does what `_call` says on a share of the CPUs."""
        with self._guard:
            if self._stopping:
                return "stopped"
            child = subprocess.Popen(
                [*self._python, module, *arguments, *others],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C is the sweep's, which tells its children
                pass_fds=(self._held,),  # so that what outlives this process still holds its lock
            )
            self._children.add(child)
            if share:
                with contextlib.suppress(ProcessLookupError):  # it has ended already
                    os.sched_setaffinity(child.pid, share)  # the threads that it starts have its CPUs
        _, said = child.communicate()
        with self._guard:
            self._children.discard(child)
        if not child.returncode:
            return ""
        lines = said.replace("\r", "\n").strip().splitlines()
        return lines[-1] if lines else f"exit status {child.returncode}"


def divide_cpus(jobs: int) -> list[set[int]]:
    """Divides the CPUs that this process may use into a share for each job.

    Shares are empty, for any CPU, where there are fewer CPUs than jobs or the system cannot bind processes to them.
    """
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return [set(allowed[job::jobs]) if len(allowed) >= jobs else set() for job in range(jobs)]


def _wait_for_each(futures: Mapping[str, concurrent.futures.Future]) -> dict[str, str]:
    """Waits for all, and returns why some failed, by their names."""
    reasons = {name: future.result() for name, future in futures.items()}
    return {name: reason for name, reason in reasons.items() if reason}
