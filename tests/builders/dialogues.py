"""Turns and dialogues of FDS, for the tests that need some which nobody played."""

import numpy as np

from rollouts import domains
from rollouts.domain import total_cost
from rollouts.domains.fds.scenario import Item, Order, Persona, Record, Scenario
from rollouts.types import Dialogue, Message, Turn


def task(name="hard-train-0", *, level=2, demand="refund_priority", **order):
    """An order that came late, and who complains about it."""
    facts = {"items": (Item("Cola", 1, 250),), "merchant": "Golden Wok", "ordered": "18:05", "delivered": "19:23"}
    facts |= {"complaint": "late delivery", "tag": "late delivery", "courier": "Soon."}
    facts |= {"record": Record("late_minutes", True, (48,), "delivered 48 minutes late")}
    facts |= {"signals": (("rider", "Soon."),)} | order
    persona = Persona(level, "terse", "reserved", "demands results at once", "irritable")
    return Scenario(name, persona, demand, Order(**facts), "SECRET PROMPT", worth=12, honest=True)


TASK = task()
FDS = domains.load({"domain": "fds"})
COSTS = FDS.costs


def turn(
    process_reward=0.0,
    *,
    said="Where is it?",
    text="raw",
    action="chat",
    incoming=range(5),
    ids=(),
    logprobs=None,
    scores=(("persona", 1.0), ("rules", 0.5)),
    **notes,
):
    """A turn that costs a voucher where `action` says so; log-probabilities are -0.5 where none are given."""
    count = len(ids)
    logprobs = np.asarray(np.full(count, -0.5) if logprobs is None else logprobs, np.float32)
    parts = {"think": "hm", "response": "Sorry."} if action else {"think": "", "response": "", "text": text}
    judged = {"scores": dict(scores), "reason": "fine"}
    return Turn(
        messages=(Message("user", said),),
        text=text,
        incoming_ids=np.array(incoming, np.int32),
        ids=np.array(ids, np.int32),
        logprobs=logprobs,
        model_logprobs=logprobs,
        cost=np.array([action == "voucher"], np.float32),
        process_reward=process_reward,
        notes={**parts, "action": action, **judged, **notes},
    )


def dialogue(*turns, task=TASK, index=0, outcome=0.0, end="rated", failure="", **fields):
    """A dialogue of `turns`, which ended well where it was rated."""
    fields |= {"cost": total_cost(COSTS, turns), "success": end == "rated" and not failure}
    return Dialogue(task, index, turns, outcome, end, failure=failure, **fields)
