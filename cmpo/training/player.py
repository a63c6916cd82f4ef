"""Plays the dialogues that a run learns from, on a thread of its own."""

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
from models import qwen2
from models.tokenizer import Tokenizer
from rollouts.domain import TaskSource
from rollouts.seeds import fold
from rollouts.types import Dialogue


class PlayedBatch(NamedTuple):
    """A batch of dialogues."""

    dialogues: list[Dialogue]
    spent: dict[str, float]  # by the run, up to its end
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
        self.engine = build.engine(config, learner.model, learner.mesh, tokenizer, turn_taking=learner.turn_taking)

    def start(self, state: TrainState, weights: qwen2.Params, *, later: int = 0) -> None:
        """Begins to play the batch of the step after `state`, or of one `later` than that, with `weights`."""
        config, number = self.config, int(state.step) + 1 + later
        count = config.train.scenarios_per_step
        tasks = self.source.train(int(state.cursor) + later * count, count)
        published, checksums = self.learner.publish(weights)
        self.engine.load(published, version=number)
        agents = collecting.policy_agents(self.engine, self.tokenizer, version=number)

        def play() -> PlayedBatch:
            started = time.perf_counter()
            with self.journal.open_page(number, {"weights": checksums, "settings": self.settings}) as page:
                dialogues = collecting.collect(
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

        self.ahead.start(play)

    @property
    def busy(self) -> bool:
        """Is there a batch that nobody took?"""
        return self.ahead.busy

    def take(self) -> PlayedBatch:
        """Waits for the batch that was begun, or raises what playing it raised."""
        return self.ahead.result()
