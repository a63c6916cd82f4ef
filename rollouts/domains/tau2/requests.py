"""What an agent asks the user of a telephone to do, read from its words by rules.

A message is read clause by clause: "turn airplane mode off and restart your phone" is two. A clause without a verb has
that of the one before it ("check data saver and roaming"), and a pronoun stands for what was last asked for ("is data
saver on? if so, turn it off"). A change that no tool of the user leads to is a request that is not possible: "turn on
your VPN", "take out the SIM card and leave it out".
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from rollouts.domains.tau2.world import Action


class Setting(NamedTuple):
    """A switch of the phone."""

    look: str  # the tool that shows it
    is_on: str  # what that says where it is on
    switch: str  # the tool that turns it over


class Topic(NamedTuple):
    """Something that an agent may ask for."""

    words: re.Pattern[str]
    look: Sequence[Action] = ()  # tools that show it
    do: Sequence[Action] = ()  # tools that change it, in this order
    leads: re.Pattern[str] | bool | None = None  # what asks for the state that `do` leads to: words, or on, or off
    setting: Setting | None = None  # a switch, in place of `do`


def _topic(
    words: str,
    *look: str | Action,
    do: Sequence[Action] = (),
    leads: str | bool | None = None,
    setting: Setting | None = None,
) -> Topic:
    tools = [one if isinstance(one, Action) else Action(one, {}) for one in look]
    asking = re.compile(leads, re.IGNORECASE) if isinstance(leads, str) else leads
    return Topic(re.compile(words, re.IGNORECASE), tools, do, asking, setting)


_APP = {"app_name": "messaging"}
_PERMISSIONS = Action("check_app_permissions", _APP)
_NETWORK = "check_network_status"
_REBOOT = (Action("reboot_device", {}),)
TOPICS = (  # the first one that fits a sentence is what it asks for
    _topic(
        r"payment request|\bpay\b|payment",
        "check_payment_request",
        do=[Action("check_payment_request", {}), Action("make_payment", {})],
        leads=r"\bpay\b(?! (?:me|us)\b)|\bmake (?:the|your|a) payment|\baccept",
    ),
    _topic(
        r"air ?plane mode|flight mode",
        _NETWORK,
        setting=Setting(_NETWORK, "Airplane Mode: ON", "toggle_airplane_mode"),
    ),
    _topic(
        r"data sav(?:er|ing)|data restriction",
        "check_data_restriction_status",
        setting=Setting("check_data_restriction_status", "Data Saver mode is ON", "toggle_data_saver_mode"),
    ),
    _topic(
        r"wi-?fi calling",
        "check_wifi_calling_status",
        setting=Setting("check_wifi_calling_status", "turned ON", "toggle_wifi_calling"),
    ),
    _topic(
        r"roaming",
        _NETWORK,
        setting=Setting(_NETWORK, "Data Roaming Enabled: Yes", "toggle_roaming"),
    ),
    _topic(
        r"network mode|preferred network|network preference|network type",
        "check_network_mode_preference",
        do=[Action("set_network_mode_preference", {"mode": "4g_5g_preferred"})],
        leads=r"^(?!.*(?:\bonly\b(?! to\b)|\boff\b|\bdisable|\bremove|\bto (?:\w+ ){0,3}[23]G))"
        r"(?!.*\b(?:away|anything but|except)\b).*(?:[45]G|\bLTE|\bautomatic)",
    ),
    _topic(r"\bvpn\b", "check_vpn_status", do=[Action("disconnect_vpn", {})], leads=False),
    _topic(
        r"\bapn\b|access point",
        "check_apn_settings",
        do=[Action("reset_apn_settings", {})],
        leads=r"\bre-?set|\bdefault",
    ),
    _topic(
        r"re-?boot|re-?start(?!(?:ing)? (?:the|your) (?:\w+ )?(?:app|router|computer)\b)|power[ -]cycle"
        r"|(?:turn|switch|power) (?:off )?(?:the|your) (?:phone|device)\b(?!')"
        r"|(?:turn|switch|power) it off (?:and|then)",
        do=_REBOOT,
        leads=r"re-?boot|re-?start|power[ -]cycle|\boff,? (?:and|then)\b.{0,40}\bon\b|\bit (?:back )?on\b",
    ),
    _topic(
        r"\bsim\b",
        "check_sim_status",
        do=[Action("reseat_sim_card", {})],
        leads=r"^(?!.*\b(?:another|different|trash)\b).*(?:\bre-?seat|\b(?:re-?)?insert(?:ing)?\b"
        r"|\b(?:is|be) (?:\w+ )?(?:inserted|seated)"
        r"|\bput (?:\w+ ){0,5}(?:back|in)\b)",
    ),
    _topic(
        r"storage", _PERMISSIONS, do=[Action("grant_app_permission", {**_APP, "permission": "storage"})], leads=True
    ),
    _topic(r"\bsms\b", _PERMISSIONS, do=[Action("grant_app_permission", {**_APP, "permission": "sms"})], leads=True),
    _topic(r"permission", _PERMISSIONS),
    _topic(r"speed ?test|internet speed|\bspeed\b", "run_speed_test"),
    _topic(r"\bmms\b|picture message", "can_send_mms"),
    _topic(
        r"mobile data|cellular data|\bdata\b (?:switch|connection|on|off)|turn (?:on|off) (?:your )?data",
        _NETWORK,
        setting=Setting(_NETWORK, "Mobile Data Enabled: Yes", "toggle_data"),
    ),
    _topic(r"network status|signal", _NETWORK),
    _topic(r"status bar|top of (?:your|the) screen", "check_status_bar"),
)


_VERB = re.compile(
    r"\b(?:turn|switch|toggle|enable|disable|activate|deactivate|disconnect|reset|re-?boot|re-?start|re-?seat"
    r"|re-?insert|insert|put|take (?:\w+ ){0,4}out|remove|set|change|grant|allow|give|pay|make the payment|accept"
    r"|power[ -]cycle)\b"
    r"|\b(?:try|mind) (?:turn|switch|toggl|enabl|disabl|disconnect|re-?sett|re-?boot|re-?start|re-?seat|re-?insert"
    r"|remov|grant)ing\b",
    re.IGNORECASE,
)
_MUST = re.compile(r"\b(?:make sure|ensure|(?:should|must) be|needs? to be|ha(?:s|ve) to be)\b", re.IGNORECASE)
_STATE = re.compile(
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
_DONE = re.compile(r"\b(?:i have|i've|has been|have been|was|were|i will|i'll|i am going to)\b", re.IGNORECASE)
_PLEASE = re.compile(
    r"\b(?:please|(?:can|could|would|will) you|(?:need|want|like|ask) you to|able to|possible to|how about|why not)\b",
    re.IGNORECASE,
)
_NOT = re.compile(  # what comes after it is not to be done
    r"(?:^\W*not|\b(?:(?:do|must|should|need|shall|may|can|ca|wo|better|please|to) not|not (?:to|allowed|supposed)"
    r"|never|no (?:need|reason|circumstances|account|means|case|re-?boot|re-?start|reset)|without|instead of"
    r"|rather than|nobody|no one|neither|nor|avoid|refrain|undo))\b(?! (?:you )?(?:forget|hesitate|only))",
    re.IGNORECASE,
)
_NEEDLESS = re.compile(  # nothing in its clause is to be done
    r"\bnot (?:yet |really )?(?:needed|necessary|required|recommended|advisable|useful|helpful)\b"
    r"|\b(?:unnecessary|needless|pointless|mistake|bad idea|wrong to|forbid|forbidden|against)\b",
    re.IGNORECASE,
)
_NOT_ON = re.compile(
    r"\bnot (be )?(?:(?:turned|switched) )?(?:on|enabled|active|activated|connected|granted|inserted|allowed(?! to))\b",
    re.IGNORECASE,
)
_NOT_OFF = re.compile(r"\bnot (be )?(?:(?:turned|switched) )?(?:off|disabled|inactive|deactivated)\b", re.IGNORECASE)
_OFF = re.compile(
    r"\b(?:off|disabl(?:e|ed|ing)|deactivat(?:e|ed|ing)|inactive|disconnect(?:ed|ing)?|remov(?:e|ed|ing)|denied|revoked)\b",
    re.IGNORECASE,
)
_ON = re.compile(
    r"\bon\b(?! (?:your|the|my|this) (?:phone|device|end|side|account|line|screen))"
    r"|\b(?:enabl(?:e|ed|ing)|activated?|active|grant(?:ed|ing)?|allow(?:ed)?|give|given)\b"
    r"|\b(?:turn|switch|toggle) on\b",
    re.IGNORECASE,
)
_REASON = re.compile(r"\b(?:if|because|since|when|unless|until|in case|so that)\b", re.IGNORECASE)
_TOGGLE = re.compile(r"\btoggl(?:e|ing)\b", re.IGNORECASE)
_CYCLE = re.compile(
    r"\b(?:on|off),? (?:and|then|and then) (?:then )?(?:back |(?:turn|switch|toggle) (?:it )?(?:back )?)?(on|off)\b",
    re.IGNORECASE,
)
_PRONOUN = re.compile(
    r"\b(?:turn|switch|toggle|put|set|take|enable|disable|disconnect|reset|re-?seat|re-?insert|insert|remove|change|grant"
    r"|pay) (?:it|them|this|that|the card)\b|\b(?:re-?insert|re-?seat)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_CLAUSE = re.compile(r",? (?:and|then|but) (?:then )?|[;,] |: (?![45]G)", re.IGNORECASE)
_SIGNS = str.maketrans(
    "\u2018\u2019\u02bc\u2032\u2010\u2012\u2013\u2212", "'" * 4 + "-" * 4, "\u00ad\u200b\u200c\u200d\ufeff"
)
_BLANK = re.compile(r"[ \t\f\v]+")
_ARE = re.compile(r"(?<=\w)'re\b", re.IGNORECASE)
_CONTRACTED = re.compile(
    r"\b(do|does|did|must|should|need|is|are|was|were|has|have|had|would|could|ca|wo)n'?t\b|\b(can)not\b", re.IGNORECASE
)


class Request(NamedTuple):
    """A topic, and what to do about it."""

    topic: Topic
    changes: bool = False  # or only looks
    asked: str = ""  # the words that ask for a change
    wanted: bool | None = None  # whether it is to be on; None: that is not said
    cycles: bool = False  # goes through the other position

    def is_possible(self) -> bool:
        """Returns whether the user has a tool that leads to what is asked for."""
        if not self.changes:
            return bool(self.topic.look)
        if self.topic.setting:
            return self.wanted is not None or bool(_TOGGLE.search(self.asked))
        if isinstance(self.topic.leads, bool):
            return self.wanted is self.topic.leads
        return bool(self.topic.leads.search(self.asked))


def write_plainly(heard: str) -> str:
    """Writes a message with typewriter's apostrophes, hyphens and single spaces, "do not" for "don't", "you are"."""
    plain = _BLANK.sub(" ", unicodedata.normalize("NFKC", heard).translate(_SIGNS))
    plain = _ARE.sub(" are", plain)
    return _CONTRACTED.sub(lambda found: f"{found[1] or found[2]} not", plain)


