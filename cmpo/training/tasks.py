"""Opens the source of a run's tasks, on every process."""

from ml_collections import ConfigDict

from cmpo.distributed import processes
from rollouts import domains
from rollouts.domain import TaskSource


def count_shown(config: ConfigDict) -> int:
    """Counts the first tasks of the training stream that phase 1 learns from; phase 2 is dealt those behind them.

    They are as many as demonstrations are played, or, where a file of them is given, as `cmpo.demonstrate` would play.
    """
    return config.sft.dialogues if config.train.sft_steps else 0


def open_source(config: ConfigDict) -> TaskSource:
    """Opens the source that config.data names; the first process prepares its files on disk.

    Raises FileNotFoundError or ValueError, naming the field, for a file that is missing, damaged or of another kind.
    """
    domain, data, opened = domains.load(config), config.get("data", {}), []
    prepared = processes.run_once(lambda: domain.prepare_tasks(data))

    def open_tasks() -> None:
        opened.append(domain.open_tasks(data, config.train.seed, prepared))

    processes.run_everywhere(open_tasks)  # if one process fails, all stop
    return opened[0]
