"""Who serves the customers, by name: what every command with an ``--agent`` flag has in common.

``policy`` is the checkpoint in --workdir, ``start`` what phase 2 began with. The others are scripted and need no
--workdir: ``never``, ``always`` and ``generous`` see what any agent sees; ``oracle`` is the best there is in the
embedded gym with vouchers for --voucher_rate of the customers, see `rollouts.embedded.oracle`.
"""

import pathlib

from absl import flags
from ml_collections import ConfigDict

from cmpo import model as policy
from cmpo import rollout, setup, sharding
from cmpo.checkpoint import Checkpoints
from cmpo.rollout import Agents
from models import tokenizer as tokenizers
from rollouts.embedded import oracle
from rollouts.scripted import HABITS, OracleAgent

AGENT = flags.DEFINE_enum(
    "agent", "policy", ["policy", "start", "oracle", *HABITS], "Who serves the customers; see cmpo/agents.py."
)
VOUCHER_RATE = flags.DEFINE_float(
    "voucher_rate", None, "The oracle's voucher rate; default: config.pid.target.", lower_bound=0.0, upper_bound=1.0
)


def load(config: ConfigDict, name: str, workdir: str | None) -> tuple[Agents, int | None]:
    """The agent that --agent names, and the step of training it is at if it was trained.

    Raises FileNotFoundError or ValueError if `name` needs a run and there is none in `workdir`.
    """
    if name in ("policy", "start"):
        if workdir is None:
            raise ValueError(f"--workdir: expected the directory of a run for --agent={name}")
        return load_policy(config, pathlib.Path(workdir), start=name == "start")
    return scripted(config, name, VOUCHER_RATE.value), None


def scripted(config: ConfigDict, name: str, voucher_rate: float | None = None) -> Agents:
    """A scripted agent; `voucher_rate` is the oracle's, None for the config's target."""
    if name != "oracle":
        return rollout.scripted_agents(name)
    rate = config.pid.target if voucher_rate is None else voucher_rate
    return rollout.serving(OracleAgent(oracle.allocation(oracle.distribution(config.data.difficulty), rate)))


def load_policy(config: ConfigDict, workdir: pathlib.Path, *, start: bool = False) -> tuple[Agents, int]:
    """The policy in `workdir`'s newest checkpoint, or the reference model it started from, and the step it is at.

    Raises FileNotFoundError or ValueError if there is no such checkpoint.
    """
    setup.check(workdir, config, prefix="model.")
    tokenizer = tokenizers.load(workdir / "tokenizer")
    model = policy.settled(config, workdir)
    mesh = setup.mesh(config, model)
    layout = setup.abstract_state(config, model, mesh)
    with Checkpoints(workdir, keep=config.train.keep_checkpoints) as checkpoints:
        state = checkpoints.restore(layout)
    if state is None:
        raise FileNotFoundError(f"--workdir: no checkpoint in {str(workdir)!r} yet")
    if start and int(state.step) <= config.train.sft_steps:
        raise ValueError(f"--agent=start: phase 2 has not begun in {str(workdir)!r}; --agent=policy is that model")
    engine = setup.engine(config, model, mesh, tokenizer, temperature=config.eval.temperature)
    frozen = policy.frozen(model, mesh, policy.source(config, workdir), config.train.seed)
    engine.load(sharding.make_publish(model, mesh)(frozen, state.reference if start else state.params))
    return rollout.policy_agents(engine, tokenizer), int(state.step)
