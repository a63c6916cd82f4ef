"""Lets a person play one side: ``python -m cmpo.play --config=configs/fds.py --role=customer --agent=generous``.

With ``--role=customer`` you are the user of the agent that --agent names (see `cmpo.cli.agents`; a trained one needs
--workdir). With ``--role=agent`` you serve the config's user. The judge's verdict on each turn of the agent is shown.
A command plays one dialogue about the next held-out task and keeps it below --out (runs/play), as a run keeps its
transcripts. Ctrl-D or Ctrl-C ends the dialogue; it is then kept as one that failed because the person left.
"""

import asyncio
import contextlib
import pathlib
import signal
from collections.abc import Callable, Sequence

from absl import flags
from ml_collections import ConfigDict

from cmpo.cli import agents, command, terminal
from cmpo.evaluation.summary import describe_worth
from cmpo.run.log import RunLog
from cmpo.training import collecting, tasks
from cmpo.training.clients import Clients, make_clients
from rollouts import domains, play
from rollouts.agents.person import PersonAsUser, Verdicts, mend_text
from rollouts.domain import Domain
from rollouts.seeds import fold
from rollouts.types import Dialogue, DialogueError, Message, Sample, Task

_ROLE = flags.DEFINE_enum("role", "customer", ["customer", "agent"], "Who you are.")

Read = Callable[[str], str]  # shows a prompt and returns a line; EOFError or KeyboardInterrupt: the person left
Show = Callable[[str], None]


class Keyboard:
    """Reads what a person in `role`, "user" or "agent", says."""

    def __init__(self, domain: Domain, role: str, read: Read, show: Show):
        self._domain, self._role, self._read, self._show = domain, role, read, show

    def read_words(self, before: Sequence[str] = ()) -> str:
        """Returns what the person says next, after the turns `before`. Raises DialogueError("left") if they left."""
        while True:
            try:
                line = mend_text(self._read("you> "))
            except (EOFError, KeyboardInterrupt):
                raise DialogueError("left", "the person at the keyboard left") from None
            try:
                if words := self._domain.read_typed(self._role, line, before):
                    return words
            except ValueError as error:
                self._show(str(error))


class AgentAtKeyboard:
    """A person as the agent, and as the session of the one dialogue."""

    def __init__(self, domain: Domain, read: Read, show: Show, verdicts: "Verdicts"):
        self._keyboard = Keyboard(domain, "agent", read, show)
        self._help, self._show, self._verdicts = domain.show_help("agent"), show, verdicts
        self._written: list[str] = []

    async def open(self, task: Task, seed: int) -> "AgentAtKeyboard":
        """Shows what the agent is told first."""
        told = "\n\n".join(message.content for message in task.opening)
        self._show(f"{told}\n\n{self._help}\n")
        return self

    async def reply(self, messages: Sequence[Message], seed: int) -> Sample:
        """Shows what the user said and returns what the person answers."""
        await self._verdicts.wait_for_turns(len(self._written))
        self._show(f"customer> {messages[-1].content}")
        self._written.append(self._keyboard.read_words(self._written))
        return Sample(self._written[-1])

    def close(self) -> None:
        """Does nothing: a person holds nothing."""


def play_with_person(
    config: ConfigDict,
    clients: Clients,
    role: str,
    served_by: collecting.Agents | None,
    task: Task,
    seed: int,
    read: Read,
    show: Show,
) -> Dialogue:
    """Plays one dialogue with a person in `role`; `served_by` is the agent of a person who is the customer."""
    domain = domains.load(config)

    async def play_dialogue() -> Dialogue:
        async with contextlib.AsyncExitStack() as stack:
            judge = await stack.enter_async_context(clients["judge"])
            verdicts = Verdicts(judge, lambda turn, answer: show(f"judge> {domain.show_verdict(answer)}"))
            if role == "agent":
                user = await stack.enter_async_context(clients["user"])
                agent = AgentAtKeyboard(domain, read, show, verdicts)
            else:
                user = _seat_user(domain, read, show, verdicts)
                agent = await stack.enter_async_context(served_by.open())
            episodes = domain.episodes(config, {"user": user, "judge": verdicts})
            return await play.play_dialogue(agent, episodes, task, index=0, seed=seed)

    return asyncio.run(play_dialogue())


def _seat_user(domain: Domain, read: Read, show: Show, verdicts: Verdicts) -> PersonAsUser:
    """Seats a person as the user, who gets the verdict on what the agent said before the next word."""
    keyboard = Keyboard(domain, "user", read, show)

    async def hear_agent(words: str, answered: int) -> None:
        show(f"agent> {words}")
        await verdicts.wait_for_turns(answered)

    async def read_words() -> str:
        return keyboard.read_words()

    return PersonAsUser(
        tell=lambda told: show(f"{told}\n\n{domain.show_help('user')}\n"), hear=hear_agent, read=read_words
    )


def run() -> None:
    """Plays the next task with whom the flags name, and keeps the transcript."""
    config, role, out = command.CONFIG.value, _ROLE.value, pathlib.Path(command.OUT.value or "runs/play")
    domain, clients = domains.load(config), make_clients(config)
    if missing := {"user", "judge"} - clients.keys():
        raise ValueError(f"config.domain: expected one with a user and a judge to play with, found no {min(missing)}")
    served_by = agents.load(config, command.WORKDIR.value).opened if role == "customer" else None
    done = max((int(path.stem.removeprefix("step_")) for path in out.glob("transcripts/step_*.jsonl")), default=0)
    task = tasks.open_source(config).held_out(done + 1, config.eval.seed)[done]
    signal.signal(signal.SIGINT, terminal.raise_interrupt)
    try:
        seed = fold(config.eval.seed, "play", done)
        dialogue = play_with_person(config, clients, role, served_by, task, seed, input, terminal.show_line)
    except KeyboardInterrupt:  # while an endpoint was waited for
        print("\nended; nothing was kept")
        return
    print(f"\n{_describe_ending(domain, dialogue)}")
    with RunLog(out, domain.costs) as log:
        print(f"kept in {log.write_transcripts(done + 1, [dialogue])}")


def _describe_ending(domain: Domain, dialogue: Dialogue) -> str:
    if dialogue.failure:
        return f"failed ({dialogue.failure}): {dialogue.failure_message}"
    lines = [f"customer> {dialogue.last_words}"] if _ROLE.value == "agent" and dialogue.last_words else []
    return "\n".join([*lines, f"{dialogue.end.replace('_', ' ')}: {describe_worth(domain, dialogue)}"])


if __name__ == "__main__":
    command.run(run, required=["config"])
