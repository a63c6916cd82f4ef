"""What a dialogue may cost: what each cost counts, and what money a tool gives back.

Legend: C = costs.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rollouts.domain import Cost
from rollouts.domains.tau2.world import Action, Result

TRANSFER = "transfer_to_human_agents"
COSTS = (
    Cost("transfer", "any", "transfers, %", "Transfers to a human (share of dialogues)", "{:.0%}"),
    Cost("write", "sum", "writes", "Writes to databases a dialogue", "{:.1f}"),
    Cost("tool_error", "sum", "tool errors", "Calls that failed or cannot be read, a dialogue", "{:.1f}"),
    Cost("message", "sum", "messages", "Messages of the agent to the user, a dialogue", "{:.1f}"),
    Cost("refund", "sum", "given back, $", "Money given back a dialogue, $", "{:.0f}"),
)

Reader = Callable[[Any, str], float]


def _read_reservation(database: Any, number: str) -> float:
    reservation = database.reservations.get(number)
    return sum(max(0, -payment.amount) for payment in reservation.payment_history) if reservation else 0.0


def _read_certificates(database: Any, number: str) -> float:
    user = database.users.get(number)
    methods = user.payment_methods.values() if user else ()
    # The tool takes negative amounts, too; such a certificate gives nothing back, and takes none of another's away.
    return sum(max(0, method.amount) for method in methods if method.source == "certificate")


def _read_order(database: Any, number: str) -> float:
    order = database.orders.get(number)
    if not order:
        return 0.0
    paid_back = sum(payment.amount for payment in order.payment_history if payment.transaction_type == "refund")
    prices = {item.item_id: item.price for item in order.items}
    returned = [prices[item] for item in order.return_items or ()]
    return paid_back + sum(returned) + max(0.0, -(order.exchange_price_difference or 0.0))


REFUNDS: Mapping[str, Mapping[str, tuple[Reader, str]]] = MappingProxyType(
    {
        "airline": {
            "cancel_reservation": (_read_reservation, "reservation_id"),
            "update_reservation_flights": (_read_reservation, "reservation_id"),
            "update_reservation_baggages": (_read_reservation, "reservation_id"),
            "send_certificate": (_read_certificates, "user_id"),
        },
        "retail": {
            "cancel_pending_order": (_read_order, "order_id"),
            "modify_pending_order_items": (_read_order, "order_id"),
            "exchange_delivered_order_items": (_read_order, "order_id"),
            "return_delivered_order_items": (_read_order, "order_id"),
        },
    }
)
"""Domain -> tool -> how to read what was given back so far of what a call is about, and the argument that names it.

Certificates count as money given back, and so does what is still to be paid out. Moving a payment from one card to
another (`modify_pending_order_payment`) gives nothing back.
"""


def read_refunds(domain: str, environment: Any, calls: Sequence[Action]) -> float:
    """Reads what was given back so far of all that `calls` are about; its rise is what they gave back.

    It is at most a million dollars: a tool takes any number, which no controller could be shown.
    """
    readers = REFUNDS.get(domain, {})
    about = {
        (reader, str(call.arguments.get(argument)))
        for call in calls
        if call.name in readers
        for reader, argument in [readers[call.name]]
    }
    return float(min(1e6, sum(reader(environment.tools.db, number) for reader, number in about)))


def count_calls(environment: Any, calls: Sequence[Action], results: Sequence[Result]) -> dict[str, float]:
    """Counts transfers, writes and errors of calls that the agent made."""
    kits = [kit for kit in (environment.tools, environment.user_tools) if kit is not None]

    def writes(call: Action) -> bool:
        return any(kit.has_tool(call.name) and kit.tool_type(call.name).value == "write" for kit in kits)

    done = [call for call, result in zip(calls, results, strict=True) if not result.error]
    return {
        "transfer": float(any(call.name == TRANSFER for call in done)),
        "write": float(sum(map(writes, done))),
        "tool_error": float(len(calls) - len(done)),
    }
