"""The suite itself: it ends, and names the test, whatever a test does to its process; commands run twice in one."""

import os
import subprocess
import sys

import pytest

from tests.builders import commands
from tests.builders.runs import ROOT

FATAL = {  # what a test does, and what is to be read of it
    "os.write(2, b'the library says why'); os.abort()": "the library says why",
    "os.kill(os.getpid(), signal.SIGKILL)": "node down: Not properly terminated",
    "ctypes.PyDLL(None).sleep(100)": "Timeout (0:00:01)!",  # hangs in C, and lets no other thread of Python run
}
FILE = """
import ctypes, os, signal
def test_sound():
    pass
def test_fatal():
    {}
"""


@pytest.mark.parametrize("fatal", FATAL)
def test_a_process_that_dies_or_hangs_ends_the_run_and_its_test_is_named(tmp_path, fatal):
    (tmp_path / "some_test.py").write_text(FILE.format(fatal))
    options = ["-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, "-p", "xdist", "-n", "1", "--dist", "loadscope"]
    options += ["-p", "no:cacheprovider", "-o", f"faulthandler_timeout={1 if 'sleep' in fatal else 100}"]
    command = [sys.executable, "-m", "pytest", "-q", *map(str, options), str(tmp_path)]
    quick = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, env=quick, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and FATAL[fatal] in done.stdout + done.stderr
    assert "crashed while running 'some_test.py::test_fatal'" in done.stdout


def test_a_command_that_runs_twice_in_a_process_finds_all_its_flags(tmp_path, monkeypatch):
    flag = "from absl import app, flags\n{} = flags.DEFINE_integer('{}', {}, 'Of a test.')\n"
    (tmp_path / "lamp_flags.py").write_text(flag.format("SHARED", "lamp_height", 1))
    (tmp_path / "lamp.py").write_text(
        flag.format("OWN", "lamp_width", 2)
        + "import lamp_flags\napp.run(lambda _: print(lamp_flags.SHARED.value, OWN.value))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for arguments, printed in (
        (["--lamp_height=5"], "5 2\n"),
        (["--lamp_width=6"], "1 6\n"),
        (["--lamp_height=7"], "7 2\n"),
    ):
        assert commands.run("lamp", *arguments) == (0, printed, "")
