"""A run that the tests of several files look at; they leave it as it is."""

import pytest
from matplotlib.figure import Figure

from cmpo import main
from cmpo.reports import plots
from tests.builders.runs import tiny


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory):
    """An uninterrupted run: its workdir and its final state."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, main.train(tiny(), workdir)


@pytest.fixture(scope="module", autouse=True)
def plain_pages(request):
    """Pages of runs without their curves: drawing them takes a third of a second, and few files look at them."""
    if request.module.__name__.rpartition(".")[2] in ("report_test", "domain_test", "main_test"):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "draw_curves", lambda *_: Figure(figsize=(1, 1)))
        yield
