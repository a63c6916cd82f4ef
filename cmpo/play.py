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
from collections.abc import Callable, Mapping, Sequence

from absl import flags
from ml_collections import ConfigDict

from cmpo.cli import agents, command
from cmpo.evaluation.summary import summarize_batch
from cmpo.run.log import RunLog
from cmpo.training import collecting, tasks
from cmpo.training.clients import Clients, make_clients
from rollouts import domains, play
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
                line = self._read("you> ")
            except (EOFError, KeyboardInterrupt):
                raise DialogueError("left", "the person at the keyboard left") from None
            try:
                if words := self._domain.read_typed(self._role, line, before):
                    return words
            except ValueError as error:
                self._show(str(error))


class UserAtKeyboard:
    """A person as the user, in place of an endpoint."""

    def __init__(self, domain: Domain, read: Read, show: Show, verdicts: "Verdicts"):
        self._keyboard = Keyboard(domain, "user", read, show)
        self._help, self._show, self._verdicts = domain.show_help("user"), show, verdicts

    async def chat(self, messages: Sequence[Message], *, seed: int) -> str:
        """Shows what the agent said, and the verdict on it, and returns what the person answers."""
        answered = sum(message.role == "assistant" for message in messages)  # the user's own words so far
        if answered:
            self._show(f"agent> {messages[-1].content}")
            await self._verdicts.wait_for_turns(answered)
        else:
            self._show(f"{messages[0].content}\n\n{self._help}\n")
        return self._keyboard.read_words()


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


class Verdicts:
    """A judge whose verdicts are shown as they arrive."""

    def __init__(self, domain: Domain, inner: play.Chat, show: Show):
        self._domain, self._inner, self._show = domain, inner, show
        self._asked, self._ended, self._under_way = set(), asyncio.Condition(), 0

    async def chat(self, messages: Sequence[Message], *, seed: int, response_format: Mapping) -> str:
        """Returns the judge's answer, and shows it. One that cannot be read is shown too, and its reader asks again."""
        self._asked.add(messages[1].content)  # the conversation up to the turn that is judged
        self._under_way += 1
        try:
            answer = await self._inner.chat(messages, seed=seed, response_format=response_format)
            self._show(f"judge> {self._domain.show_verdict(answer)}")
        finally:
            self._under_way -= 1
            async with self._ended:
                self._ended.notify_all()
        return answer

    async def wait_for_turns(self, turns: int) -> None:
        """Waits until the judge was asked about so many turns of the agent, and has answered or failed each time."""
        async with self._ended:
            await self._ended.wait_for(lambda: len(self._asked) >= turns and not self._under_way)


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
            verdicts = Verdicts(domain, await stack.enter_async_context(clients["judge"]), show)
            if role == "agent":
                user = await stack.enter_async_context(clients["user"])
                agent = AgentAtKeyboard(domain, read, show, verdicts)
            else:
                user = UserAtKeyboard(domain, read, show, verdicts)
                agent = await stack.enter_async_context(served_by.open())
            episodes = domain.episodes(config, {"user": user, "judge": verdicts})
            return await play.play_dialogue(agent, episodes, task, index=0, seed=seed)

    return asyncio.run(play_dialogue())


def run() -> None:
    """Plays the next task with whom the flags name, and keeps the transcript."""
    config, role, out = command.CONFIG.value, _ROLE.value, pathlib.Path(command.OUT.value or "runs/play")
    domain, clients = domains.load(config), make_clients(config)
    if missing := {"user", "judge"} - clients.keys():
        raise ValueError(f"config.domain: expected one with a user and a judge to play with, found no {min(missing)}")
    served_by = agents.load(config, command.WORKDIR.value).opened if role == "customer" else None
    done = max((int(path.stem.removeprefix("step_")) for path in out.glob("transcripts/step_*.jsonl")), default=0)
    task = tasks.open_source(config).held_out(done + 1, config.eval.seed)[done]
    signal.signal(signal.SIGINT, _raise_interrupt)
    try:
        seed = fold(config.eval.seed, "play", done)
        dialogue = play_with_person(config, clients, role, served_by, task, seed, input, print)
    except KeyboardInterrupt:  # while an endpoint was waited for
        print("\nended; nothing was kept")
        return
    print(f"\n{_describe_ending(domain, dialogue)}")
    with RunLog(out, domain.costs) as log:
        print(f"kept in {log.write_transcripts(done + 1, [dialogue])}")


def _describe_ending(domain: Domain, dialogue: Dialogue) -> str:
    if dialogue.failure:
        return f"failed ({dialogue.failure}): {dialogue.failure_message}"
    record = summarize_batch(domain, [dialogue])
    lines = [f"customer> {dialogue.last_words}"] if _ROLE.value == "agent" and dialogue.last_words else []
    worth = f"{domain.show_worth(record)}, process reward {record['process_reward']:.2f}"
    return "\n".join([*lines, f"{dialogue.end.replace('_', ' ')}: {worth}"])


def _raise_interrupt(number, frame) -> None:
    """Does what Python's own handler does. asyncio replaces that one, and would then wait for the end of a line."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    command.run(run, required=["config"])
