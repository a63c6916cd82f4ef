"""FDS as a domain; see `rollouts.domain.Domain`."""

import hashlib
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from rollouts.domain import EVERYWHERE, Bound, Cost, Domain, Effect, Episodes, Measure, Shown, TaskSource, choose_costs
from rollouts.domains.fds import faults as faulty
from rollouts.domains.fds import generator, rules, turn_format
from rollouts.domains.fds import judge as judging
from rollouts.domains.fds.embedded import oracle
from rollouts.domains.fds.embedded.planning import Knows
from rollouts.domains.fds.episode import Table, take_turn
from rollouts.domains.fds.gym_agents import OracleAgent, ReaderAgent, VariedAgent
from rollouts.domains.fds.judge import Evaluation
from rollouts.domains.fds.rubrics import PRINCIPLES, PROCESS
from rollouts.domains.fds.scenario import DEMANDS, LEVELS, Scenario, read_description, write_items
from rollouts.domains.fds.schema import FdsSettings
from rollouts.domains.fds.scripted import HABITS, ScriptedAgent, decline_voucher
from rollouts.domains.fds.shift import NO_SHIFT, Shift, parse_shift
from rollouts.endpoints.settings import EMBEDDED
from rollouts.play import Agent
from rollouts.types import Dialogue

MAX_TURNS = 9
"""Turns that the frontier of the embedded gym needs: its best policies took 5 at most, in 1,280 dialogues."""

_VOUCHER = "/voucher"  # begins a line of a person who plays the agent


