"""Agents that need no model: one that does nothing, one that knows what the task wants, one that works by the book, and
a hasty one, which leaves out steps of the book. They write what a model would write, so that they can be imitated.
"""

import abc
import json
import random
import re
from collections.abc import Callable, Generator, Sequence
from typing import Any

from rollouts.domains.tau2 import turn_format
from rollouts.domains.tau2.costs import TRANSFER
from rollouts.domains.tau2.tasks import Tau2Task
from rollouts.domains.tau2.world import Action
from rollouts.types import Message, Sample

Work = Generator[str, str, None]
"""Yields outputs of the agent, gets what comes back: a user's words, or what tools answered."""

HANDED_OVER = "YOU ARE BEING TRANSFERRED TO A HUMAN AGENT. PLEASE HOLD ON."
SORRY = "I am sorry, I cannot help you with that."
_DONE = "All of that has been done. Please try again, does it work now?"

WORDS = {  # tool of the user -> how an agent asks for it
    "toggle_airplane_mode": "Please turn airplane mode off.",
    "toggle_data": "Please turn mobile data on.",
    "toggle_roaming": "Please turn data roaming on.",
    "toggle_data_saver_mode": "Please turn data saver off.",
    "toggle_wifi_calling": "Please turn Wi-Fi calling off.",
    "set_network_mode_preference": "Please set the preferred network mode to 4G/5G.",
    "disconnect_vpn": "Please disconnect your VPN.",
    "reset_apn_settings": "Please reset your APN settings.",
    "reboot_device": "Please restart your phone.",
    "reseat_sim_card": "Please take out your SIM card and insert it again.",
    "grant_app_permission": "Please grant the messaging app the {permission} permission.",
    "make_payment": "I have sent you a payment request.\nPlease pay it.",
}


class PlannedSession(abc.ABC):
    """One dialogue of a scripted agent."""

    def __init__(self, task: Tau2Task, seed: int):
        self._work = self.work(task, random.Random(seed))
        next(self._work)

    @abc.abstractmethod
    def work(self, task: Tau2Task, choose: random.Random) -> Work:
        """Works on a task. The first yield gives nothing and gets what opens the dialogue."""

    async def reply(self, messages: Sequence[Message], seed: int) -> Sample:
        """See `rollouts.play.Session`."""
        return Sample(self._work.send("\n".join(message.content for message in messages)))

    def close(self) -> None:
        """See `rollouts.play.Session`."""
        self._work.close()


class PlannedAgent:
    """An agent of one kind of session."""

    def __init__(self, session: type[PlannedSession]):
        self._session = session

    async def open(self, task: Tau2Task, seed: int) -> PlannedSession:
        """See `rollouts.play.Agent`."""
        return self._session(task, seed)


class Idle(PlannedSession):
    """Says that it is sorry."""

    def work(self, task: Tau2Task, choose: random.Random) -> Work:
        """See PlannedSession."""
        yield ""
        while True:
            yield turn_format.write_calls([Action("done", {})]) if task.solo else SORRY


class Knowing(PlannedSession):
    """Does what the task wants: its own part with tools, the user's in words."""

    def work(self, task: Tau2Task, choose: random.Random) -> Work:
        """See PlannedSession."""
        yield ""
        criteria = task.source.evaluation_criteria
        actions = (criteria and criteria.actions) or []
        for action in actions:
            if action.requestor == "assistant" or task.solo:
                yield turn_format.write_calls([Action(action.name, action.arguments)])
            else:
                yield WORDS[action.name].format(**action.arguments)
            if action.name == TRANSFER and not task.solo:
                yield HANDED_OVER
        if task.solo:
            yield turn_format.write_calls([Action("done", {})])
        for told in (criteria and criteria.communicate_info) or []:
            yield f"It is {told}."
        while True:
            yield _DONE


class ByTheBook(PlannedSession):
    """Works through what may be wrong at the telephone company, by what the user and the tools say.

    It thinks of the trouble and of the step it is at, so that who imitates it need not gather both from afar.
    """

    skips = 0.0  # the chance that a step is left out
    gives_up = 0.0  # the chance, before each step, that the user is transferred at once

    def work(self, task: Tau2Task, choose: random.Random) -> Work:
        """See PlannedSession."""
        told = yield ""
        trouble = "mms" if "MMS" in told else "data" if re.search("data|internet", told) else "service"
        names, line = yield from _think(f"{trouble}: who", _find_line())
        for name, step in _STEPS[trouble] if line else ():  # without a line, nobody knows whose phone it is
            if choose.random() < self.gives_up:
                break
            if choose.random() < self.skips:
                continue
            beyond_help = yield from _think(f"{trouble}: {name}", step(line, names))
            if beyond_help:
                break
        yield from _think(f"{trouble}: hand over", _hand_over())


class Hasty(ByTheBook):
    """Leaves out steps, and gives up early: what demonstrations may be like, and what there is to learn."""

    skips, gives_up = 0.2, 0.05


Step = Generator[str, str, bool]
"""A part of the work; returns whether no agent can help."""


def _think(thought: str, work: Generator[str, str, Any]) -> Generator[str, str, Any]:
    """Puts a thought before all outputs of `work`, and returns what that returns."""
    heard = None
    while True:
        try:
            output = work.send(heard)
        except StopIteration as done:
            return done.value
        heard = yield turn_format.write_thought(thought, output)


