"""The clients of a config's endpoints, and what they have spent."""

import dataclasses
import pathlib
from collections.abc import Mapping

import jax
from ml_collections import ConfigDict

from rollouts import domains
from rollouts.endpoints.client import EMBEDDED, ChatClient, Endpoint
from rollouts.endpoints.meter import Meter

Clients = Mapping[str, ChatClient]
"""The clients of the config's endpoints, by the endpoint's name."""


def make_clients(config: ConfigDict, workdir: pathlib.Path | None = None) -> dict[str, ChatClient]:
    """Makes a client for each endpoint of the config, by name; the counts of their budgets are kept in `workdir`.

    Sends no request. Raises ValueError, naming the field, if an endpoint's settings cannot work.
    """
    here = {"process": jax.process_index(), "processes": jax.process_count()}
    clients, domain = {}, domains.load(config)
    for name in domain.endpoints:
        if name not in config:
            raise ValueError(f"config.{name}: expected an endpoint, which the domain {config.domain!r} asks, got none")
        asked = read_endpoint(config[name])
        if asked.url == EMBEDDED and domain.embedded() is None:
            raise ValueError(f"config.{name}.url: the domain {config.domain!r} has no embedded endpoint")
        meter = Meter(name, asked, workdir and workdir / "spent", **here)
        clients[name] = ChatClient(name, asked, meter=meter, embedded=domain.embedded, **config.endpoints)
    return clients


def sum_spending(clients: Clients) -> dict[str, float]:
    """Sums what the run has spent so far, by endpoint and measure, for the metrics."""
    found = {}
    for name, client in clients.items():
        total = client.meter.read_total()
        found |= {
            f"{name}_calls": total.calls,
            f"{name}_tokens": total.tokens,
            f"{name}_cost": client.meter.price_of(total),
        }
    return found


def read_endpoint(config: ConfigDict) -> Endpoint:
    """Reads an endpoint from its section: config.user, config.judge or config.agent."""
    return Endpoint(**{field.name: config[field.name] for field in dataclasses.fields(Endpoint)})
