"""A user of the telephone company who follows rules, not an LLM: a pure function of the task, a seed and what is said.

They say what their trouble is, answer questions about themselves, do one thing at a time of what they are asked for in
words, look whether that helped, and stop when the trouble is over. What they say of the phone is what its tools say.
They know what the benchmark's scenario tells them, and nothing of what is wrong.
"""

import random
import re
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

from rollouts.domains.tau2.users import Act
from rollouts.domains.tau2.world import Action, Result

Using = Generator[Sequence[Action], Sequence[Result], str]
"""Yields tools to be used, gets what they answer, returns what to say."""

PATIENCE = 4
"""After so many answers in a row that ask for nothing and tell nothing, the user gives up."""

_TROUBLES = {  # by the intent in a task's id
    "service": (
        "My phone shows 'No Service', and has done so for hours.",
        "Hello, I have had no service on my phone for the past few hours.",
        "I cannot call anybody, my phone says 'No Service'. Can you help?",
    ),
    "mobile_data": (
        "My mobile data does not work properly, it stops or is very slow. I need excellent speed again.",
        "Hi, my mobile internet is slow or does not work at all. I want it to be excellent, and I have no Wi-Fi here.",
        "The internet on my phone is broken or crawling. Please get me excellent speed, nothing less.",
    ),
    "mms": (
        "I cannot send picture messages (MMS) with my messaging app.",
        "Hello, for a few hours MMS messages cannot be sent from my phone. Can you fix that?",
        "My messaging app does not send MMS any more. I want to send one.",
    ),
}


class Goal(NamedTuple):
    """How a user finds out whether the trouble is over."""

    tool: str
    reached: Callable[[str], bool]  # by what the tool answers


