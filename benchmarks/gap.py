"""Where an agent's loss against the oracle comes from: replays transcripts by the embedded gym's rules.

    .venv/bin/python -m benchmarks.gap --workdir=runs/fds --steps=20               # the newest of a run
    .venv/bin/python -m benchmarks.gap runs/fds/evaluation_policy.transcripts.jsonl

The loss at the run's own voucher rate is the sum of two: `allocation`, vouchers that went to customers who gain less
from one than others do, and `execution`, what the best plan for the same customer, with a voucher or without as it was,
would have had beyond the rating expected from the mood that the customer ended in. Execution is then split by demand
and voucher, with how often each thing was reached that pays, and how often each event that harms occurred.
"""

import argparse
import collections
import pathlib
from typing import NamedTuple

import numpy as np

from cmpo.run.json_lines import read_lines
from rollouts.domains.fds import generator, turn_format
from rollouts.domains.fds.embedded import latent, oracle, reading
from rollouts.domains.fds.scenario import DEMANDS, Order, Persona, Scenario

HARMFUL = ("apology", "explain_false", "promise", "unbacked", "repeat", "long", "spam", "nothing")
REACHED = {
    "heard": lambda mood: mood.heard > 0,
    "evidence": lambda mood: mood.evidence == 2,
    "facts": lambda mood: mood.facts > 0,
    "noted": lambda mood: mood.noted > 0,
    "agreed": lambda mood: mood.voucher == 2,
    "anger": lambda mood: mood.anger > 0,
}


class Replayed(NamedTuple):
    """What became of a dialogue by the rules."""

    customer: latent.Customer
    mood: latent.Mood  # at the end
    voucher: bool
    rating: float  # expected from that mood; 0 where the dialogue did not finish
    outcome: float
    events: collections.Counter[str]


def replay(row: dict) -> Replayed:
    """Replays a line of a transcript file."""
    scenario = row["task"]
    persona, order = Persona(**scenario["persona"]), Order(**scenario["order"])
    case = reading.read_case(generator.user_prompt(Scenario(scenario["id"], persona, scenario["demand"], order, "")))
    mood, said, events, issued = latent.start_mood(case.customer), [], collections.Counter(), "no"
    for turn in row["turns"]:
        if not turn["action"]:
            break
        issued = "this turn" if turn["action"] == "voucher" else "no" if issued == "no" else "earlier"
        response = turn_format.hear(turn["response"])
        happened = reading.read_reply(response, said, case, issued)
        said.append(response)
        events.update(happened)
        mood = latent.apply_events(case.customer, mood, happened)
    rating = latent.expected_rating(case.customer, mood) if row["end"] == "rated" else 0.0
    return Replayed(case.customer, mood, bool(row["cost"]["voucher"]), rating, max(row["outcome"], 0.0), events)


def best(one: Replayed) -> float:
    """The rating of the best plan for the same customer, with a voucher or without as it was."""
    return oracle.plan_dialogue(one.customer, voucher=one.voucher).rating


def report(played: list[Replayed]) -> str:
    """The two losses, and a table of the second."""
    count = len(played)
    shares = {who: number / count for who, number in collections.Counter(one.customer for one in played).items()}
    frontier = oracle.compute_frontier(shares)
    rate, rating = np.mean([one.voucher for one in played]), np.mean([one.rating for one in played])
    never, top = frontier.satisfaction_at(0), frontier.satisfaction_at(rate)
    same = np.mean([best(one) for one in played])
    lines = [
        f"{count} dialogues, vouchers {rate:.1%}, satisfaction {np.mean([one.outcome for one in played]):.3f} "
        f"(expected {rating:.3f}), frontier of these customers {top:.3f}, without vouchers {never:.3f}",
        f"share of the gain {(rating - never) / (top - never):.0%}; "
        f"loss {top - rating:.3f} = allocation {top - same:.3f} + execution {same - rating:.3f}",
        f"| demand | voucher | dialogues | unfinished | loss, of all | {' | '.join(REACHED)} | harmful |",
        "|---|---|" + "---:|" * (3 + len(REACHED)) + "---|",
    ]
    for demand in DEMANDS:
        for voucher in (False, True):
            some = [one for one in played if (one.customer.demand, one.voucher) == (demand, voucher)]
            if not some:
                continue
            reached = [f"{np.mean([did(one.mood) for one in some]):.0%}" for did in REACHED.values()]
            happened = {event: np.mean([one.events[event] > 0 for one in some]) for event in HARMFUL}
            harm = ", ".join(f"{event} {share:.0%}" for event, share in happened.items() if share >= 0.01)
            loss = sum(best(one) - one.rating for one in some) / count
            unfinished = sum(one.rating == 0 for one in some)
            lines.append(
                f"| {demand} | {'yes' if voucher else 'no'} | {len(some)} | {unfinished} | {loss:.3f} "
                f"| {' | '.join(reached)} | {harm} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Prints the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=pathlib.Path, help="Transcripts.")
    parser.add_argument("--workdir", help="Or the directory of a run.")
    parser.add_argument("--steps", type=int, default=20, help="How many of the newest steps.")
    arguments = parser.parse_args()
    files = arguments.files
    if arguments.workdir:
        files += sorted(pathlib.Path(arguments.workdir, "transcripts").glob("step_*.jsonl"))[-arguments.steps :]
    if not files:
        raise SystemExit("expected files of transcripts, or a --workdir that has some")
    rows = [row for file in files for row in read_lines(file)]
    print(report([replay(row) for row in rows if not row["failure"]]))


if __name__ == "__main__":
    main()
