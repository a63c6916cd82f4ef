"""Plays the dialogues that a run learns from, on a separate thread."""

import time
from typing import NamedTuple

from ml_collections import ConfigDict

from cmpo.run.interrupt import Interrupts
from cmpo.run.journal import Journal
from cmpo.run.train_state import TrainState
from cmpo.run.workdir import hash_config
from cmpo.training import build, collecting
from cmpo.training.clients import Clients, sum_spending
from cmpo.training.learner import Learner
from cmpo.training.prefetch import Ahead
from cmpo.training.tasks import count_shown
from models import qwen2
from models.tokenizer import Tokenizer
from rollouts.domain import TaskSource
from rollouts.seeds import fold
from rollouts.types import Dialogue


class PlayedBatch(NamedTuple):
    """A batch of dialogues."""

    dialogues: list[Dialogue]
    spent: dict[str, float]  # by the run so far, when the batch ended
    seconds: float


class Player:
    """The sampler, the endpoints and the journal of a run's dialogues."""

    def __init__(
        self,
        config: ConfigDict,
        source: TaskSource,
        tokenizer: Tokenizer,
        learner: Learner,
        clients: Clients,
        journal: Journal,
        interrupts: Interrupts,
        ahead: Ahead[PlayedBatch],
    ):
        self.config, self.source, self.tokenizer, self.learner = config, source, tokenizer, learner
        self.clients, self.journal, self.interrupts, self.ahead = clients, journal, interrupts, ahead
        self.settings = hash_config(config)
        self.engine = build.make_engine(config, learner.model, learner.mesh, tokenizer, turn_taking=learner.turn_taking)

    def start_batch(self, state: TrainState, weights: qwen2.Params, *, later: int = 0) -> None:
        """Begins to play the batch of the step after `state`, or `later` steps after that one, with `weights`."""
        config, number = self.config, int(state.step) + 1 + later
        count = config.train.scenarios_per_step
        tasks = self.source.train(count_shown(config) + int(state.cursor) + later * count, count)
        published, checksums = self.learner.publish_weights(weights)
        self.engine.load(published, version=number)
        agents = collecting.serve_policy(self.engine, self.tokenizer, version=number)

        def play_batch() -> PlayedBatch:
            started = time.perf_counter()
            with self.journal.open_page(number, {"weights": checksums, "settings": self.settings}) as page:
                dialogues = collecting.collect_dialogues(
                    config,
                    agents,
                    tasks,
                    repeats=config.algo.group_size,
                    seed=fold(int(state.seed), "rl", number - 1),
                    clients=self.clients,
                    page=page,
                    stopping=lambda: self.interrupts.received or self.ahead.stopping,
                )
            return PlayedBatch(dialogues, sum_spending(self.clients), time.perf_counter() - started)

        self.ahead.start(play_batch)

    @property
    def busy(self) -> bool:
        """Whether a batch was started and not yet taken."""
        return self.ahead.busy

    def take_batch(self) -> PlayedBatch:
        """Waits for the batch that was started and returns it, or raises the error that ended it."""
        return self.ahead.result()