_GOALS = {
    "service": Goal("check_status_bar", lambda seen: "📶" in seen),
    "mobile_data": Goal("run_speed_test", lambda seen: "(Excellent)" in seen),
    "mms": Goal("can_send_mms", lambda seen: "can send MMS" in seen),
}


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
    _topic(r"re-?boot|re-?start|turn (?:it|the phone|your phone) off and", do=[Action("reboot_device", {})]),
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
    r"\b(?:turn|switch|toggle|enable|disable|disconnect|reset|re-?boot|re-?start|re-?seat|re-?insert|take out|remove"
    r"|set|change|grant|allow|give|pay|make the payment|accept)\b",
    re.IGNORECASE,
)
_LOOK = re.compile(
    r"\b(?:check|look|see|tell|show|shows|what|which|is|are|run|try|test|confirm|verify|can you|could you)\b",
    re.IGNORECASE,
)
_DONE = re.compile(r"\b(?:i have|i've|has been|have been|was|were)\b", re.IGNORECASE)
_PLEASE = re.compile(r"\b(?:please|can you|could you)\b", re.IGNORECASE)
_OFF = re.compile(r"\b(?:off|disable|deactivate)\b", re.IGNORECASE)
_ON = re.compile(r"\b(?:on|enable|activate)\b", re.IGNORECASE)
_TOGGLE = re.compile(r"\btoggle\b", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_TRANSFER = re.compile(r"\byou (?:are|will be|have been) (?:being )?transferred to\b", re.IGNORECASE)
_NEWS = re.compile(
    r"\b(?:i have|i've|has been|is now|are now|now)\b.*\b(?:enabled|refuel|added|resumed|active|restored|lifted|sent"
    r"|fixed|applied)|(?:try|test|check) (?:it )?again|does it work|is it (?:working|resolved|fixed)"
    r"|(?:resolved|fixed|working) now",
    re.IGNORECASE,
)
_ASKING = re.compile(r"\b(?:please|provide|tell|share|give|need|confirm|let me know)\b", re.IGNORECASE)
_QUESTIONS = (  # asked for, and what is said; {…} is what the scenario tells the user
    (re.compile(r"phone number|your number|which (?:line|number)", re.IGNORECASE), "My phone number is {phone}."),
    (re.compile(r"\bname\b|who am i speaking", re.IGNORECASE), "My name is {name}."),
    (
        re.compile(r"abroad|travel|where are you|location|outside (?:your|the)|which country", re.IGNORECASE),
        "I am {place}.",
    ),
    (
        re.compile(r"refuel|more data|add (?:.{0,12}\bgb\b|data)|\bgb\b", re.IGNORECASE),
        "Yes, please refuel 2.0 GB of data.",
    ),
    (re.compile(r"\bplans?\b", re.IGNORECASE), "I do not want to change my plan."),
    (re.compile(r"date of birth|\bemail\b|account|customer id", re.IGNORECASE), "I do not have that at hand."),
)
_KNOWN = re.compile(
    r"You are (?P<name>[^.]+?) with phone number (?P<phone>[-\d]+)\.(?: You are currently (?P<place>[^.]+)\.)?"
)


class RulesUser:
    """The user of one dialogue, as a `users.User`."""

    def __init__(self, intent: str, known: str, seed: int):
        """`intent` and `known` are the task's: what the trouble is, and what the user knows of themselves.

        Raises ValueError for another intent than telecom's.
        """
        if intent not in _TROUBLES:
            raise ValueError(f"config.data.user: rules are for the intents {sorted(_TROUBLES)}, got {intent!r}")
        self._goal, self._trouble = _GOALS[intent], random.Random(seed).choice(_TROUBLES[intent])
        found = _KNOWN.search(known)
        self._known = {name: value or "at home" for name, value in found.groupdict().items()} if found else {}
        self._begun, self._solved, self._in_vain, self._failed = False, False, 0, 0

    async def speak(self, heard: str, act: Act) -> str:
        """See `users.User`."""
        using = self.respond(heard)
        results = None
        while True:
            try:
                calls = using.send(results)
            except StopIteration as done:
                return done.value
            results = act(calls)

    def respond(self, heard: str) -> Using:
        """Answers what the agent said, using tools first: for an event loop of any kind."""
        if not self._begun:
            self._begun = True
            return self._trouble
        if _TRANSFER.search(heard):
            return "All right. ###TRANSFER###"
        news, asked = _NEWS.search(heard), _find_requests(heard)
        said = [] if news else self._answer_questions(heard)
        if asked:
            topic, sentence = asked[0]
            seen = yield from self._handle(topic, sentence)
            said += seen
            if len(asked) > 1:
                said.append("One thing at a time, please.")
        elif news:
            said += yield from self._look_for_goal()
        self._in_vain = 0 if said else self._in_vain + 1
        if self._solved:
            return f"{' '.join(said)} It works now, thank you. ###STOP###"
        if self._in_vain == PATIENCE:
            return "This leads nowhere. Goodbye. ###STOP###"
        return " ".join(said) or f"What shall I do? {self._trouble}"

    def _answer_questions(self, heard: str) -> list[str]:
        asked = [part for part in _SENTENCE.split(heard) if part.rstrip().endswith("?") or _ASKING.search(part)]
        said = [answer for words, answer in _QUESTIONS if any(words.search(part) for part in asked)]
        return [answer.format(**self._known) for answer in said] if self._known else []

    def _handle(self, topic: Topic, sentence: str) -> Generator[Sequence[Action], Sequence[Result], list[str]]:
        """Does what a sentence asks for; returns what there is to say of it."""
        if not _CHANGE.search(sentence) or not (topic.do or topic.setting):
            seen = yield topic.look or topic.do
            if [call.name for call in topic.look] == [self._goal.tool]:
                self._judge(seen[0].content)
            return [result.content for result in seen]
        calls = list(topic.do)
        if setting := topic.setting:
            toggled = bool(_TOGGLE.search(sentence))
            wanted = False if _OFF.search(sentence) else True if _ON.search(sentence) else setting.wanted
            if not toggled:
                (shown,) = yield [Action(setting.look, {})]
                if (setting.is_on in shown.content) == wanted:
                    return [shown.content]
            calls = [Action(setting.switch, {})]
        done = yield [*calls, Action(self._goal.tool, {})]
        self._judge(done[-1].content)
        return [*(result.content for result in done), *self._complain()]

    def _look_for_goal(self) -> Generator[Sequence[Action], Sequence[Result], list[str]]:
        (seen,) = yield [Action(self._goal.tool, {})]
        self._judge(seen.content)
        return [seen.content, *self._complain()]

    def _judge(self, seen: str) -> None:
        """Notes whether the trouble is over, by what the goal's tool shows."""
        self._solved = self._goal.reached(seen)
        self._failed += not self._solved

    def _complain(self) -> list[str]:
        """What to say of an attempt: after the first one in vain, some frustration."""
        return ["That did not help, sadly."] if not self._solved and self._failed > 1 else []


def _find_requests(heard: str) -> list[tuple[Topic, str]]:
    """Finds what an agent asks for, sentence by sentence; what it says it has done itself is no request."""
    found = []
    for sentence in _SENTENCE.split(heard):
        topic = next((topic for topic in TOPICS if topic.words.search(sentence)), None)
        theirs = _DONE.search(sentence) and not _PLEASE.search(sentence)
        if topic and not theirs and (_CHANGE.search(sentence) or _LOOK.search(sentence)):
            found.append((topic, sentence))
    return found
