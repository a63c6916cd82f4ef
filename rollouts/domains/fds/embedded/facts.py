"""Checks what an agent says against the order and the platform's record: items, merchant, numbers, times, prices, claims.

What a record says is read from its own wording by the same table as the agent's sentences, so that any wording of the
same fact is as good as the record's.
"""

import functools
import re
from collections.abc import Iterable
from typing import NamedTuple

from rollouts.domains.fds.embedded.case import Case
from rollouts.domains.fds.embedded.language import Words, find_classes, is_known, load_foods, split_sentences


class Order(NamedTuple):
    """What is known of an order, in the shape in which sentences are checked."""

    names: frozenset[str]  # words of the items' and the merchant's names
    items: tuple[tuple[str, ...], ...]  # the words of each item's name, without plural endings
    quantities: tuple[int, ...]
    merchant: tuple[str, ...]
    numbers: dict[str, frozenset[int]]  # by unit (a key of UNITS): the numbers that are right
    times: frozenset[int]  # minutes of the day
    prices: frozenset[int]  # cents
    known: frozenset[str]  # words that are none of the dictionary's and yet no typing mistakes
    claims: frozenset[str]  # of the record, see CLAIMS
    record: frozenset[str]  # the words of the record's text that mean something


UNITS = {
    "minutes": r"(?:minutes?|mins?)",
    "degrees": r"degrees?(?: celsius)?",
    "complaints": r"(?:(?:other|taste|more|similar) )*(?:complaints?|customers?|guests?|people)",
    "items": r"(?:items?|things|dishes|products|pieces?)",
}
_AMOUNT = re.compile(
    r"(?<= )(?:[$€£](?P<before>\d+(?:[.,]\d\d?)?)|(?P<after>\d+(?:[.,]\d\d?)?)(?:[€$£]| (?:dollars?|euros?|bucks?|pounds?)))(?= )"
)
_TIME = re.compile(r"(?<= )(?P<hour>[01]?\d|2[0-3])[:.](?P<minute>[0-5]\d)(?: (?P<half>am|pm))?(?= )(?! (?:euros?|dollars?|pounds?))")
_UNIT_NUMBERS = {unit: re.compile(rf"(?<= )(\d{{1,6}}|one) {pattern}(?= )") for unit, pattern in UNITS.items()}
_SPANS = re.compile(r" (?:late|later|delay|delayed|wait|waited|waiting|held|kept|carried|took|after|delivered|arrived|came|pickup|long|early) ")
_ORDERED = re.compile(r" (?:ordered|order|orders|had|bought|got|contains|has|your) ")
_PAID = re.compile(r" (?:paid|pay|costs?|price|charged|total|worth|together|bill) ")

MERCHANT_WORDS = frozenset(
    "golden casa verde burger barn spice route blue harbour harbor corner kitchen mama rosa green bowl samaka grill noodle "
    "house wok palace garden dragon bistro trattoria pizzeria diner cafe cantina tavern deli bakery lotus bamboo tandoor "
    "taverna osteria bella napoli sakura tokyo bombay delhi istanbul athens lima royal lantern pearl jade silver moon "
    "ocean hill".split()
)
_TO_MERCHANT = frozenset("from at by to of with through".split())
_UNKNOWN_ITEM = re.compile(
    r"(?: photos? of (?:the|your)| (?:ordered|chose|had|got) (?:an?|the|your)| your) (?P<item>[a-z]{4,})(?= )(?P<then> (?:arrived|came|tasted|leaked|was|is) )?"
)

# What a record, or an agent, can say: claim -> patterns. A claim and its opposite are joined by "/" in OPPOSITES.
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
OPPOSITES = {"late": "on_time", "spilled": "sealed", "short": "complete", "complaints": "no_complaints", "oven": "temperature"}
_CONTRARY = OPPOSITES | {opposite: claim for claim, opposite in OPPOSITES.items()}
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
_OFF_RECORD = frozenset("name voucher vouchers photo address account message messages".split())
_MEANINGLESS = frozenset(
    "the a an of to at in on for by and or that it was is were are has have had be been our your my this from with its their "
    "record records system log says shows say show here as i you we see data according only".split()
)


