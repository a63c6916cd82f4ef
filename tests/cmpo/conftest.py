"""A run that the tests of several files look at; they leave it as it is."""

import pytest

from cmpo import main
from cmpo.reports import tables
from tests.builders.runs import tiny


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory):
    """An uninterrupted run: its workdir and its final state."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, main.train(tiny(), workdir)


@pytest.fixture(scope="module", autouse=True)
def plain_pages(request):
    """Pages without the best possible beside evaluations: to compute it takes seconds, and few files look at it."""
    if request.module.__name__.rpartition(".")[2] == "run_page_test":
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "describe_evaluations", lambda _: [])
        yield
