"""Serves a policy behind the OpenAI protocol: ``python -m cmpo.serve --workdir=runs/fds [--port=8000]``.

The model is a run's policy (--workdir; --agents=policy,start serves several of its states under these names), or any
checkpoint in Hugging Face's format (--hf). docs/serving.md says what is answered.
"""

import asyncio
import contextlib
import functools
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from cmpo.cli import command, policies
from cmpo.cli.page import open_page_table
from cmpo.deployment import terms
from cmpo.deployment.ledger import Ledger
from cmpo.distributed import sharding
from cmpo.run import schema
from cmpo.run.workdir import load_config
from cmpo.training import build, model_source
from cmpo.training.clients import make_clients
from models import hf, qwen2
from models import tokenizer as tokenizers
from models.tokenizer import Tokenizer
from rollouts import domains
from rollouts.agents.policy import PolicyAgent
from rollouts.domain import Domain
from rollouts.engine.constraints import Constraints
from rollouts.engine.engine import Engine
from rollouts.engine.sampling import TurnOptions
from rollouts.serving import listening
from rollouts.serving.answering import Read
from rollouts.serving.app import make_app
from rollouts.serving.conversations import Conversations
from rollouts.serving.page_routes import make_page_routes
from rollouts.serving.served import Served

_HF = flags.DEFINE_string("hf", None, "Directory of a model in Hugging Face's format, or its name on the hub.")
_AGENTS = flags.DEFINE_list("agents", ["policy"], "Which states of the run: policy, best, start; each is a model.")
_SLOTS = flags.DEFINE_integer("slots", 16, "Answers that are drawn at a time.", lower_bound=1)
_EXACT = flags.DEFINE_bool(
    "exact", False, "Always compute all slots, so that an answer is the same to the bit among any number of others."
)
_CONTEXT = flags.DEFINE_integer(
    "context_length", 0, "Tokens of a conversation; 0: the run's, or the model's up to 8192."
)
_DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "Of --hf; default: bfloat16 on a GPU, else float32.")
_KEPT = flags.DEFINE_integer("conversations", 1024, "Conversations that are kept for who comes back.", lower_bound=1)
_AGE = flags.DEFINE_float("conversation_seconds", 900.0, "How long each of them is kept.", lower_bound=0.0)
_BUDGET = flags.DEFINE_string("budget", None, "Hold costs at budgets, such as voucher:0.30, and keep a ledger.")
_LAST = flags.DEFINE_integer("window", 1000, "Dialogues that a budget is held over.", lower_bound=1)
_PRICES = flags.DEFINE_string("prices", "action:1", "What a cost, a token and an escalation cost in money.")
_ENFORCE = flags.DEFINE_bool("enforce", False, "Turn down what would bring the window above a budget.")
_LEDGER = flags.DEFINE_string("ledger", None, "File of the ledger; default: ledger.jsonl in --workdir.")
_CUSTOMER = flags.DEFINE_bool(
    "customer_view", False, "Send what a customer would see, the action in a field of its own."
)
_REASONING = flags.DEFINE_bool("reasoning", False, "Send <think>…</think> apart from an answer, as reasoning_content.")

_DEFAULT_PORT = 8000
_FULL = 4  # times the tokens of all slots that the streams of kept conversations may have; the rest is parked
_WINDOW = 0.001  # seconds in which requests that come together join one batch
_LONGEST = 8192  # tokens of a context that nobody asked for


def run() -> None:
    """Loads what the flags name, and serves it until it is interrupted."""
    if bool(command.WORKDIR.value) == bool(_HF.value):
        raise ValueError("expected --workdir=DIR of a run, or --hf=DIR of a model: one of them")
    if not _BUDGET.value and (given := [flag for flag in (_ENFORCE, _LEDGER, _LAST, _PRICES) if flag.present]):
        raise ValueError(f"--{given[0].name}: expected --budget=COST:NUMBER beside it")
    if not any(_AGENTS.value):
        raise ValueError(f"--agents: expected some of {', '.join(policies.TRAINED)}, got none")
    listening.check_flags()
    command.be_patient()
    command.keep_programs()
    config = load_config(pathlib.Path(command.WORKDIR.value)) if command.WORKDIR.value else None
    domain = domains.load(config) if config else None
    if _CUSTOMER.value and _REASONING.value:
        raise ValueError("--reasoning: expected none beside --customer_view, which shows no thoughts")
    if _CUSTOMER.value and domain is None:
        raise ValueError("--customer_view: expected --workdir; of another model nobody knows what a customer sees")
    with contextlib.ExitStack() as stack:
        ledger = stack.enter_context(open_ledger(config)) if _BUDGET.value else None
        make = functools.partial(_make_served, ended=ledger.end if ledger else lambda dialogue: None)
        if config:
            models = open_run(config, _AGENTS.value, functools.partial(make, hear=domain.turn_format.hear))
        else:
            models = [open_checkpoint(_HF.value, make)]
        asyncio.run(serve(config, domain, models, ledger))