def read_order(case: Case) -> Order:
    """Prepares a case for checking."""
    items = tuple(tuple(_singular(word) for sentence in split_sentences(item.name, ()) for word in sentence) for item in case.items)
    names = frozenset(re.findall(r"[a-z]+", " ".join([case.merchant, *(item.name for item in case.items)]).lower()))
    merchant = tuple(re.findall(r"[a-z]+", case.merchant.lower()))
    numbers = case.record.numbers
    times = {_read_clock(clock) for clock in (case.ordered, case.delivered) if clock}
    took = frozenset({(_read_clock(case.delivered) - _read_clock(case.ordered)) % 1440} if len(times) == 2 else ())
    prices = [price for item in case.items for price in (item.price, item.price * item.quantity)]
    total = sum(item.price * item.quantity for item in case.items)
    count = sum(item.quantity for item in case.items)
    text = " ".join(sentence.text for sentence in split_sentences(case.record.text, names))
    text = f" {text} " if text else ""
    said = {_minutes(match) for match in _TIME.finditer(text)}
    return Order(
        names,
        items,
        tuple(item.quantity for item in case.items),
        merchant,
        {
            "minutes": took | set(numbers),
            "degrees": frozenset(numbers),
            "complaints": frozenset(numbers),
            "items": frozenset({len(case.items), count, 1} | set(numbers)),
        },
        frozenset(times | said),
        frozenset([*prices, total]),
        names | MERCHANT_WORDS,
        read_claims(text) if text else frozenset({"nothing"}),
        frozenset(text.split()) - _MEANINGLESS,
    )


def mark_names(sentence: Words, order: Order) -> Words:
    """Writes the order's items as "xitem0", "xitem1" …, its merchant as "xmerchant", dishes it has not as "xfood"."""
    marked, place = [], 0
    while place < len(sentence):
        length, mark = _find_name(sentence, place, order)
        marked.append(mark)
        place += length
    words = Words(marked)
    words.asks = sentence.asks
    return words


def _find_name(sentence: Words, place: int, order: Order) -> tuple[int, str]:
    """Returns how many words from `place` on name something of the order, and the mark for it."""
    if sentence[place : place + len(order.merchant)] == order.merchant:
        return len(order.merchant), "xmerchant"
    best = (1, sentence[place])
    for number, name in enumerate(order.items):
        for start in range(len(name)):
            length = 0
            while start + length < len(name) and place + length < len(sentence) and _singular(sentence[place + length]) == name[start + length]:
                length += 1
            words = sentence[place : place + length]
            telling = length == len(name) or any(_is_name(word) for word in words)
            if telling and length and (length > best[0] or best[1] == sentence[place]):
                best = (length, f"xitem{number}")
    if best[1] == sentence[place]:
        if place + 1 < len(sentence) and {sentence[place], sentence[place + 1]} <= MERCHANT_WORDS:
            return 2, "xmerchant" if {*sentence[place : place + 2]} <= set(order.merchant) else "xplace"
        if sentence[place] in order.merchant and _is_name(sentence[place]):
            return 1, "xmerchant"
        if sentence[place] in load_foods():
            return 1, "xfood"
    return best


def _is_name(word: str) -> bool:
    return word in load_foods() or not find_classes(word)


def find_wrong_names(sentence: Words, order: Order) -> bool:
    """Does a sentence with marks name a dish or a merchant that is not this order's?"""
    text = sentence.text
    if " xfood " in text or " xplace " in text:
        return True
    if match := re.search(r" (?:from|restaurant|merchant ,|merchant) ([a-z]{4,}) ", text):
        if not is_known(match[1], order.names) and not match[1].startswith("x"):
            return True
    match = _UNKNOWN_ITEM.search(text)
    return bool(match and (match["then"] or not match[0].startswith(" your")) and not is_known(match["item"], order.names) and not match["item"].startswith("xitem"))


