"""Eight virtual CPU devices and quick compilation for every test, set before JAX starts; how properties are tried."""

import os
import pathlib
import signal

import hypothesis
import jax

from cmpo.cli import command
from cmpo.training import build
from tests.builders import runs

# Tests compile a hundred small programs and run each a few times: optimizing them costs more than it gains.
QUICK = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
if jax.__version_info__ < (0, 11):  # a later XLA need not know it, and refuses what it does not know
    QUICK.append("--xla_cpu_use_fusion_emitters=false")
given = os.environ.get("XLA_FLAGS", "").split()  # of a worker or a program that a test starts: these already
os.environ["XLA_FLAGS"] = " ".join(dict.fromkeys([*given, *QUICK]))
command.be_patient()
jax.config.update("jax_num_cpu_devices", 8)
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"  # of workers and programs: XLA's errors are shown as they come, no warnings
# Most runs compile what another has compiled. All workers, the programs that tests start, and the next run of the suite
# share one place.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    kept = {
        "jax_compilation_cache_dir": str(pathlib.Path(__file__).parents[1] / ".cache" / "tests"),
        "jax_persistent_cache_min_compile_time_secs": 0.05,
    }
    for name, value in kept.items():
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)
# Whole runs take two devices, for half the time, but where a test says otherwise; tests of meshes take all.
build.make_mesh = runs.mesh_maker(2)
# A shell that starts the suite in its background has Ctrl-C ignored, and tests that press it would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The same examples in every run, so that a suite that passed passes; no stop-watch on examples. New ones come with
# --hypothesis-profile=100k, which is for a person to read.
hypothesis.settings.register_profile("same", deadline=None, derandomize=True)
hypothesis.settings.register_profile("100k", deadline=None, max_examples=100_000)
hypothesis.settings.load_profile("same")

LONG = (
    "main_test",
    "resuming_test",
    "update_step_test",
    "processes_test",
    "transfer_test",
    "prefetch_test",
    "evaluate_test",
    "engine_test",
    "slots_test",
)


def pytest_collection_modifyitems(items):
    """The longest files begin first, so that no worker is left alone with one of them in the end."""
    items.sort(key=lambda item: item.path.stem not in LONG)
