"""Opens the source of a run's tasks, on every process."""

from ml_collections import ConfigDict

from cmpo.distributed import processes
from rollouts import domains
from rollouts.domain import TaskSource


def open_source(config: ConfigDict) -> TaskSource:
    """The source that config.data names; what it needs on disk is prepared by the first process.

    Raises FileNotFoundError or ValueError, naming the field, for a file that is missing, damaged or something else.
    """
    domain, opened = domains.load(config), []
    prepared = processes.run_once(lambda: domain.prepare_tasks(config.data))

    def open_tasks() -> None:
        opened.append(domain.open_tasks(config.data, config.train.seed, prepared))

    processes.run_everywhere(open_tasks)  # where one cannot, none goes on
    return opened[0]