def find_wrong_numbers(sentence: Words, order: Order) -> bool:
    """Does a sentence name a number, time or price that contradicts the order? What lies ahead contradicts nothing."""
    text = sentence.text
    ahead = re.search(r" (?:will|shall|going|give me|takes|in a|within|next|soon|every|usually|voucher|can) ", text)
    if not ahead:
        if any(_minutes(match) not in order.times for match in _TIME.finditer(text)) and order.times:
            return True
        if _SPANS.search(text) and _has_other(text, "minutes", order):
            return True
        if _PAID.search(text) and any(_cents(match) not in order.prices for match in _AMOUNT.finditer(text)):
            return True
        if _ORDERED.search(text) and _has_other(text, "items", order):
            return True
    for match in re.finditer(r" (\d{1,6})(?: x)? xitem(\d) ", text):
        if int(match[1]) > order.quantities[int(match[2])]:
            return True
    return False


def hide_amounts(text: str) -> str:
    """Writes "xmoney" for each sum of money in a text."""
    return _AMOUNT.sub("xmoney", text)


def _has_other(text: str, unit: str, order: Order) -> bool:
    found = (1 if match[1] == "one" else int(match[1]) for match in _UNIT_NUMBERS[unit].finditer(text))
    return any(number not in order.numbers[unit] for number in found)


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


def check_record(sentence: Words, order: Order, complaint_claim: str) -> str:
    """Tells how a sentence stands to the record: explain_true | explain_false | "" if it says nothing of it.

    `complaint_claim` is what the customer says anyway; who repeats it without naming the record only listens.
    """
    text = sentence.text
    if sentence.asks or _NOT_SAID.search(text):
        return ""
    framed = any(frame.search(text) for frame in FRAMES)
    claims = read_claims(text)
    numbers = [unit for unit in UNITS if _UNIT_NUMBERS[unit].search(text)]
    measured = set(numbers) - {"items"}
    if not framed and (not claims - {"hot", "nothing", complaint_claim} and not (claims and measured)):
        return ""
    if not framed and not claims & order.claims and not {_CONTRARY.get(claim, "") for claim in claims} & order.claims:
        return ""
    wrong = any(_has_other(text, unit, order) for unit in numbers) or any(
        _minutes(match) not in order.times for match in _TIME.finditer(text)
    )
    if claims:
        return "explain_true" if claims <= order.claims | _implied(order) and not wrong else "explain_false"
    words = {word for word in sentence if word.isalpha()} - _MEANINGLESS
    if not framed or len(words) < 2 or words & _OFF_RECORD:
        return ""
    shared = len(words & order.record) / max(1, len(order.record))
    return "explain_true" if shared >= 0.5 and not wrong else "explain_false"


def _implied(order: Order) -> frozenset[str]:
    return frozenset({"nothing"}) if not order.claims else frozenset()


def _singular(word: str) -> str:
    return word[:-1] if word.endswith("s") and len(word) > 3 and not word.endswith("ss") else word


def _read_clock(clock: str) -> int:
    hour, minute = clock.split(":")
    return int(hour) * 60 + int(minute)


def _minutes(match: re.Match[str]) -> int:
    """Minutes of the day of a time such as 18:05 or 6:05 pm."""
    hour = int(match["hour"]) % 12 + 12 * (match["half"] == "pm") if match["half"] else int(match["hour"])
    return hour * 60 + int(match["minute"])


def _cents(match: re.Match[str]) -> int:
    whole, _, part = (match["before"] or match["after"]).replace(",", ".").partition(".")
    return int(whole) * 100 + int(part.ljust(2, "0") or 0)
