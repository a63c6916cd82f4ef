"""A person at the table: ``python -m cmpo.play --config=configs/fds.py --role=customer --agent=generous``.

With ``--role=customer`` you complain to the agent that --agent names (see `cmpo.cli.agents`; a trained one needs
--workdir) and rate it; with ``--role=agent`` you serve the config's user. The judge's verdict on each turn of the agent
is shown. A command plays one dialogue, each time of the next held-out scenario, and keeps it below --out (runs/play) as
a run keeps its transcripts. Ctrl-D or Ctrl-C ends it; it is then kept as a dialogue that failed because somebody left.
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
from rollouts import domains, play
from rollouts.domain import Domain
from rollouts.domains.fds import rubrics, rules, turn_format
from rollouts.domains.fds.scenario import Scenario
from rollouts.seeds import fold
from rollouts.types import Dialogue, DialogueError, Message, Sample

_ROLE = flags.DEFINE_enum("role", "customer", ["customer", "agent"], "Who you are.")

_AS_CUSTOMER = "You write to the support. End your last message with [end:1] (displeased) to [end:5], or with [quit]."
_AS_AGENT = "You answer the customer. Begin a line with /voucher to give the voucher with it."
_VOUCHER = "/voucher"

Read = Callable[[str], str]  # shows a prompt and returns a line; EOFError or KeyboardInterrupt: the person left
Show = Callable[[str], None]


class Keyboard:
    """What a person says, line by line."""

    def __init__(self, read: Read):
        self._read = read

    def line(self, prompt: str) -> str:
        """The next line that says something. Raises DialogueError("left") if there is none."""
        try:
            while not (text := turn_format.clean(self._read(prompt))):
                pass
        except (EOFError, KeyboardInterrupt):
            raise DialogueError("left", "the person at the keyboard left") from None
        return text


class PersonAsCustomer:
    """A person as the user of `episode.Table`."""

    def __init__(self, keyboard: Keyboard, show: Show, verdicts: "Verdicts"):
        self._keyboard, self._show, self._verdicts = keyboard, show, verdicts

    async def chat(self, messages: Sequence[Message], *, seed: int) -> str:
        """Shows what the agent said, and the verdict on it, and returns what the person answers."""
        if messages[-1].content == rules.BEGIN:
            self._show(f"{messages[0].content}\n\n{_AS_CUSTOMER}\n")
        else:
            self._show(f"agent> {messages[-1].content}")
            await self._verdicts.arrived(sum(message.role == "assistant" for message in messages))
        return self._keyboard.line("you> ")


class PersonAsAgent:
    """A person as the agent, and as the session of the one dialogue."""

    def __init__(self, keyboard: Keyboard, show: Show, verdicts: "Verdicts"):
        self._keyboard, self._show, self._verdicts = keyboard, show, verdicts
        self._turns, self._voucher = 0, False

    async def open(self, scenario: Scenario, seed: int) -> "PersonAsAgent":
        """Shows the agent's prompt."""
        self._show(f"{scenario.agent_prompt}\n\n{_AS_AGENT}\n")
        return self

    async def reply(self, messages: Sequence[Message], seed: int) -> Sample:
        """Shows what the customer said and returns what the person answers."""
        await self._verdicts.arrived(self._turns)
        self._show(f"customer> {messages[-1].content}")
        while True:
            text = self._keyboard.line("you> ")
            gives, words = text.startswith(_VOUCHER), text.removeprefix(_VOUCHER).strip()
            if gives and self._voucher:
                self._show("There is one voucher in a conversation, and it was given.")
            elif not words:
                self._show(f"Say something with it: {_VOUCHER} A voucher was sent to you.")
            else:
                break
        self._turns, self._voucher = self._turns + 1, self._voucher or gives
        return Sample(turn_format.render(turn_format.Reply("", words, "voucher" if gives else "chat")))

    def close(self) -> None:
        """Nothing is held."""


