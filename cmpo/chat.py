"""Talks to an agent in the terminal: ``python -m cmpo.chat --workdir=runs/fds``, or ``--url=http://127.0.0.1:8000/v1``.

The conversation is free: no task comes to an end, and nobody judges (``python -m cmpo.play`` plays one that is judged).
With --workdir the agent that --agent names, by default the trained policy, answers from this process. It is told what
the agent of held-out task number --scenario is told, or --system. With --url a server of the OpenAI protocol answers
(--model: which of its models; --agent_api_key_env: its key). What is shown of an answer is its thought, what is said,
and the action; then what was spent of the budget so far.

/new begins another conversation, /system TEXT one with another system text; /help, /quit; Ctrl-D ends.
"""

import asyncio
import contextlib
import pathlib
import signal
from collections.abc import AsyncIterator, Callable

import jax
import pydantic
from absl import flags
from ml_collections import ConfigDict

from cmpo.algorithms.budgets import budgets_of
from cmpo.cli import agents, command, remote, terminal
from cmpo.run.workdir import load_config
from cmpo.training import tasks
from rollouts import domains
from rollouts.agents.conversation import AgentAtUrl, AgentHere, ChatTask, Offer, Partner, Spending
from rollouts.agents.person import mend_text
from rollouts.endpoints import streaming
from rollouts.types import DialogueError

_URL = flags.DEFINE_string("url", None, "Base URL of a server of the OpenAI protocol, in place of --workdir.")
_MODEL = flags.DEFINE_string("model", None, "Its model; default: the first that it lists.")
_SYSTEM = flags.DEFINE_string("system", None, "What the agent is told first; default: as in --scenario.")
_SCENARIO = flags.DEFINE_integer("scenario", 0, "Number of the held-out task of the system text.", lower_bound=0)

Read = Callable[[str], str]  # shows a prompt and returns a line; EOFError or KeyboardInterrupt: the person left
Write = Callable[[str], None]  # shows text, without a line's end

HELP = """/new            begins another conversation
/system TEXT    begins another with this system text; /system alone: with none
/help           shows this
/quit           ends, as Ctrl-D does
"""


async def chat(partner: Partner, read: Read, write: Write) -> None:
    """Lets a person talk to `partner` until they leave."""
    system = None
    await partner.begin(system)
    while True:
        try:
            line = mend_text(read("you> ")).strip()
        except (EOFError, KeyboardInterrupt):
            write("\n")
            return
        name, _, rest = line.partition(" ")
        if name == "/quit":
            return
        if name in ("/new", "/system"):
            wanted = system if name == "/new" else rest.strip()
            try:
                await partner.begin(wanted)
            except ValueError as error:
                write(f"error> {error}\n")
                continue
            system = wanted
            write("note> another conversation\n")
        elif line.startswith("/"):
            write(HELP if line == "/help" else f"note> no such command: {line}; /help shows them\n")
        elif line:
            await _show_answer(partner, line, write)


async def _show_answer(partner: Partner, words: str, write: Write) -> None:
    """Shows an answer as it is written, each part on lines of its own."""
    part = None
    try:
        async for piece in partner.answer(words):
            if piece.part != part:
                write(f"{'' if part is None else chr(10)}{piece.part}> ")
                part = piece.part
            write(piece.text)
    except (DialogueError, ValueError) as error:
        write(f"{'' if part is None else chr(10)}error> {error}\n")
        return
    write(f"\nspent> {partner.spending.describe() or 'nothing'}\n")


@contextlib.asynccontextmanager
async def open_agent(
    config: ConfigDict, served_by: agents.Named, place: str, system: str | None, scenario: int
) -> AsyncIterator[tuple[Partner, str]]:
    """Opens an agent of the run in `place`, and says who it is."""
    domain = domains.load(config)
    scripted = served_by.name in domain.scripted
    if system is not None and scripted:
        raise ValueError(f"--system: expected none, as the scripted agent {served_by.name!r} follows a task")
    task = tasks.open_source(config).held_out(scenario + 1, config.eval.seed)[scenario]
    about = "; ".join(domain.show_task(task.description)) if system is None else "a system text of your own"
    step = "" if served_by.step is None else f", step {served_by.step}"
    title = f"{place}{step}: {served_by.name}. About {about}. A customer hears what comes after agent> only."
    budgets = dict(zip((cost.name for cost in domain.costs), budgets_of(domain, config), strict=True))
    spending = Spending({cost.name: cost.total for cost in domain.costs}, budgets)
    told = task if system is None else ChatTask("chat", system)
    async with served_by.opened.open() as agent:
        partner = AgentHere(domain, agent, told, spending, seed=config.eval.seed, scripted=scripted)
        try:
            yield partner, title
        finally:
            partner.close()


@contextlib.asynccontextmanager
async def open_url(
    url: str, model: str | None, system: str | None, scenario: int, api_key_env: str
) -> AsyncIterator[tuple[Partner, str]]:
    """Opens a model of a server, and says who it is. Raises DialogueError if it cannot be asked."""
    async with streaming.open_http(url, api_key_env) as http:
        try:
            served = [entry["id"] for entry in (await streaming.ask_object(http, "GET", "models"))["data"]]
        except (KeyError, TypeError):
            raise ValueError(f"--url: {http.base_url}models: expected a list of models, got something else") from None
        if model is None and not served:
            raise ValueError(f"--model: expected the name of a model, as {http.base_url} lists none")
        try:  # what only a server of ours says
            about = http.base_url.copy_with(path="/page/about")
            offer = Offer.model_validate(await streaming.ask_object(http, "GET", about))
        except (DialogueError, pydantic.ValidationError):
            offer = Offer()
        if offer.customer_view:
            heard = "It sends what a customer hears, and the action; thoughts stay there."
        else:
            heard = "It sends thoughts along, as far as there are any."
        if system is None:
            system = offer.tasks[scenario].opening if scenario < len(offer.tasks) else ""
        partner = AgentAtUrl(http, model or served[0], system, offer)
        title = f" ({offer.title})" if offer.title else ""
        yield partner, f"{model or served[0]} at {http.base_url}{title}. {heard}"


def run() -> None:
    """Talks to the agent that the flags name."""
    if command.CONFIG.value is not None:
        raise ValueError("--config: expected none, as the run in --workdir has its own")
    if (command.WORKDIR.value is None) == (_URL.value is None):
        raise ValueError("--workdir, --url: expected one of them: a run's directory, or a server's base URL")
    if command.WORKDIR.value is not None:
        config = load_config(pathlib.Path(command.WORKDIR.value))
        command.prepare_run(config)
        config.engine.update({"slots": jax.local_device_count(), "rows": 0})  # there is one conversation
        served_by = agents.load(config, command.WORKDIR.value)
        opening = open_agent(config, served_by, command.WORKDIR.value, _SYSTEM.value, _SCENARIO.value)
    else:
        key = remote.API_KEY_ENV.value or ""
        opening = open_url(_URL.value, _MODEL.value, _SYSTEM.value, _SCENARIO.value, key)

    async def talk() -> None:
        async with opening as (partner, title):
            terminal.write(f"{title}\n/help shows the commands; Ctrl-D ends.\n")
            await chat(partner, input, terminal.write)

    signal.signal(signal.SIGINT, terminal.raise_interrupt)
    try:
        asyncio.run(talk())
    except DialogueError as error:
        raise ValueError(f"--url: {error}") from None
    except KeyboardInterrupt:  # while an answer was waited for
        terminal.write("\n")


if __name__ == "__main__":
    command.run(run)
