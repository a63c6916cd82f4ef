"""What every command shares: the flags that name a run, and foreseeable errors reported in one line."""

import functools
import os
import pathlib
import re
import sys
from collections.abc import Callable, MutableMapping, Sequence

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from cmpo.run import files
from cmpo.training.stops import STOPS
from rollouts.sections import flatten_config

CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, e.g. configs/fds.py:smoke.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.")
OUT = flags.DEFINE_string("out", None, "Path to write to; the documentation of the command says what is written.")

_PATIENCE = "xla_cpu_collective_call_terminate_timeout_seconds"

STOPPED = 130
"""Exit status of a command that was asked to stop before its end, as of a program that Ctrl-C ended."""

FORESEEN = (ValueError, OSError, FloatingPointError, *STOPS)
"""Errors that input, endpoints or numbers cause, and whose message is enough for the user."""


def run(
    work: Callable[..., None], *, required: Sequence[str] = (), takes_arguments: bool = False, of_a_run: bool = True
) -> None:
    """Parses the flags, of which some are `required`, and does `work`. A foreseeable error is one line and status 1.

    With `takes_arguments`, `work` gets the arguments that are no flags; else there must be none. A config that is
    `of_a_run` is checked as such.
    """
    flags.mark_flags_as_required(required)

    def main(line: Sequence[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        try:
            if CONFIG.value is not None and of_a_run:
                prepare_run(CONFIG.value)
            work(*line[1:])
        except FORESEEN as error:
            notes = getattr(error, "__notes__", [])
            sys.exit("error: " + " ".join(" ".join([str(error), *notes]).split()))

    app.run(main, flags_parser=functools.partial(_parse_flags, takes_arguments=takes_arguments))


def prepare_run(config: ConfigDict) -> None:
    """Checks the config, and sets up JAX. A command without a config computes nothing, and starts without JAX.

    A command that finds its config in --workdir calls it itself.
    """
    from cmpo.distributed import processes
    from cmpo.run import schema

    schema.check_config(config)
    be_patient()
    processes.join_processes()
    keep_programs()


def be_patient(environment: MutableMapping[str, str] = os.environ) -> None:
    """Lets CPU devices that compute together wait 15 minutes for each other. Call it before the first use of a device.

    By default XLA aborts the process after a minute, which is too short on a suspended laptop or a busy machine.
    """
    given = environment.get("XLA_FLAGS", "")
    if _PATIENCE not in given:
        environment["XLA_FLAGS"] = f"{given} --{_PATIENCE}=900".strip()


def keep_programs() -> None:
    """Makes JAX keep what it compiles in ~/.cache, or where its settings say: a second start compiles nothing."""
    import jax  # takes half a second, and not every command needs it

    if not jax.config.jax_compilation_cache_dir:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(home, "cmpo")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _parse_flags(
    arguments: Sequence[str], values: flags.FlagValues = flags.FLAGS, *, takes_arguments: bool = False
) -> list[str]:
    try:
        program, *others = values([files.expand_home(argument) for argument in arguments])
        given = values["config"]
        overrides = config_flags.get_override_values(given) if given.present else {}
        if given.present:  # paths in the config file
            texts = {name: x for name, x in flatten_config(given.value.to_dict()).items() if isinstance(x, str)}
            given.value.update_from_flattened_dict({name: files.expand_home(text) for name, text in texts.items()})
    except flags.Error as error:
        text = str(error).strip()
        if "Traceback" in text:  # the config file raised an error: its message is the last line
            text = text.splitlines()[-1]
        if found := re.fullmatch(r"flag --(\w+)=None: .* must have a value other than None\.", text):
            text = f"--{found[1]}: expected a value, got none"
        sys.exit("error: " + " ".join(text.split()))
    except (AttributeError, LookupError, TypeError) as error:  # how ml_collections reports a field that does not exist
        while error.args and isinstance(error.args[0], Exception):
            error = error.args[0]
        sys.exit("error: --config: no such field: " + " ".join(str(error.args[0]).split()))
    except RecursionError:  # absl looks for flags with a similar name
        sys.exit("error: unknown flag, with a name of some thousand letters")
    except (ValueError, OSError, SyntaxError) as error:  # the name or the file is not valid
        sys.exit("error: --config: " + " ".join(str(error).split()))
    if others and not takes_arguments:
        sys.exit(f"error: unexpected argument {others[0]!r}; a setting is written --config.FIELD=VALUE")
    if whole := [name for name, value in overrides.items() if isinstance(value, ConfigDict)]:
        sys.exit(f"error: --config.{whole[0]}: expected one of its fields, as in --config.{whole[0]}.FIELD=VALUE")
    return [program, *others]
