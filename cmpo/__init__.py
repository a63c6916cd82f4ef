"""CMPO: the method, its training loop, and everything that looks at a run."""
