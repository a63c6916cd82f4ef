"""What an agent asks the user of a telephone to do, read from its words by rules.

A message is read clause by clause: "turn airplane mode off and restart your phone" is two. A clause without a verb has
that of the one before it ("check data saver and roaming"), and a pronoun stands for what was last asked for ("is data
saver on? if so, turn it off").
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from rollouts.domains.tau2.world import Action


class Setting(NamedTuple):
    """A switch of the phone."""

    look: str  # the tool that shows it
    is_on: str  # what that says where it is on
    switch: str  # the tool that turns it over
    wanted: bool  # where a request does not say which


class Topic(NamedTuple):
    """Something that an agent may ask for."""

    words: re.Pattern[str]
    look: Sequence[Action] = ()  # tools that show it
    do: Sequence[Action] = ()  # tools that change it, in this order
    setting: Setting | None = None  # a switch, in place of `do`


def _topic(words: str, *look: str | Action, do: Sequence[Action] = (), setting: Setting | None = None) -> Topic:
    tools = [one if isinstance(one, Action) else Action(one, {}) for one in look]
    return Topic(re.compile(words, re.IGNORECASE), tools, do, setting)


_APP = {"app_name": "messaging"}
_PERMISSIONS = Action("check_app_permissions", _APP)
_NETWORK = "check_network_status"
_REBOOT = (Action("reboot_device", {}),)
TOPICS = (  # the first one that fits a sentence is what it asks for
    _topic(
        r"payment request|\bpay\b|payment",
        "check_payment_request",
        do=[Action("check_payment_request", {}), Action("make_payment", {})],
    ),
    _topic(
        r"air ?plane mode|flight mode",
        _NETWORK,
        setting=Setting(_NETWORK, "Airplane Mode: ON", "toggle_airplane_mode", wanted=False),
    ),
    _topic(
        r"data sav(?:er|ing)|data restriction",
        "check_data_restriction_status",
        setting=Setting(
            "check_data_restriction_status", "Data Saver mode is ON", "toggle_data_saver_mode", wanted=False
        ),
    ),
    _topic(
        r"wi-?fi calling",
        "check_wifi_calling_status",
        setting=Setting("check_wifi_calling_status", "turned ON", "toggle_wifi_calling", wanted=False),
    ),
    _topic(
        r"roaming",
        _NETWORK,
        setting=Setting(_NETWORK, "Data Roaming Enabled: Yes", "toggle_roaming", wanted=True),
    ),
    _topic(
        r"network mode|preferred network|network preference|network type",
        "check_network_mode_preference",
        do=[Action("set_network_mode_preference", {"mode": "4g_5g_preferred"})],
    ),
    _topic(r"\bvpn\b", "check_vpn_status", do=[Action("disconnect_vpn", {})]),
    _topic(r"\bapn\b|access point", "check_apn_settings", do=[Action("reset_apn_settings", {})]),
    _topic(
        r"re-?boot|re-?start|power[ -]cycle|(?:turn|switch|power) (?:off )?(?:the|your) (?:phone|device)\b"
        r"|(?:turn|switch|power) it off (?:and|then)",
        do=_REBOOT,
    ),
    _topic(r"\bsim\b", "check_sim_status", do=[Action("reseat_sim_card", {})]),
    _topic(r"storage", _PERMISSIONS, do=[Action("grant_app_permission", {**_APP, "permission": "storage"})]),
    _topic(r"\bsms\b", _PERMISSIONS, do=[Action("grant_app_permission", {**_APP, "permission": "sms"})]),
    _topic(r"permission", _PERMISSIONS),
    _topic(r"speed ?test|internet speed|\bspeed\b", "run_speed_test"),
    _topic(r"\bmms\b|picture message", "can_send_mms"),
    _topic(
        r"mobile data|cellular data|\bdata\b (?:switch|connection|on|off)|turn (?:on|off) (?:your )?data",
        _NETWORK,
        setting=Setting(_NETWORK, "Mobile Data Enabled: Yes", "toggle_data", wanted=True),
    ),
    _topic(r"network status|signal", _NETWORK),
    _topic(r"status bar|top of (?:your|the) screen", "check_status_bar"),
)


_CHANGE = re.compile(
    r"\b(?:turn|switch|toggle|enable|disable|activate|deactivate|disconnect|reset|re-?boot|re-?start|re-?seat"
    r"|re-?insert|take out|remove|set|change|grant|allow|give|pay|make the payment|accept|power[ -]cycle)\b"
    r"|\b(?:make sure|ensure|(?:should|must) (?:not )?be|needs? to be|ha(?:s|ve) to be)\b.*"
    r"\b(?:on|off|enabled|disabled|active|inactive|set to|disconnected|granted|allowed|inserted|seated|reset)\b",
    re.IGNORECASE,
)
_LOOK = re.compile(
    r"\b(?:check|look|see|tell|show|shows|what|which|is|are|run|try|test|confirm|verify|can you|could you)\b",
    re.IGNORECASE,
)
_LOOK_FIRST = re.compile(
    r"^\W*(?:is|are|does|do you|what|which)\b|\b(?:check|look|see|tell|show|confirm|verify|know)\b", re.IGNORECASE
)
_DONE = re.compile(r"\b(?:i have|i've|has been|have been|was|were)\b", re.IGNORECASE)
_PLEASE = re.compile(r"\b(?:please|can you|could you)\b", re.IGNORECASE)
_NOT = re.compile(
    r"\b(?:do not|don't|never|no need to|need not|needn't|without|instead of|rather than)\b"
    r"(?! (?:you )?(?:forget|hesitate))",
    re.IGNORECASE,
)
_OFF = re.compile(
    r"\b(?:off|disabled?|deactivated?|not (?:be )?(?:on|enabled|active|activated|turned on))\b", re.IGNORECASE
)
_ON = re.compile(
    r"\bon\b(?! (?:your|the|my|this) (?:phone|device|end|side|account|line|screen))|\b(?:enabled?|activated?)\b"
    r"|\b(?:turn|switch|toggle) on\b",
    re.IGNORECASE,
)
_TOGGLE = re.compile(r"\btoggle\b", re.IGNORECASE)
_CYCLE = re.compile(
    r"\b(?:on|off),? (?:and|then|and then) (?:then )?(?:back |(?:turn|switch|toggle) (?:it )?(?:back )?)?(on|off)\b",
    re.IGNORECASE,
)
_PRONOUN = re.compile(
    r"\b(?:turn|switch|toggle|put|set|take|enable|disable|disconnect|reset|re-?seat|re-?insert|remove|change|grant|pay)"
    r" (?:it|them|this|that)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_CLAUSE = re.compile(r",? (?:and|then|but) (?:then )?|[;:,] ")


class Request(NamedTuple):
    """A topic, and what to do about it."""

    topic: Topic
    changes: bool = False  # or only looks
    wanted: bool | None = None  # whether a switch is to be on; None: it is to be turned over
    cycles: bool = False  # goes through the other position


def split_sentences(heard: str) -> list[str]:
    """Splits a message at ends of sentences and of lines."""
    return _SENTENCE.split(heard)


def find_requests(heard: str) -> list[Request]:
    """Finds what an agent asks for. What it says it has done itself, and what is not to be done, is no request."""
    found: list[Request] = []
    for sentence in split_sentences(heard):
        before: Request | None = None  # of the clause before, whose verb goes on
        for clause in [sentence] if _CYCLE.search(sentence) else _CLAUSE.split(sentence):
            before = _read_clause(clause, before, found[-1].topic if found else None)
            if before and before.changes and found and found[-1].topic is before.topic:
                found[-1] = before
            elif before and before.topic not in [request.topic for request in found]:
                found.append(before)
    return found


def _read_clause(clause: str, before: Request | None, last: Topic | None) -> Request | None:
    """Reads one clause after another; `last` is the topic that was asked for last."""
    if _DONE.search(clause) and not _PLEASE.search(clause):
        return None
    clause, *denied = _NOT.split(clause, maxsplit=1)
    topic = next((topic for topic in TOPICS if topic.words.search(clause)), None)
    if last and _PRONOUN.search(clause) and (topic is None or topic.do is _REBOOT):
        topic = last
    if topic is None:
        return None if denied else before
    change, look, first = _CHANGE.search(clause), _LOOK.search(clause), _LOOK_FIRST.search(clause)
    if not change and not look:
        return before and before._replace(topic=topic)
    if not change or (first and first.start() < change.start()) or not (topic.do or topic.setting):
        return Request(topic)
    if cycle := _CYCLE.search(clause):
        return Request(topic, changes=True, wanted=cycle[1].lower() == "on", cycles=True)
    wanted = False if _OFF.search(clause) else True if _ON.search(clause) else None
    if wanted is None and topic.setting and not _TOGGLE.search(clause):
        wanted = topic.setting.wanted
    return Request(topic, changes=True, wanted=wanted)
