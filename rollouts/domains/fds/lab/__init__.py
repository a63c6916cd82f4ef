"""The embedded gym without words, as arrays: its customers, rules, signals and judge inside `jax.jit`."""
