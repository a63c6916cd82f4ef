"""The tables of docs/gym.md, from the embedded customer's rules (`latent.py`) and from the oracle: prints them all.

.venv/bin/python -m benchmarks.gym
"""

from collections.abc import Sequence

from rollouts.domains.fds.embedded import latent, oracle
from rollouts.domains.fds.scenario import DEMANDS

MEANINGS = {
    "patience": "turns of the agent the customer will still wait; each turn costs one",
    "anger": "how upset; who runs out of patience at 3, trusting nobody, walks out",
    "trust": "in what the agent says",
    "heard": "times the customer felt listened to",
    "evidence": "0 not asked for, 1 asked and refused, 2 given",
    "facts": "1: the record was explained truthfully",
    "limits": "1: it was said what cannot be done",
    "noted": "1: the feedback was taken down",
    "deal": "0 none, 1 offered too early, 2 agreed, 3 refused",
    "voucher": "0 none, 1 pressed on the customer, 2 agreed first",
    "over": "1: closed by agreement",
}
_RECORD = {True: "supports the claim", False: "contradicts the claim", None: "is silent"}
RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)


def state() -> str:
    """The latent state: ranges, and where it starts for cooperation levels 1 to 5."""
    starts = [latent.start_mood(latent.Customer(level, DEMANDS[0], None)) for level in range(1, 6)]
    rows = []
    for field, limit in latent.LIMITS._asdict().items():
        first = [getattr(mood, field) for mood in starts]
        start = ", ".join(map(str, first)) if len(set(first)) > 1 else str(first[0])
        rows.append((field, f"0..{limit}", start, MEANINGS[field]))
    return _table(("mood", "range", "start, by level", "meaning"), rows)


def events() -> str:
    """What a turn of the agent may contain."""
    return _table(("event", "meaning"), list(latent.EVENTS.items()))


def transitions() -> str:
    """The transition table."""
    rows = []
    for rule in latent.RULES:
        when = "; ".join(_condition(field, values) for field, values in rule.when.items())
        effect = ", ".join(f"{field} {change:+d}" for field, change in rule.effect.items())
        rows.append((rule.event, when or "else", effect or "-", rule.why))
    return _table(("event", "if, before the turn", "then", "why"), rows)


def ratings() -> str:
    """What the mean rating is made of."""
    head = ("demand", "start", "each time heard", "voucher pressed", "voucher agreed", "facts of a contradicted claim")
    return _table(head, [(demand, *map(str, worth)) for demand, worth in latent.RATING.items()])


def frontier() -> str:
    """The best mean satisfaction at voucher rates, by difficulty."""
    rows = []
    for difficulty in ("hard", "normal"):
        found = oracle.compute_frontier(oracle.weigh_customers(difficulty))
        rows.append((difficulty, *(f"{found.satisfaction_at(rate):.3f}" for rate in RATES)))
    return _table(("vouchers, at most", *(f"{rate:.0%}" for rate in RATES)), rows)


def prices() -> str:
    """What a voucher adds to the best plan, by demand and record, with the best plans of level 3."""
    rows = []
    for demand in DEMANDS:
        for supported, record in ((True, "supports the claim or is silent"), (False, _RECORD[False])):
            kept, given = (
                oracle.plan_dialogue(latent.Customer(3, demand, supported), voucher=leave) for leave in (False, True)
            )
            rows.append((demand, record, _plan(kept), _plan(given), f"{given.rating - kept.rating:.1f}"))
    return _table(("demand", "record", "best without a voucher", "best with leave to give one", "gain"), rows)


TABLES = (state, events, transitions, ratings, frontier, prices)


def _plan(plan: oracle.Plan) -> str:
    turns = "; ".join(" + ".join(event for event in latent.EVENTS if event in turn) for turn in plan.turns)
    return f"{plan.rating:.1f}: {turns}"


def _condition(field: str, values: Sequence[object]) -> str:
    if field == "supported":
        return "record " + " or ".join(_RECORD[value] for value in values)
    return f"{field} {' or '.join(map(str, values))}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print("\n\n".join(table() for table in TABLES))
