"""A run that the tests of several files look at; they leave it as it is."""

import pytest

from cmpo import main
from tests.builders.runs import tiny


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory):
    """An uninterrupted run: its workdir and its final state."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, main.train(tiny(), workdir)
