"""A user of the telephone company who follows rules, not an LLM: a pure function of the task, a seed and what is said.

They say what their trouble is, answer questions about themselves, do one thing at a time of what they are asked for in
words, look whether that helped, and stop when the trouble is over. What they say of the phone is what its tools say.
They know what the benchmark's scenario tells them, and nothing of what is wrong.
"""

import random
import re
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

from rollouts.domains.tau2.requests import Request, find_followed, find_requests, split_sentences, write_plainly
from rollouts.domains.tau2.users import Act
from rollouts.domains.tau2.world import Action, Result

Using = Generator[Sequence[Action], Sequence[Result], str]
"""Yields tools to be used, gets what they answer, returns what to say."""

PATIENCE = 4
"""After so many answers in a row that tell nothing new, the user gives up."""

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


_UNWILLING = "I would rather not do that."
_TRANSFER = re.compile(
    r"(?<!that )\byou (?:are (?:now )?being transferred\b(?! to (?:nobody|no one|none)\b| from\b"
    r"| to (?:an?|the|our|your|another) (?:\w+ )?(?:plan|network|line|number|mode|robot)\b)"
    r"|have (?:now )?been transferred to (?:an?|the|our|another|human)\b)",
    re.IGNORECASE,
)
_UNREAL = re.compile(  # it is not happening
    r"\b(?:if|unless|when|once|until|before|whether|as soon as|never|nobody|no one|would|might|suppose|imagine"
    r"|doubt|false|ignore|yesterday|ago|in the past|not (?:true|mean|say|think|claim|believe))\b|\?",
    re.IGNORECASE,
)
_NEWS = re.compile(
    r"(?:try|test|check) (?:it )?again|does it work|is it (?:working|resolved|fixed)|(?:resolved|fixed|working) now",
    re.IGNORECASE,
)
_HAVING = re.compile(r"\b(?:i have|i've|has been|is now|are now|now)\b", re.IGNORECASE)
_DEED = re.compile(
    r"\b(?:enabled|refuel|added|resumed|active|restored|lifted|sent|fixed|applied)", re.IGNORECASE
)  # news where it comes after one of _HAVING
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
        self._told = {_UNWILLING}  # so far, or tells nothing new at once

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
        heard = write_plainly(heard)
        if _is_transfer(heard):
            return "All right. ###TRANSFER###"
        news, asked = _has_news(heard), find_requests(heard)
        said = [] if news else self._answer_questions(heard)
        if asked:
            said += yield from self._handle(asked[0])
            if len(asked) > 1:
                said.append("One thing at a time, please.")
        elif news:
            said += yield from self._look_for_goal()
        self._in_vain = self._in_vain + 1 if set(said) <= self._told else 0
        self._told |= set(said)
        if self._solved:
            return f"{' '.join(said)} It works now, thank you. ###STOP###"
        if self._in_vain == PATIENCE:
            return "This leads nowhere. Goodbye. ###STOP###"
        return " ".join(said) or f"What shall I do? {self._trouble}"

    def _answer_questions(self, heard: str) -> list[str]:
        asked = [part for part in split_sentences(heard) if part.rstrip().endswith("?") or _ASKING.search(part)]
        said = [answer for words, answer in _QUESTIONS if any(words.search(part) for part in asked)]
        return [answer.format(**self._known) for answer in said] if self._known else []

    def _handle(self, request: Request) -> Generator[Sequence[Action], Sequence[Result], list[str]]:
        """Does what is asked for; returns what there is to say of it."""
        topic, setting = request.topic, request.topic.setting
        if not request.is_possible():
            return [_UNWILLING]
        if not request.changes:
            seen = yield topic.look
            if [call.name for call in topic.look] == [self._goal.tool]:
                self._judge(seen[0].content)
            return [result.content for result in seen]
        calls = list(topic.do)
        if setting:
            calls = [Action(setting.switch, {})]
            if request.wanted is not None:
                (shown,) = yield [Action(setting.look, {})]
                if (setting.is_on in shown.content) == request.wanted:
                    if not request.cycles:
                        return [shown.content]
                    calls *= 2
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


def _is_transfer(heard: str) -> bool:
    """Whether the agent says that the user is being transferred: no promise, no condition, no denial, no question."""
    return any(_TRANSFER.search(part) and not _UNREAL.search(part) for part in split_sentences(heard))


def _has_news(heard: str) -> bool:
    """Whether the agent says that it did something, or wants to know whether it works now."""
    return bool(_NEWS.search(heard)) or any(find_followed(_HAVING, _DEED, line) for line in heard.split("\n"))
