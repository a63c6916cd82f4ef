"""Checks what an agent says of the platform's record.

Two ways lead to what a sentence says, and so any wording does: a table of what records are mostly about (`CLAIMS`), and
the wordings of the kinds of records (`words.records`), of which the nearest is taken. The record is read the same way.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from rollouts.domains.fds.embedded.facts import TIME, clock_of
from rollouts.domains.fds.embedded.language import Words, split_sentences
from rollouts.domains.fds.scenario import Record
from rollouts.domains.fds.words import records

NEAR = 0.55  # the share of a wording's weight that a sentence about the record must have
EXACT = 0.9  # what comes nearer than this to a wording means that wording, whatever else it might mean
NEAR_UNFRAMED = 0.8  # and one that does not name the record

CLAIMS = {
    "late": r" (?:late|(?:minutes|hours?|much|far|way) later|later than|delay(?:ed|s)?|minutes? (?:after the|behind|over the|past the|beyond the) (?:promised|planned|expected|schedule|estimate)[a-z]*|minutes? longer than|behind schedule|after the promised) ",
    "on_time": r" (?:on time|on schedule|in time|punctual(?:ly)?|(?:at|within|before|by) the (?:promised|planned|expected|estimated) [a-z]+|no (?:\w+ )?delay|not (?:\w+ ){0,2}(?:any )?delay(?:ed)?|not late|without (?:any )?delay|early|as promised|as planned) ",
    "transit": r" (?:after (?:the )?(?:pickup|pick up|it was picked up|leaving|collection)|from (?:the )?(?:pickup|pick up|restaurant|kitchen|merchant) to|between pickup and|since pickup) ",
    "held": r" (?:courier|rider|driver|food|meal|bag|order|it|them|\d+ minutes)(?: \S+){0,4}? (?:held|kept|carried|carrying|drove|with the courier|in the (?:courier 's )?bag for|sat (?:with|in)|waited with|on the (?:road|way) for|holding|rider had|courier had) ",
    "spilled": r" (?:spilled|spilt|spill|leaked|leaking|leak|open bag|bag was open|damaged?|torn|burst|wet bag|crushed|broken) ",
    "sealed": r" (?:sealed|unopened|closed|intact|undamaged|not (?:damaged|open|spilled|leaking)|no (?:damage|leak|spill)|unbroken) ",
    "short": r" (?:(?:one|1|an) (?:item|piece|thing) (?:less|short|fewer|was (?:missing|left out|not (?:packed|scanned)))|(?:item|thing|piece) (?:was |is )?(?:missing|left out|forgotten|not (?:packed|scanned))|not packed|not scanned|packed (?:too few|one less|fewer)|forgot (?:an|one|the) (?:item|xitem\d)|incomplete|one (?:too few|less|short)) ",
    "complete": r" (?:all (?:the |of the |your )?(?:\d+ )?(?:items|things|products)(?: \w+)? (?:scanned|packed|there|in the bag|accounted|checked)|everything (?:was |is )?(?:scanned|packed|there|checked)|complete|each item was|nothing (?:was |is )?(?:missing|left out)|every item) ",
    "complaints": r" (?:\d+|several|many|more|other) (?:(?:other|taste|more|similar) )*(?:complaints?|customers? (?:have )?complain(?:ed)?|people (?:have )?complain(?:ed)?|guests (?:have )?complain(?:ed)?)",
    "no_complaints": r" (?:no (?:(?:other|taste|more|similar|further) )*complaints?|nobody (?:else )?(?:has )?complain(?:ed)?|no one (?:else )?(?:has )?complain(?:ed)?|only (?:one|complaint)|without complaints) ",
    "oven": r" (?:oven (?:fault|failure|problem|defect|breakdown|was (?:faulty|broken|down|defective)|broke|failed|malfunction)|fault (?:of|in|with) the oven|faulty oven|broken oven|stove) ",
    "temperature": r" (?:(?:normal|right|correct|usual|fine|good|required)(?: \w+){0,2} temperature|temperature(?:s)?(?: \w+){0,4} (?:normal|right|correct|fine|ok|okay|in order|within range)|at \d+ degrees|of \d+ degrees|hot enough) ",
    "hot": r" (?:was|were|still) (?:hot|warm) ",
    "nothing": r" (?:(?:nothing|no entry|no entries|nothing at all|no abnormal (?:report|entry)|no (?:report|remark|incident|irregularit(?:y|ies)|anomal(?:y|ies)|information|data))(?: \w+)? ?(?:unusual|abnormal|special|out of the ordinary|about|on|in|of|that|here|there|to)?|is (?:silent|empty)|says nothing|shows nothing) ",
}
"""What a record, or an agent, can say: claim -> pattern of whole words."""

OPPOSITES = {"late": "on_time", "spilled": "sealed", "short": "complete", "complaints": "no_complaints", "oven": "temperature"}
CONTRARY = OPPOSITES | {opposite: claim for claim, opposite in OPPOSITES.items()}
_CLAIMS = {claim: re.compile(pattern) for claim, pattern in CLAIMS.items()}

_RECORD = (
    r"(?:records?|logs?|system|data|screen|handover photos?|handover|entry|entries|report|notes?|platform|packing list|scan|files?|protocol|history)"
)
_SAYS = r"(?:shows?|says?|said|confirms?|has|lists?|states?|tells?|notes?|reports?|reads?|knows|contains?|indicates?|proves?|mentions?|reported|see|found)"
FRAMES = tuple(
    re.compile(pattern)
    for pattern in (
        rf" (?:the|our|a|my|this|platform) (?:(?:\w+) )?{_RECORD}(?: (?:\w+|'s)){{0,4}} (?:only |also |still |clearly |does not )?{_SAYS} (?!that (?:if|what))",
        rf" (?:according to|as per|per|judging by|based on|in|from|on|as far as) (?:the |our |my )?(?:\w+ )?{_RECORD}(?: \w+)?(?= |,)",
        rf" (?:says|shows|confirms) (?:the|our) {_RECORD} ",
        r" (?:courier|merchant|kitchen|cook|rider|driver) (?:\w+ )?(?:reported|wrote|noted|confirmed|packed|held|kept|carried|had) ",
        r" i (?:have )?(?:checked|looked it up|found|read|can see|see) (?:, |in (?:the|our|my) |a note |from (?:the|our) |here (?:that )?)(?!your |photo |photos )",
        rf"^ {_RECORD} ,? ",
    )
)
_NOT_SAID = re.compile(
    r" (?:if|whether|wonder|hope|do not know|does not help|not see|can not see|what|let me|let us|will|going to|you (?:say|said|told|wrote|mentioned|think)) "
)
_GENERAL = frozenset({"on_time", "complete", "no_complaints", "sealed", "transit", "held"})  # true also where a record says it in detail
_OFF_RECORD = frozenset("name voucher vouchers photo address account message messages".split())
_MEASURED = re.compile(r"(?<= )(?:\d{1,6}|one) (?:\S+ )?(?:minutes?|degrees?|complaints?|complained|customers?|grams?|stops?)(?= )")
_NUMBER = re.compile(r"(?<= )(\d{1,6})(?= )")


class Testimony(NamedTuple):
    """What a record says, in the shape in which sentences are checked."""

    claims: frozenset[str]
    wordings: tuple[tuple[frozenset[str], bool], ...]  # of its kind: the words that mean something, is there a negation?
    kind: str
    numbers: frozenset[int]
    supports: bool | None


_STOP = frozenset(
    "the a an of to at in on for by and or that it was is were are has have had be been our your my this from with its their "
    "record records system log says shows say show here as i you we see data according only so far today order x there he "
    "screen not no never without nobody none nothing customer one than them then".split()
)
_OFF_RECORD = frozenset("nam voucher photo addres account messag".split())
_NEGATIVE = re.compile(r" (?:not|no|never|less than|without|nobody|none|nothing|neither|nor) ")


@functools.lru_cache(maxsize=256)
def read_testimony(record: Record) -> Testimony:
    """Prepares a record for checking."""
    text = record.text
    kind = records.read_record(text, record.supports).kind if text else "silent"
    texts = (text,) if kind == "other" else records.list_wordings(kind, record.numbers)
    claims = frozenset().union(*(read_claims(_plain(wording)) for wording in texts))
    for claim, opposite in OPPOSITES.items():
        if {claim, opposite} <= claims:  # a wording may be ambiguous on its own
            claims -= {claim, opposite} - read_claims(_plain(text))
    wordings = tuple((_content(_plain(wording)), _is_negative(_plain(wording))) for wording in texts)
    return Testimony(claims, wordings, kind, frozenset(record.numbers), record.supports)


def read_claims(text: str) -> frozenset[str]:
    """Returns what a text says that a record can say, keys of CLAIMS."""
    found = {claim for claim, pattern in _CLAIMS.items() if pattern.search(text)}
    for claim, opposite in OPPOSITES.items():
        if claim in found and opposite in found:
            found.discard(claim)
    if len(found) > 1:
        found.discard("nothing")
    if "transit" in found:
        found -= {"late", "held"}
    return frozenset(found)


def check_record(sentence: Words, record: Record, times: Collection[int], complaint_claim: str, listens: bool) -> str:
    """Tells how a sentence stands to the record: explain_true | explain_false | "" if it says nothing of it.

    Args:
      sentence: with marks for names.
      record: the platform's.
      times: of the order, minutes of the day.
      complaint_claim: what the customer says anyway; who repeats it without naming the record only listens.
      listens: does the sentence show understanding? Then it says nothing of a record that it does not name.
    """
    text, testimony = sentence.text, read_testimony(record)
    if sentence.asks:
        return ""
    framed = any(frame.search(text) for frame in FRAMES)
    if framed and (backing := _check_backing(text, testimony.supports)):
        return backing
    if _NOT_SAID.search(text) or (listens and not framed):
        return ""
    found = read_claims(text)
    content, negative = _content(text), _is_negative(text)
    near, other = _nearness(content, negative, testimony)
    if not framed:
        measured = bool(_MEASURED.search(text))
        contrary = {CONTRARY.get(claim, "") for claim in found} & testimony.claims
        about = (found & testimony.claims or contrary) and (measured or found - {"hot", "nothing", complaint_claim})
        if not about and not (near >= NEAR_UNFRAMED and len(content) > 1):
            return ""
    numbers = {int(number) for number in _NUMBER.findall(TIME.sub(" ", text))}
    wrong = bool(numbers - testimony.numbers) or any(clock_of(match) not in times for match in TIME.finditer(text))
    exactly = near >= EXACT and near >= other
    if other >= EXACT and other > near and not (found and found <= testimony.claims & _GENERAL):
        return "explain_false"
    if not exactly and {CONTRARY.get(claim, "") for claim in found} & testimony.claims:
        return "explain_false"
    if found and found <= testimony.claims or near >= NEAR and near >= other:
        return "explain_false" if wrong else "explain_true"
    return "explain_false" if framed and (found or len(content) > 1) and not content & _OFF_RECORD else ""


_BACKS = re.compile(r" (?:confirms?|supports?|backs?|agrees? with|matches|bears? out|proves?) (?:\S+ ){0,2}?(?:you|your|what|that you|this|it|up) ")
_OPPOSES = re.compile(r" (?:contradicts?|speaks? against|does not match|says otherwise|tells? (?:another|a different)|differs|disagrees?|does not fit) ")


def _check_backing(text: str, supports: bool | None) -> str:
    """Checks a sentence that says whether the record bears the customer out; "" if it does not say that."""
    if _OPPOSES.search(text):
        return "explain_true" if supports is False else "explain_false"
    if not _BACKS.search(text) or re.search(r" (?:if|whether) ", text) or read_claims(text):
        return ""
    said = not re.search(r" (?:not|nothing|never|no) ", text)
    return "explain_true" if said == (supports is True) else "explain_false"


def _plain(wording: str) -> str:
    """A wording in the shape in which sentences are read, one space on each side."""
    return f" {' '.join(word for sentence in split_sentences(wording.replace(':', ' '), ()) for word in sentence)} "


def _content(text: str) -> frozenset[str]:
    """The words of a text that mean something, without endings; numbers are checked elsewhere."""
    return frozenset(_stem(word) for word in text.split() if word.isalpha() and word not in _STOP)


def _stem(word: str) -> str:
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            word = word[: -len(ending)]
            break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


def _is_negative(text: str) -> bool:
    return len(_NEGATIVE.findall(text)) % 2 == 1


@functools.cache
def _list_wordings() -> tuple[tuple[str, frozenset[str], bool], ...]:
    """Every wording of every kind of record: (kind, words that mean something, is there a negation?)."""
    kinds = [(kind.name, records.list_wordings(kind.name, (1,) if kind.numbers else ())) for kind in records.list_kinds()]
    return tuple((name, _content(_plain(text)), _is_negative(_plain(text))) for name, texts in kinds for text in texts)


@functools.cache
def _weigh_words() -> dict[str, float]:
    """How much each word tells of a kind of record: the fewer wordings have it, the more."""
    counts = Counter(word for _, content, _ in _list_wordings() for word in content)
    return {word: math.log(len(_list_wordings()) / count) for word, count in counts.items()}


def _nearness(content: frozenset[str], negative: bool, testimony: Testimony) -> tuple[float, float]:
    """Returns how near a sentence comes to the record's wordings, and to those of other kinds; 0 to 1."""
    weights = _weigh_words()

    def share(wording: frozenset[str], other_negative: bool) -> float:
        total = sum(weights.get(word, 5.0) for word in wording)
        common = sum(weights.get(word, 5.0) for word in wording & content)
        return common / total if total and negative == other_negative else 0.0

    own = max(share(*wording) for wording in testimony.wordings)
    others = [share(wording, opposite) for kind, wording, opposite in _list_wordings() if kind != testimony.kind]
    return own, max(others)