def _find_line() -> Generator[str, str, tuple[dict[str, str], dict[str, Any]]]:
    """Asks who it is; returns the names of customer and line, and the line, {} where there is none."""
    heard = yield "I am sorry to hear that. What is your phone number?"
    phone = re.search(r"\d{3}-\d{3}-\d{4}", heard)
    customer = _read_object((yield _call("get_customer_by_phone", phone_number=phone[0] if phone else "")))
    line = {}
    for number in customer.get("line_ids", ()):
        line = _read_object((yield _call("get_details_by_id", id=number)))
        if line["phone_number"] == phone[0]:
            break
    return {"customer_id": customer.get("customer_id"), "line_id": line.get("line_id")}, line


def _hand_over() -> Work:
    yield _call(TRANSFER, summary="I cannot fix the issue.")
    while True:
        yield HANDED_OVER


def _mend_network(line: dict[str, Any], names: dict[str, str]) -> Step:
    seen = yield "Please check your network status."
    if "Airplane Mode: ON" in seen:
        yield WORDS["toggle_airplane_mode"]
    if "SIM Card Status: missing" in seen:
        yield WORDS["reseat_sim_card"]
    if "SIM Card Status: locked" in seen:
        return True
    if "Mobile Data Enabled: No" in seen:
        yield WORDS["toggle_data"]
    return False


def _mend_line(line: dict[str, Any], names: dict[str, str]) -> Step:
    """Roaming, on both sides, and data that is used up."""
    where = yield "Are you abroad, or at home?"
    if "abroad" in where:
        if not line["roaming_enabled"]:
            yield _call("enable_roaming", **names)
        yield WORDS["toggle_roaming"]
    usage = json.loads((yield _call("get_data_usage", **names)))
    used, limit, refueled = (float(usage[f"data_{name}_gb"]) for name in ("used", "limit", "refueling"))
    if used >= limit + refueled:
        if refueled:
            return True
        yield "Your data is used up. May I refuel 2.0 GB of data?"
        yield _call("refuel_data", **names, gb_amount=2.0)
        yield "I have added the data. Please try again."
    return False


def _mend_suspension(line: dict[str, Any], names: dict[str, str]) -> Step:
    if line["status"] != "Suspended":
        return False
    if line["contract_end_date"] and line["contract_end_date"] < "2025-02-25":
        return True
    bills = json.loads((yield _call("get_bills_for_customer", customer_id=names["customer_id"])))
    for bill in bills:
        if bill["status"] == "Overdue":
            yield _call("send_payment_request", customer_id=names["customer_id"], bill_id=bill["bill_id"])
            yield WORDS["make_payment"]
    yield _call("resume_line", **names)
    yield WORDS["reboot_device"]
    return False


def _mend_apn(line: dict[str, Any], names: dict[str, str]) -> Step:
    seen = yield "Please check your APN settings."
    if re.search("Not Set|broken", seen, re.IGNORECASE):
        yield WORDS["reset_apn_settings"]
        yield WORDS["reboot_device"]
    return False


def _mend_setting(question: str, tool: str, is_wrong: Callable[[str], bool]) -> Callable[..., Step]:
    """Returns the step that asks for a setting, and has it changed with `tool` where the answer shows it wrong."""

    def mend(line: dict[str, Any], names: dict[str, str]) -> Step:
        seen = yield question
        if is_wrong(seen):
            yield WORDS[tool]
        return False

    return mend


_mend_network_mode = _mend_setting(
    "Please check your preferred network mode.",
    "set_network_mode_preference",
    lambda seen: "4g_5g_preferred" not in seen,
)
_mend_data_saver = _mend_setting(
    "Please check whether data saver is on.", "toggle_data_saver_mode", lambda seen: "ON" in seen
)
_mend_vpn = _mend_setting(
    "Are you using a VPN?", "disconnect_vpn", lambda seen: "connected" in seen and "not connected" not in seen
)
_mend_wifi_calling = _mend_setting(
    "Please check whether Wi-Fi calling is on.", "toggle_wifi_calling", lambda seen: "turned ON" in seen
)


def _mend_permissions(line: dict[str, Any], names: dict[str, str]) -> Step:
    seen = yield "Please check the permissions of the messaging app."
    for permission in ("sms", "storage"):
        if permission not in seen:
            yield WORDS["grant_app_permission"].format(permission=permission)
    return False


_STEPS = {
    "mms": (
        ("network", _mend_network),
        ("line", _mend_line),
        ("network mode", _mend_network_mode),
        ("Wi-Fi calling", _mend_wifi_calling),
        ("permissions", _mend_permissions),
        ("APN", _mend_apn),
    ),
    "data": (
        ("network", _mend_network),
        ("line", _mend_line),
        ("data saver", _mend_data_saver),
        ("network mode", _mend_network_mode),
        ("VPN", _mend_vpn),
    ),
    "service": (("network", _mend_network), ("suspension", _mend_suspension), ("APN", _mend_apn)),
}
"""What may be wrong, by the trouble, in the order in which it is looked at."""


def _read_object(answer: str) -> dict[str, Any]:
    """Reads what a tool answered; {} if that is an error."""
    try:
        return json.loads(answer)
    except ValueError:
        return {}


def _call(name: str, **arguments: Any) -> str:
    return turn_format.write_calls([Action(name, arguments)])