class FdsDomain(Domain):
    """Disputes about food deliveries: customers to satisfy, vouchers to be sparing with."""

    turn_format, settings = turn_format, FdsSettings
    endpoints = ("user", "judge")
    panel = "User satisfaction (1 to 5)"
    scripted = ("oracle", "reader", "varied", *HABITS)
    breaches = rules.FORMAT_ERRORS
    objective = "satisfaction"
    measures = {
        "satisfaction": Measure("satisfaction, 1 to 5", 1, 2),
        "finish_rate": EVERYWHERE["finish_rate"],
        "voucher_rate": Measure("vouchers, %", 100, 1),
        "process_reward": EVERYWHERE["process_reward"],
        "communication": Measure("communication, 0 to 28", 1, 2),
        "logic": Measure("logic, 0 to 12", 1, 2),
        "compensation": Measure("compensation, 0 to 6", 1, 2),
        **{name: EVERYWHERE[name] for name in ("turns", "tokens", "failure_rate")},
    }
    groups = {"level": range(1, len(LEVELS) + 1), "demand": DEMANDS}
    shift = "data.shift"
    patterns = {"admission of fault": faulty.ADMISSION}
    faults = tuple(faulty.FAULTS)

    def __init__(self, costs: tuple[Cost, ...]):
        self.costs = costs
        self.scores = {"satisfaction": lambda dialogue: max(dialogue.outcome, 0.0)}  # 0 where it was forfeited
        if rules.COSTS[0] not in costs:  # vouchers have no budget then, but are measured all the same
            self.scores["voucher_rate"] = lambda dialogue: float(
                any(turn.notes["action"] == "voucher" for turn in dialogue.turns)
            )

    def prepare_tasks(self, data: Mapping[str, Any]) -> pathlib.Path | None:
        """See Domain."""
        if data["endless"] and not data["path"]:
            return None
        from rollouts.domains.fds import tfds_dataset  # takes half a second, and few runs need it

        return tfds_dataset.prepare_records(data["difficulty"], data["path"], data["dir"])

    def open_tasks(self, data: Mapping[str, Any], seed: int, prepared: pathlib.Path | None) -> TaskSource:
        """See Domain. Deals from the endless generator, or from fixed records, epoch after epoch."""
        shift = parse_shift(data["shift"])
        if prepared is None:
            return Generated(data["difficulty"], seed, shift)
        from rollouts.domains.fds import tfds_dataset

        return tfds_dataset.Recorded(prepared, seed, shift)

    def episodes(self, config: Mapping[str, Any], chats: Mapping[str, Any]) -> Episodes:
        """See Domain."""
        return Table(
            chats["user"],
            chats["judge"],
            max_turns=config.episode.max_turns,
            farewell=config.episode.farewell,
            format_outcome=config.episode.format_outcome,
            judge_weights={name: config.judge.weights[name] for name in PRINCIPLES},
            votes=config.judge.votes,
            costs=self.costs,
        ).episodes

    async def evaluate(
        self, config: Mapping[str, Any], judge: Any, dialogue: Dialogue, *, seed: int
    ) -> Mapping[str, Evaluation]:
        """See Domain."""
        return await judging.evaluate_dialogue(judge, dialogue, seed=seed, votes=config.judge.votes)

    def scripted_agent(self, config: Mapping[str, Any], name: str, budget: float | None = None) -> Agent:
        """See Domain. Oracle and reader are the best agents of the embedded gym with a voucher for a share `budget`.

        The oracle knows the customer, the reader what messages tell.
        """
        difficulty = config.data.difficulty
        if name in HABITS:
            return ScriptedAgent(name)
        if name not in ("oracle", "reader"):
            return VariedAgent(difficulty)
        if budget is None or not 0 <= budget <= 1:
            raise ValueError(f"--budget: expected a share of customers from 0 to 1, got {budget}")
        if name == "oracle":
            return OracleAgent(oracle.price_for(budget, difficulty, knows="all"))
        return ReaderAgent(oracle.price_for(budget, difficulty), difficulty)

    def decline_action(self, text: str, seed: int) -> str:
        """See Domain. The words are the scripted agents', for a voucher."""
        return decline_voucher(text, seed)

    def find_bound(self, config: Mapping[str, Any]) -> Bound | None:
        """See Domain. It is known for the embedded user, scenarios of the generator, and enough turns."""
        user, data, episode = (config[section] for section in ("user", "data", "episode"))
        dealt = not data["path"] and (data["difficulty"], "test") in generator.LEVEL_COUNTS
        known = user["url"] == EMBEDDED and dealt and episode["max_turns"] >= MAX_TURNS
        return self.bound_agents(data["difficulty"]) if known else None

    def bound_agents(self, difficulty: str, *, knows: Knows = "messages") -> Bound:
        """Returns the frontier of the embedded gym, over the generator's customers of `difficulty`.

        It is that of agents which read the messages, or of who knows all about the customer. No shift of words or
        facts moves it: who calls, and why, stays the same.
        """
        frontier = oracle.compute_frontier(difficulty, knows=knows)
        title, voucher = f"The embedded gym, difficulty {difficulty}", rules.COSTS[0]
        label = {"messages": "frontier (reads the messages)", "all": "frontier (knows the customer)"}[knows]
        return Bound(title, voucher, self.objective, self.panel, frontier.rates, frontier.satisfaction, label)

    def embedded(self) -> Any:
        """See Domain."""
        from rollouts.domains.fds.embedded.app import app  # real endpoints need no gym

        return app

    def show_task(self, description: Mapping[str, Any]) -> list[str]:
        """See Domain."""
        scenario = read_description(description)
        order, level = scenario.order, LEVELS[scenario.persona.level - 1]
        claim = {True: "backed", False: "contradicted", None: "untouched"}[order.supported]
        return [
            f"{order.complaint} (tag: {order.tag}): {write_items(order.items)}. Claim {claim} by the record: "
            f"{order.record.text or 'nothing'}.",
            f"{level} customer, {scenario.demand.replace('_', ' ')}, "
            f"{'honest' if scenario.honest else 'not honest'}; a voucher is worth {scenario.worth / 10:.1f} points",
        ]

    def show_end(self, end: str, outcome: float) -> tuple[str, str]:
        """See Domain."""
        tone = "good" if outcome >= 4 else "bad" if outcome < 2.5 else "fair"
        return f"{end.replace('_', ' ')} {outcome:g}/5", tone

    def show_turn(self, notes: Mapping[str, Any]) -> Shown:
        """See Domain."""
        actions = {"voucher": ("voucher", "cost"), "chat": ("chat", "plain")}
        tones = {0: "bad", 0.5: "fair", 1: "good"}
        scores = [(f"{name} {score:g}", tones.get(score, "plain")) for name, score in notes["scores"].items()]
        badges = [actions.get(notes["action"], ("format error", "bad")), *scores]
        return Shown(notes["response"], notes["think"], badges, notes["reason"])

    def find_faults(self, description: Mapping[str, Any], turns: Sequence[Mapping[str, Any]]) -> list[list[str]]:
        """See Domain. In older transcripts, which do not say how turns were read, nothing is found."""
        return [faulty.name_faults(turn.get("events", ())) for turn in turns]

    def view_output(self, text: str) -> tuple[str, dict[str, Any]]:
        """See Domain. Of a turn that breaches the format, nothing is seen: it may be all thoughts."""
        try:
            reply = turn_format.parse(text)
        except turn_format.MalformedTurn:
            return "", {"action": None}
        return turn_format.hear(reply.response), {"action": reply.action}

    def judge_scores(self, notes: Mapping[str, Any]) -> Mapping[str, float]:
        """See Domain."""
        return notes.get("scores", {})

    def read_turn(self, text: str, before: Sequence[str] = (), *, truncated: bool = False) -> Effect:
        """See Domain."""
        state = rules.State()
        for said in before:
            state = rules.agent_step(state, said, truncated=False).state
        return take_turn(self.costs, state, text, truncated=truncated)[1]

    def show_help(self, role: str) -> str:
        """See Domain."""
        if role == "agent":
            return f"You answer the customer. Begin a line with {_VOUCHER} to give the voucher with it."
        return "You write to the support. End your last message with [end:1] (displeased) to [end:5], or with [quit]."

    def read_typed(self, role: str, line: str, before: Sequence[str] = ()) -> str:
        """See Domain. The agent's line becomes a turn in the turn format."""
        text = turn_format.clean_text(line)
        if role == "user" or not text:
            return text
        gives, words = text.startswith(_VOUCHER), text.removeprefix(_VOUCHER).strip()
        if gives and any(turn_format.parse(turn).action == "voucher" for turn in before):
            raise ValueError("There is one voucher in a conversation, and it was given.")
        if not words:
            raise ValueError(f"Say something with it: {_VOUCHER} A voucher was sent to you.")
        return turn_format.render_reply(turn_format.Reply("", words, "voucher" if gives else "chat"))

    def endings(self) -> list[tuple[str, str]]:
        """See Domain."""
        return [*((str(rating), f"[end:{rating}]") for rating in range(1, 6)), ("quit", "[quit]")]

    def show_verdict(self, answer: str) -> str:
        """See Domain. An answer that cannot be read is shown as it is."""
        if not (notes := self.note_verdict(answer)):
            return answer
        scores = ", ".join(f"{name} {score:g}" for name, score in notes["scores"].items())
        return f"{scores}: {notes['reason']}"

    def note_verdict(self, answer: str) -> dict[str, Any]:
        """See Domain."""
        try:
            verdict = PROCESS.read_answer(answer)
        except ValueError:
            return {}
        return {"scores": verdict.scores, "reason": verdict.reason}

    def show_worth(self, record: Mapping[str, Any]) -> str:
        """See Domain."""
        voucher = "one voucher" if record["voucher_rate"] else "no voucher"
        return f"satisfaction {record['satisfaction']:g} of 5, {voucher}"

    def prompts(self) -> dict[str, str]:
        """See Domain."""
        return generator.prompt_hashes()

    def digest(self, tasks: Sequence[Scenario]) -> str:
        """See Domain."""
        return hashlib.sha256(repr([(task, generator.user_prompt(task)) for task in tasks]).encode()).hexdigest()


class Generated:
    """The gym's own generator, as a `rollouts.domain.TaskSource`; held-out scenarios are shifted by `shift`."""

    def __init__(self, difficulty: str, seed: int, shift: Shift = NO_SHIFT):
        next(generator.deal_scenarios(seed, difficulty=difficulty))  # an unknown difficulty is reported now, not later
        self._difficulty, self._seed, self._shift = difficulty, seed, shift

    def train(self, cursor: int, count: int) -> list[Scenario]:
        """See TaskSource."""
        stream = generator.deal_scenarios(self._seed, difficulty=self._difficulty, start=cursor)
        return list(itertools.islice(stream, count))

    def held_out(self, count: int, seed: int) -> list[Scenario]:
        """See TaskSource."""
        options = {"difficulty": self._difficulty, "split": "test", "shift": self._shift}
        return list(itertools.islice(generator.deal_scenarios(seed, **options), count))


def make(constrained: Sequence[str]) -> FdsDomain:
    """Returns the domain with these costs constrained; by default, vouchers. Raises ValueError for an unknown name."""
    return FdsDomain(choose_costs(rules.COSTS, constrained))