class Verdicts:
    """A judge whose verdicts are shown as they arrive."""

    def __init__(self, inner: play.Chat, show: Show):
        self._inner, self._show = inner, show
        self._asked, self._ended, self._under_way = set(), asyncio.Condition(), 0

    async def chat(self, messages: Sequence[Message], *, seed: int, response_format: Mapping) -> str:
        """The judge's answer; one that cannot be read is shown as it is, and asked about again by who reads it."""
        self._asked.add(messages[1].content)  # the conversation up to the turn that is judged
        self._under_way += 1
        try:
            answer = await self._inner.chat(messages, seed=seed, response_format=response_format)
            self._show(f"judge> {_verdict(answer)}")
        finally:
            self._under_way -= 1
            async with self._ended:
                self._ended.notify_all()
        return answer

    async def arrived(self, turns: int) -> None:
        """Waits until the verdicts on so many turns of the agent have been asked for, and are there or have failed."""
        async with self._ended:
            await self._ended.wait_for(lambda: len(self._asked) >= turns and not self._under_way)


def _verdict(answer: str) -> str:
    try:
        verdict = rubrics.PROCESS.read(answer)
    except ValueError:
        return answer
    scores = ", ".join(f"{name} {score:g}" for name, score in verdict.scores.items())
    return f"{scores}: {verdict.reason}"


def sit(
    config: ConfigDict,
    clients: collecting.Clients,
    role: str,
    served_by: collecting.Agents | None,
    scenario: Scenario,
    seed: int,
    read: Read,
    show: Show,
) -> Dialogue:
    """Plays one dialogue with a person in `role`; `served_by` is the agent of a person who is the customer."""
    keyboard = Keyboard(read)

    async def talk() -> Dialogue:
        async with contextlib.AsyncExitStack() as stack:
            verdicts = Verdicts(await stack.enter_async_context(clients["judge"]), show)
            if role == "agent":
                user, agent = await stack.enter_async_context(clients["user"]), PersonAsAgent(keyboard, show, verdicts)
            else:
                user, agent = (
                    PersonAsCustomer(keyboard, show, verdicts),
                    await stack.enter_async_context(served_by.open()),
                )
            chats = {"user": user, "judge": verdicts}
            episodes = domains.load(config).episodes(config, chats)
            return await play.play(agent, episodes, scenario, index=0, seed=seed)

    return asyncio.run(talk())


def run() -> None:
    """Plays the next scenario with whom the flags name, and keeps the transcript."""
    config, role, out = command.CONFIG.value, _ROLE.value, pathlib.Path(command.OUT.value or "runs/play")
    clients = collecting.chat_clients(config)
    served_by = agents.load(config, command.WORKDIR.value).opened if role == "customer" else None
    done = max((int(path.stem.removeprefix("step_")) for path in out.glob("transcripts/step_*.jsonl")), default=0)
    source = tasks.open_source(config)
    scenario = source.held_out(done + 1, config.eval.seed)[done]
    signal.signal(signal.SIGINT, _interrupt)
    try:
        seed = fold(config.eval.seed, "play", done)
        dialogue = sit(config, clients, role, served_by, scenario, seed, input, print)
    except KeyboardInterrupt:  # while an endpoint was waited for
        print("\nended; nothing was kept")
        return
    print(f"\n{_ending(domains.load(config), dialogue)}")
    with RunLog(out, domains.load(config).costs) as log:
        print(f"kept in {log.write_transcripts(done + 1, [dialogue])}")


def _ending(domain: Domain, dialogue: Dialogue) -> str:
    if dialogue.failure:
        return f"failed ({dialogue.failure}): {dialogue.failure_message}"
    record = summarize_batch(domain, [dialogue])
    lines = [f"customer> {dialogue.last_words}"] if _ROLE.value == "agent" and dialogue.last_words else []
    voucher = "one voucher" if record["voucher_rate"] else "no voucher"
    summary = f"satisfaction {record['satisfaction']:g} of 5, {voucher}, process reward {record['process_reward']:.2f}"
    return "\n".join([*lines, f"{dialogue.end.replace('_', ' ')}: {summary}"])


def _interrupt(number, frame) -> None:
    """Python's own handler by another name: asyncio would replace that one, and a line would be read to its end."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    command.run(run, required=["config"])
