"""One trainer a workdir, however it ends; and the second Ctrl-C."""

import os
import signal
import subprocess
import sys

import pytest

from cmpo.run.lock import WorkdirInUse, hold_lock
from tests.builders.runs import ROOT


def test_a_second_one_is_refused_and_told_who_is_first(tmp_path):
    with hold_lock(tmp_path):
        told = pytest.raises(WorkdirInUse, match=f"is in use by process {os.getpid()} on .*another --workdir")
        with told, hold_lock(tmp_path):
            pass
    with hold_lock(tmp_path):  # free again
        pass


def test_a_workdir_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    told = pytest.raises(OSError, match="cannot write .*/file/run/lock: Not a directory")
    with told, hold_lock(tmp_path / "file" / "run"):
        pass


INTERRUPTED = """
import os, signal
from cmpo.run.interrupt import Interrupts
with Interrupts() as interrupts:
    assert not interrupts.received
    os.kill(os.getpid(), signal.SIGTERM)
    assert interrupts.received
    print("saving", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("still there", flush=True)
"""


def test_the_second_signal_ends_at_once():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "saving\n")
    assert "once more to stop without saving" in done.stderr
