"""Where an agent's loss comes from: replays transcripts by the embedded gym's rules, and splits the loss in four.

    .venv/bin/python -m benchmarks.gap --workdir=runs/fds --steps=5               # the newest steps of a run
    .venv/bin/python -m benchmarks.gap runs/fds/evaluation_policy.transcripts.jsonl

The loss is that against the frontier of who knows all about the customer, at the agent's own voucher rate:
- *information*: nobody who reads the messages could have had it, the distance of the two frontiers;
- *decision*: a voucher was offered to the wrong customer, or not to the right one;
- *execution*: what was left out, said too early, or given without agreement, and dialogues that did not end;
- *language*: how it was said, such as what was false, rude or senseless, and breaches of the turn format.
The last three are regrets of replies (`rollouts.domains.fds.embedded.regret`). Chance is left over: what customers
happened to say and to give.
"""

import argparse
import collections
import pathlib
from typing import Any, NamedTuple

import numpy as np

from cmpo.run.json_lines import read_lines
from rollouts.domains.fds import generator, turn_format
from rollouts.domains.fds.embedded import belief, latent, oracle, reading
from rollouts.domains.fds.embedded.belief import Belief
from rollouts.domains.fds.embedded.case import Case, read_case
from rollouts.domains.fds.embedded.regret import Regret, measure_regret
from rollouts.domains.fds.hearing import hear_message
from rollouts.domains.fds.scenario import DEMANDS, Scenario, read_description

NOTHING = Regret(0.0, 0.0, 0.0)
REACHED = {
    "heard": lambda mood: mood.heard > 0,
    "evidence": lambda mood: mood.evidence == 2,
    "facts": lambda mood: mood.facts > 0,
    "agreed": lambda mood: mood.deal == 2,
    "offended": lambda mood: mood.offended > 0,
}


class Replayed(NamedTuple):
    """What became of a dialogue by the rules."""

    customer: latent.Customer
    mood: latent.Mood  # after the last reply that was in the turn format
    voucher: bool
    outcome: float  # 0 where the dialogue did not finish
    regret: Regret
    events: collections.Counter[str]  # how often each happened


def replay(row: dict[str, Any], price: float) -> Replayed:
    """Replays a line of a transcript file; `price` is what a voucher costs in points of satisfaction."""
    scenario = read_description(row["task"])
    case = read_case(generator.user_prompt(scenario))
    names = (*(item.name for item in case.items), case.merchant)
    believed, said, issued, events, regret = None, [], "no", collections.Counter(), NOTHING
    happened: frozenset[str] = frozenset()
    for turn in row["turns"]:
        heard = hear_message(turn["messages"][-1]["content"], names, first=believed is None).signal
        believed = believed.update(happened, heard) if believed else _open_belief(scenario, case, heard)
        if not turn["action"]:  # a breach of the format ends it
            regret = _add(regret, Regret(0.0, 0.0, belief.best_value(believed, price)))
            break
        issued = "this turn" if turn["action"] == "voucher" else "no" if issued == "no" else "earlier"
        response = turn_format.hear(turn["response"])
        happened = reading.read_reply(response, said, case, issued)
        said.append(response)
        events.update(happened)
        regret = _add(regret, measure_regret(believed, happened, price, temper=case.customer.temper))
    else:
        believed = believed.update(happened, hear_message(row["last_words"], names, first=False).signal)
        if row["end"] in ("turn_limit", "context"):
            regret = _add(regret, Regret(0.0, belief.best_value(believed, price), 0.0))
    return Replayed(
        case.customer, believed.mood, bool(row["cost"]["voucher"]), max(row["outcome"], 0.0), regret, events
    )


def report(rows: list[dict[str, Any]], difficulty: str) -> str:
    """The four losses of an agent, and a table of them by demand and voucher."""
    rate = float(np.mean([row["cost"]["voucher"] for row in rows]))
    known, read = (oracle.compute_frontier(difficulty, knows=knows) for knows in ("all", "messages"))
    price = sum(chance * price for chance, price in read.mix_prices(rate))
    played = [replay(row, price) for row in rows]
    rating, never, top = np.mean([one.outcome for one in played]), read.satisfaction_at(0), read.satisfaction_at(rate)
    regret = np.mean([one.regret for one in played], axis=0)
    loss, information = known.satisfaction_at(rate) - rating, known.satisfaction_at(rate) - top
    gain = f"{(rating - never) / (top - never):.0%}" if top > never else "-"
    lines = [
        f"{len(played)} dialogues, vouchers {rate:.1%}, satisfaction {rating:.3f}; the best that reads {top:.3f}, "
        f"without vouchers {never:.3f}; share of its gain {gain}",
        f"loss {loss:.3f} = information {information:.3f} + decision {regret[0]:.3f} + execution {regret[1]:.3f} "
        f"+ language {regret[2]:.3f} + chance {loss - information - regret.sum():.3f}, a voucher at {price:.2f}",
        f"| demand | voucher | dialogues | decision | execution | language | {' | '.join(REACHED)} | harmful |",
        "|---|---|" + "---:|" * (4 + len(REACHED)) + "---|",
    ]
    for demand in DEMANDS:
        for voucher in (False, True):
            some = [one for one in played if (one.customer.demand, one.voucher) == (demand, voucher)]
            if some:
                lines.append(_describe_group(demand, some, len(played)))
    return "\n".join(lines)


def _describe_group(demand: str, some: list[Replayed], count: int) -> str:
    """A line of the table; its losses are shares of those of all `count` dialogues."""
    losses = [f"{sum(getattr(one.regret, name) for one in some) / count:.3f}" for name in Regret._fields]
    reached = [f"{np.mean([did(one.mood) for one in some]):.0%}" for did in REACHED.values()]
    happened = {event: np.mean([one.events[event] > 0 for one in some]) for event in latent.HARMFUL}
    harm = ", ".join(f"{event} {share:.0%}" for event, share in happened.items() if share >= 0.01)
    cells = (demand, "yes" if some[0].voucher else "no", str(len(some)), *losses, *reached, harm or "-")
    return f"| {' | '.join(cells)} |"


def _open_belief(scenario: Scenario, case: Case, heard: Any) -> Belief:
    """Returns what is known after the opening. The scenario's name tells the mix that it was dealt from."""
    difficulty, split, *_ = scenario.id.split("-")
    return belief.open_belief(heard, case.customer.supported, difficulty=difficulty, split=split)


def _add(total: Regret, more: Regret) -> Regret:
    return Regret(*(one + other for one, other in zip(total, more, strict=True)))


def main() -> None:
    """Prints the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=pathlib.Path, help="Transcripts.")
    parser.add_argument("--workdir", help="Or the directory of a run.")
    parser.add_argument("--steps", type=int, default=5, help="How many of the newest steps.")
    arguments = parser.parse_args()
    files = arguments.files
    if arguments.workdir:
        files += sorted(pathlib.Path(arguments.workdir, "transcripts").glob("step_*.jsonl"))[-arguments.steps :]
    if not files:
        raise SystemExit("expected files of transcripts, or a --workdir that has some")
    rows = [row for file in files for row in read_lines(file)]
    rows = [row for row in rows if not row["failure"] and row["turns"]]
    print(report(rows, rows[0]["task"]["id"].split("-")[0]))


if __name__ == "__main__":
    main()
