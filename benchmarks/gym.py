"""The tables of docs/gym.md, from the embedded customer's rules and from the oracles: prints them all.

.venv/bin/python -m benchmarks.gym
"""

from collections.abc import Mapping, Sequence

import numpy as np

from rollouts.domains.fds.embedded import latent, oracle, population, signals
from rollouts.domains.fds.scenario import DEMANDS

MEANINGS = {
    "patience": "turns of the agent the customer will still wait; each turn costs one",
    "anger": "how upset; who runs out of patience at 3, trusting nobody, walks out",
    "trust": "in what the agent says",
    "heard": "times the customer felt listened to",
    "evidence": "0 not asked for, 1 asked and refused, 2 given",
    "facts": "1: the record was explained truthfully, 2: and a false claim is settled by it",
    "limits": "1: it was said what cannot be done",
    "noted": "1: the feedback was taken down",
    "stepped": "1: who wants steps was told what happens next",
    "probed": "1: asked what would be welcome",
    "deal": "0 none, 1 offered too early, 2 agreed, 3 refused",
    "voucher": "0 none, 1 pressed on the customer, 2 agreed first",
    "offended": "marks that lies, insults and wasted words leave for good; at 9 the customer walks out",
    "over": "1: closed by agreement",
}
TRAITS = {
    "discloses": "tells details at once; who does not wants to be heard before showing anything",
    "wants": "to know every step, or to have it short: 3 or 2 good acts a reply, and whether `steps` please",
    "temper": "flares up when lied to or insulted (anger), or goes silent (patience), and shows it less",
}
_RECORD = {True: "supports the claim", False: "contradicts the claim", None: "says nothing of it"}
RATES = (0.0, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
DIFFICULTIES = ("hard", "normal")


def traits() -> str:
    """What does not move besides level, demand and record: how often each is, by level."""
    rows = []
    for name, (values, shares) in population.TRAITS.items():
        often = ", ".join(f"{100 * share:g}" for share in shares)
        rows.append((name, str(values[0]).lower(), often, TRAITS[name]))
    head = ("trait", "value", "% at levels 1 to 5", "meaning")
    return _table(head, rows)


def worths() -> str:
    """What an agreed voucher is worth, by demand."""
    rows = []
    for demand in DEMANDS:
        odds = np.array(latent.WORTH[3, demand])
        points = np.arange(31) / 10
        mean = odds @ points
        deviation = (odds @ (points - mean) ** 2) ** 0.5
        reached = [f"{points[np.searchsorted(np.cumsum(odds), share)]:.1f}" for share in (0.1, 0.5, 0.9)]
        rows.append((demand, f"{mean:.2f}", f"{deviation:.2f}", *reached))
    return _table(("demand (level 3)", "mean", "deviation", "10 %", "50 %", "90 %"), rows)


def state() -> str:
    """The latent state: ranges, and where it starts for cooperation levels 1 to 5."""
    starts = [population.start_of(level) for level in range(1, 6)]
    rows = []
    for field, limit in latent.LIMITS._asdict().items():
        first = [getattr(mood, field) for mood in starts]
        start = ", ".join(map(str, first)) if len(set(first)) > 1 else str(first[0])
        rows.append((field, f"0..{limit}", start, MEANINGS[field]))
    return _table(("mood", "range", "start, by level", "meaning"), rows)


def events() -> str:
    """What a turn of the agent may contain."""
    return _table(("event", "meaning"), list((latent.EVENTS | latent.DERIVED).items()))


def transitions() -> str:
    """The transition table."""
    rows = []
    for rule in latent.RULES:
        when = "; ".join(_condition(field, values) for field, values in rule.when.items())
        effect = _effect(rule.effect)
        if rule.refusal is not None:
            effect = f"{effect}; or, if it is refused, {_effect(rule.refusal)}"
        rows.append((rule.event, when or "else", effect, rule.why))
    return _table(("event", "if, before the turn", "then", "why"), rows)


def ratings() -> str:
    """What the mean rating is made of."""
    head = ("demand", *latent.Rating._fields)
    return _table(head, [(demand, *map(str, parts)) for demand, parts in latent.RATING.items()])


def stances() -> str:
    """What a customer says of the wish when it is told, by demand."""
    rows = [(demand, *(f"{100 * odds:g}" for odds in signals.STANCE_ODDS["probe"][demand][1:])) for demand in DEMANDS]
    return _table(("P(stance given demand), %", *signals.STANCES), rows)


def hints() -> str:
    """What a customer hints of a voucher's worth, by worth and moment."""
    rows = []
    for moment in signals.HINTS:
        for worth in (0, 10, 20, 30):
            odds = signals.HINTS[moment][worth]
            rows.append((moment, f"{worth / 10:.1f}", *(f"{100 * share:.0f}" for share in odds)))
    return _table(("moment", "worth", "nothing, %", "little", "some", "much", "very much"), rows)


def frontiers() -> str:
    """The best mean satisfaction at voucher rates, by difficulty and by what the agent knows."""
    rows = []
    for difficulty in DIFFICULTIES:
        for knows, who in (("all", "knows the customer"), ("messages", "reads the messages")):
            found = oracle.compute_frontier(difficulty, knows=knows)
            rows.append((difficulty, who, *(f"{found.satisfaction_at(rate):.3f}" for rate in RATES)))
    return _table(("difficulty", "agent", *(f"{rate:.0%}" for rate in RATES)), rows)


def prices() -> str:
    """The price of a voucher at which the best agent that reads serves each rate, and how far the line may be off."""
    rows = []
    for difficulty in DIFFICULTIES:
        found = oracle.compute_frontier(difficulty)
        mixed = (sum(chance * price for chance, price in found.mix_prices(rate)) for rate in RATES)
        rows.append((difficulty, *(f"{price:.2f}" for price in mixed), f"{found.gap:.3f}"))
    return _table(("price at the rate", *(f"{rate:.0%}" for rate in RATES), "at most above the line"), rows)


TABLES = (traits, worths, state, events, transitions, ratings, stances, hints, frontiers, prices)


def _effect(changes: Mapping[str, int]) -> str:
    return ", ".join(f"{field} {change:+d}" for field, change in changes.items()) or "-"


def _condition(field: str, values: Sequence[object]) -> str:
    if field == "supported":
        return "record " + " or ".join(_RECORD[value] for value in values)
    if field == "honest":
        return "claim true" if values == (True,) else "claim false"
    if field == "discloses":
        return "tells details at once" if values == (True,) else "tells details when asked"
    return f"{field} {' or '.join(map(str, values))}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print("\n\n".join(table() for table in TABLES))