def split_sentences(heard: str) -> list[str]:
    """Splits a message at ends of sentences and of lines."""
    return _SENTENCE.split(heard)


def find_requests(heard: str) -> list[Request]:
    """Finds what an agent asks for in a message as `write_plainly` writes it.

    What it says it has done or will do itself, what is not to be done, and whether to do something, is no request.
    """
    found: list[Request] = []
    for sentence in split_sentences(heard):
        sentence = _NOT_OFF.sub(r"\1on", _NOT_ON.sub(r"\1off", sentence))
        polite = bool(_PLEASE.search(sentence))
        before: Request | None = None  # of the clause before, whose verb goes on
        for clause in [sentence] if _CYCLE.search(sentence) else _CLAUSE.split(sentence):
            may_change = polite or not clause.rstrip().endswith("?")
            before = _read_clause(clause, before, found[-1].topic if found else None, may_change)
            if before and before.changes and found and found[-1].topic is before.topic:
                found[-1] = before
            elif before and before.topic not in [request.topic for request in found]:
                found.append(before)
    return [request for request in found if request.changes or request.is_possible()]


def _read_clause(clause: str, before: Request | None, last: Topic | None, may_change: bool) -> Request | None:
    """Reads one clause after another; `last` is the topic that was asked for last."""
    if (_DONE.search(clause) and not _PLEASE.search(clause)) or _NEEDLESS.search(clause):
        return None
    clause, *denied = _NOT.split(clause, maxsplit=1)
    topic = next((topic for topic in TOPICS if topic.words.search(clause)), None)
    if last and _PRONOUN.search(clause) and (topic is None or topic.do is _REBOOT):
        topic = last
    if topic is None:
        return None if denied else before
    change, look, first = _find_change(clause), _LOOK.search(clause), _LOOK_FIRST.search(clause)
    if change is None and not look:
        return None if denied or not before else before._replace(topic=topic, asked=f"{before.asked} {clause}")
    looks_first = change is None or (first and first.start() < change)
    if looks_first or not may_change or not (topic.do or topic.setting):
        return Request(topic)
    asked = _REASON.split(clause[change:], maxsplit=1)[0]
    cycle = _CYCLE.search(clause)
    return Request(topic, True, asked, cycle[1].lower() == "on" if cycle else _read_state(asked), bool(cycle))


def find_followed(first: re.Pattern[str], then: re.Pattern[str], text: str) -> re.Match[str] | None:
    """Finds `first` where `then` comes after it: two searches, linear in the length of `text`."""
    found = first.search(text)
    return found if found and then.search(text, found.end()) else None


def _find_change(clause: str) -> int | None:
    """Finds where a clause begins to ask for a change."""
    found = _VERB.search(clause), find_followed(_MUST, _STATE, clause)
    return min((one.start() for one in found if one), default=None)


def _read_state(asked: str) -> bool | None:
    """Reads whether something is to be on, by what is said first; None where nothing is."""
    on, off = _ON.search(asked), _OFF.search(asked)
    if on and off:
        return on.start() < off.start()
    return True if on else False if off else None
