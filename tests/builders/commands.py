"""Commands as from a shell, but in this process: to start an interpreter for each message takes seconds."""

import contextlib
import importlib.util
import io
import runpy
import sys
import warnings
from typing import NamedTuple
from unittest import mock

from absl import flags
from absl.testing import flagsaver

from tests.builders.runs import ROOT


class Ended(NamedTuple):
    """What is left of a command; named as in `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def run(module, *arguments, folder=ROOT):
    """Runs ``python -m module arguments`` in `folder`.

    An exception that would be a traceback is raised. What was compiled is not kept on disk.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as inside:
        for context in (
            contextlib.chdir(folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.object(sys, "argv", [module, *map(str, arguments)]),
            mock.patch("absl.app.run", _run),
            mock.patch("cmpo.cli.command.keep_programs"),
            warnings.catch_warnings(),
            _own_flags(module),
        ):
            inside.enter_context(context)
        warnings.simplefilter("ignore", RuntimeWarning)  # of runpy: the module was imported before
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as ended:
            code = ended.code
    if isinstance(code, str):
        return Ended(1, out.getvalue(), f"{err.getvalue()}{code}\n")
    return Ended(code or 0, out.getvalue(), err.getvalue())


def _run(main, flags_parser=flags.FLAGS):
    """`absl.app.run` without what it changes in a process for good."""
    sys.exit(main(flags_parser(sys.argv)))


def _find_file(module):
    """The file that ``python -m module`` runs, by which absl knows the flags that it defines."""
    spec = importlib.util.find_spec(module)
    return (importlib.util.find_spec(f"{module}.__main__") if spec.submodule_search_locations else spec).origin


@contextlib.contextmanager
def _own_flags(module):
    """Within, `module` may define its flags once more; after, all are as they were.

    Those of the modules that it imported stay, with their defaults: a second import would not define them again.
    """
    flags_of = flags.FLAGS
    defined = dict(flags_of._flags())
    strict = [flag for flag in defined.values() if not flag.allow_override]
    imported = {}
    try:
        with flagsaver.flagsaver():
            for flag in strict:
                flag.allow_override = True
            try:
                yield
            finally:
                own = {flag.name for flag in flags_of.flags_by_module_dict().get(_find_file(module), ())}
                new = flags_of._flags().keys() - defined.keys() - own
                imported = {name: flags_of[name] for name in new}
    finally:
        flags_of.__dict__["__flags"] = defined | imported
        for flag in imported.values():
            flag.unparse()
        for flag in strict:
            flag.allow_override = False
