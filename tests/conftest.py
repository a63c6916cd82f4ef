"""Eight virtual CPU devices and quick compilation for every test, set before JAX starts; how properties are tried."""

import os

import hypothesis
import jax

# Tests compile a hundred small programs and run each a few times: optimizing them costs more than it gains.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
jax.config.update("jax_num_cpu_devices", 8)
# The same examples in every run, so that a suite that passed passes; no stop-watch on examples. New ones come with
# --hypothesis-profile=100k, which is for a person to read.
hypothesis.settings.register_profile("same", deadline=None, derandomize=True)
hypothesis.settings.register_profile("100k", deadline=None, max_examples=100_000)
hypothesis.settings.load_profile("same")
