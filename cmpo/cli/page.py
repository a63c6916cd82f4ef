"""What the page to talk to agents offers of a run: its held-out tasks, and its judge."""

import contextlib
import functools
from collections.abc import AsyncIterator, Mapping

from ml_collections import ConfigDict

from cmpo.algorithms.budgets import budgets_of
from cmpo.evaluation.summary import describe_worth
from cmpo.training import tasks
from cmpo.training.clients import Clients
from rollouts import domains, play
from rollouts.domain import Episodes
from rollouts.serving.scenes import PageTable


@contextlib.asynccontextmanager
async def open_page_table(
    config: ConfigDict,
    clients: Clients,
    agents: Mapping[str, play.Agent],
    *,
    title: str = "",
    scenarios: int = 24,
    customer_view: bool = False,
) -> AsyncIterator[PageTable]:
    """Opens the endpoints that a run's episodes ask, and gives the table of a page with `agents`, which are open.

    The person takes the place of the endpoint "user". A domain without one has no `scenarios` on the page.
    """
    domain = domains.load(config)
    async with contextlib.AsyncExitStack() as stack:
        chats = {name: await stack.enter_async_context(clients[name]) for name in domain.endpoints if name != "user"}

        def make_episodes(user: play.Chat, judge: play.Chat | None) -> Episodes:
            return domain.episodes(config, {**chats, "user": user, **({"judge": judge} if judge else {})})

        yield PageTable(
            domain,
            tasks.open_source(config).held_out(scenarios, config.eval.seed) if "user" in domain.endpoints else (),
            agents,
            make_episodes,
            chats.get("judge"),
            functools.partial(describe_worth, domain),
            dict(zip((cost.name for cost in domain.costs), budgets_of(domain, config), strict=True)),
            title,
            customer_view,
        )
