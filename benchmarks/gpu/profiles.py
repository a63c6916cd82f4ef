"""Where a device's time goes: the costliest operations of one call, by JAX's own profiler."""

import collections
import itertools
import pathlib
import re
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.profiler import ProfileData

_HOLDERS = ("while", "call", "conditional")  # their time is that of the operations in them
_LOOPS = ("while", "body", "closed_call", "checkpoint", "rematted_computation")  # say little in an operation's path


class Cost(NamedTuple):
    """What an operation takes, all its runs together."""

    operation: str  # as the compiled program calls it
    path: str  # where in the traced functions it comes from; "" where the compiler does not say
    seconds: float


def costs(work: Callable[[], Any], program: str = "") -> list[Cost]:
    """The operations of the device during `work`, which waits for its results, costliest first.

    `program` is the text of what it runs, `compiled.as_text()`, in which the paths are looked up.

    Raises RuntimeError, naming what there is, if the profile holds no operations.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory, profiler_options=options):
            work()
        (file,) = pathlib.Path(directory).rglob("*.xplane.pb")
        spent = nanoseconds(ProfileData.from_file(str(file)))
    named = dict(re.findall(r'^\s*(?:ROOT )?%?([\w.-]+) = .*op_name="([^"]*)"', program, re.MULTILINE))
    return [Cost(name, _short(named.get(name, "")), took / 1e9) for name, took in spent.most_common()]


def nanoseconds(profile: Any) -> collections.Counter[str]:
    """Nanoseconds by operation, of a `jax.profiler.ProfileData` or what looks like one.

    A GPU has a plane of its own, whose lines are its streams; what other lines it has sum these up. A CPU's operations
    lie on lines of the host's threads, each with the name of its operation, and loops around what is in them.

    Raises RuntimeError, naming planes and lines, if there are none.
    """
    lines = [(plane.name, line) for plane in profile.planes for line in plane.lines]
    streams = [line for plane, line in lines if plane.startswith("/device:") and line.name.startswith("Stream")]
    spent = collections.Counter()
    for event in itertools.chain(*(line.events for line in streams or (line for _, line in lines))):
        operation = dict(event.stats).get("hlo_op", "")
        held = not operation or operation.split(".")[0] in _HOLDERS
        if streams or not held:  # what a stream ran is an operation, whatever it was run for
            spent[event.name if held else operation] += event.duration_ns
    if not spent.total():
        there = ", ".join(sorted({f"{plane} ({line.name})" for plane, line in lines})) or "nothing"
        raise RuntimeError(f"expected operations of a device in the profile, found {there}")
    return spent


def _short(path: str) -> str:
    """A path such as "jit(update)/while/body/transpose(jvp())/dot_general" without its loops."""
    return "/".join(part for part in path.split("/") if part not in _LOOPS)