async def serve(
    config: ConfigDict | None, domain: Domain | None, models: Sequence[Served], ledger: Ledger | None
) -> None:
    """Serves `models`, and the page with the run's tasks, if there is a run."""
    await warm_up(models)
    async with contextlib.AsyncExitStack() as stack:
        table = None
        if config:
            talkers = {served.name: PolicyAgent(served.engine, served.tokenizer) for served in models}
            offer = {"title": command.WORKDIR.value, "customer_view": _CUSTOMER.value}
            table = await stack.enter_async_context(open_page_table(config, make_clients(config), talkers, **offer))
        view = functools.partial(_view_output, domain) if _CUSTOMER.value else None
        app = make_app(models, overseer=ledger, view=view, reasoning=_REASONING.value, routes=make_page_routes(table))
        names, where = ", ".join(served.name for served in models), listening.name_address(_DEFAULT_PORT)
        print(f"serving {names} at {where}/v1; a page to talk to at {where}", flush=True)
        await listening.serve_app(app, _DEFAULT_PORT)


async def warm_up(models: Sequence[Served]) -> None:
    """Draws tokens with each model, so that what takes seconds to compile is compiled before the first request."""
    for served in models:
        first = np.array([served.tokenizer.im_start])
        for count in served.engine.list_batches():
            async with served.engine:
                sessions = [served.engine.open() for _ in range(count)]
                drawn = (session.generate(first, 0, options=TurnOptions(1)) for session in sessions)
                await asyncio.gather(*drawn)
                for session in sessions:
                    session.close()


def open_ledger(config: ConfigDict | None) -> Ledger:
    """Opens the ledger of --budget. Raises ValueError, naming the flag, or OSError if it cannot be kept."""
    if config is None:
        raise ValueError("--budget: expected --workdir; of another model nobody knows what its answers cost")
    budgets = terms.read_budgets(_BUDGET.value)
    domain = terms.load_domain(config, budgets)
    gains, first = terms.make_controller(config.pid, domain.costs, budgets)
    return Ledger(
        domain,
        pathlib.Path(_LEDGER.value or pathlib.Path(command.WORKDIR.value, "ledger.jsonl")),
        gains=gains,
        initial_lambda=first,
        prices=terms.read_prices(_PRICES.value, domain.costs),
        say=functools.partial(print, file=sys.stderr, flush=True),
        window=_LAST.value,
        enforce=_ENFORCE.value,
    )


def open_run(config: ConfigDict, names: Sequence[str], make: Callable[..., Served]) -> list[Served]:
    """Opens states of the run in --workdir as models of these names.

    Raises FileNotFoundError or ValueError if there is none.
    """
    if unknown := set(names) - set(policies.TRAINED):
        raise ValueError(f"--agents: expected some of {', '.join(policies.TRAINED)}, got {sorted(unknown)[0]!r}")
    layout = {
        "slots": _SLOTS.value,
        "rows": 0,
        "fit": not _EXACT.value,
        "capacity": _CONTEXT.value or config.model.context_length,
        "window": _WINDOW,
    }
    models, workdir = [], pathlib.Path(command.WORKDIR.value)
    for name in dict.fromkeys(names):
        policy = policies.open_policy(config, workdir, start=name == "start", best=name == "best", **layout)
        # A format that sampling cannot breach leaves no room for another one.
        free = not config.engine.grammar
        models.append(make(name, policy.engine, policy.tokenizer, free=free))
    return models


def open_checkpoint(path: str, make: Callable[..., Served]) -> Served:
    """Opens a checkpoint in Hugging Face's format under the name of its directory.

    Raises FileNotFoundError or ValueError if it is none.
    """
    config = ConfigDict(schema.default_config())
    config.model.path = path
    config.model.update(dict.fromkeys(model_source.SIZES, 0))
    config.model.dtype = _DTYPE.value or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    config.mesh.update({"data": 1, "fsdp": 1, "tensor": 1})
    source = model_source.find_source(config, None)
    longest = hf.read_config(source).max_positions
    config.model.context_length = _CONTEXT.value or min(longest, _LONGEST)
    model = model_source.find_architecture(config, source)
    tokenizer = tokenizers.load(source)
    mesh = build.make_mesh(config, model, jax.devices()[:1])
    sampling = build.make_sampling(
        config,
        mesh,
        slots=_SLOTS.value,
        rows=0,
        fit=not _EXACT.value,
        max_new_tokens=config.model.context_length,
        window=_WINDOW,
    )
    engine = Engine(model, tokenizer.im_end, sampling)
    layout = sharding.find_shardings(mesh, qwen2.shapes(model))
    engine.load(hf.load(source, config=model, shardings=layout, param_dtype=model.dtype)[1])
    return make(source.name, engine, tokenizer, system=tokenizer.find_default_system())


def _make_served(
    name: str,
    engine: Engine,
    tokenizer: Tokenizer,
    *,
    ended: Callable[[str], None],
    free: bool = True,
    **fields: Any,
) -> Served:
    room = _FULL * engine.sampling.slots * engine.sampling.capacity
    conversations = Conversations(engine, most=_KEPT.value, room=room, age=_AGE.value, ended=ended)
    constraints = Constraints(tokenizer, engine.vocab_size) if free else None
    return Served(name, engine, tokenizer, conversations, constraints, created=int(time.time()), **fields)


def _view_output(domain: Domain, text: str) -> Read:
    content, fields = domain.view_output(text)
    return Read(content, fields=fields)


if __name__ == "__main__":
    command.run(run, of_a_run=False)
