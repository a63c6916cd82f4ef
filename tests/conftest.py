"""Eight virtual CPU devices and quick compilation for every test, set before JAX starts; no stop-watch on examples."""

import os

import hypothesis
import jax

# Tests compile a hundred small programs and run each a few times: optimizing them costs more than it gains.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
jax.config.update("jax_num_cpu_devices", 8)
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.register_profile("100k", deadline=None, max_examples=100_000)  # --hypothesis-profile=100k
hypothesis.settings.load_profile("any machine")
