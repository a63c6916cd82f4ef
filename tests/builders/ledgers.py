"""Ledgers of FDS with a budget of vouchers, and dialogues that are put on their books."""

import itertools

from prometheus_client import CollectorRegistry, generate_latest

from cmpo.deployment import terms
from cmpo.deployment.ledger import Ledger
from rollouts.domains.fds import turn_format

SETTINGS = {"kp": 0.5, "ki": 0.25, "kd": 0.125, "smoothing": 0.5, "lambda_max": 5.0, "initial_lambda": 0.0}
SETTINGS |= {"form": "incremental", "every": 1, "smoothing_of": "both"}
_numbers = itertools.count()


def words(said="Sorry.", action="chat"):
    """An output of the agent."""
    return turn_format.render_reply(turn_format.Reply("Plan: think.", said, action))


CHAT, VOUCHER = words(), words("I have sent you a voucher.", "voucher")


def ledger(path, *, budgets=None, prices="action:1", window=20, settings=SETTINGS, domain=None, say=None, **options):
    """A ledger whose clock stands still."""
    budgets = budgets or {"voucher": 0.3}
    domain = domain or terms.load_domain({"domain": "fds"}, budgets)
    gains, first = terms.make_controller(settings, domain.costs, budgets)
    options |= {"prices": terms.read_prices(prices, domain.costs), "say": say or (lambda text: None)}
    return Ledger(domain, path, gains=gains, initial_lambda=first, window=window, clock=lambda: 7.0, **options)


def serve(ledger, *texts, name=None, tokens=10, end=True, **report):
    """A dialogue with these answers; returns what was sent."""
    name, sent = name or f"dialogue-{next(_numbers)}", []
    for text in texts:
        sent.append(ledger.review(name, text, before=tuple(sent), tokens=tokens))
    if report:
        ledger.report(name, **report)
    if end:
        ledger.end(name)
    return sent


def read_metrics(ledger):
    """The metrics as a client of Prometheus reads them: lines without comments, name and labels -> number."""
    registry = CollectorRegistry()
    registry.register(ledger)
    lines = generate_latest(registry).decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(number) for name, number in pairs}
