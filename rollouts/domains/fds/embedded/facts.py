"""Checks what an agent says of the order: items, merchant, numbers, times and prices. For the record see `claims`."""

import functools
import re
from typing import NamedTuple

from rollouts.domains.fds.embedded.case import Case
from rollouts.domains.fds.embedded.language import Words, find_classes, is_known, load_foods, split_sentences
from rollouts.domains.fds.embedded.phrases import compile_table, load_words
from rollouts.domains.fds.embedded.statements import write_durations, write_numbers
from rollouts.domains.fds.words import bank


class KnownOrder(NamedTuple):
    """What is known of an order, in the shape in which sentences are checked."""

    names: frozenset[str]  # words of the items' and the merchant's names
    items: tuple[tuple[str, ...], ...]  # the words of each item's name, without plural endings
    quantities: tuple[int, ...]
    merchant: tuple[str, ...]
    numbers: dict[str, frozenset[int]]  # by unit (a key of UNITS): the numbers that are right
    times: frozenset[int]  # minutes of the day
    prices: frozenset[int]  # cents
    known: frozenset[str]  # words that are none of the dictionary's and yet no typing mistakes


UNITS = {
    "minutes": r"(?:minutes?|mins?)",
    "degrees": r"degrees?(?: celsius)?",
    "complaints": r"(?:(?:other|taste|more|similar) ){0,3}(?:complaints?|customers?|guests?|people)",
    "items": r"(?:items?|things|dishes|products|pieces?)",
}
_AMOUNT = re.compile(
    r"(?<= )(?:[$€£](?P<before>\d+(?:[.,]\d\d?)?)|"
    r"(?P<after>\d+(?:[.,]\d\d?)?)(?:[€$£]| (?:dollars?|euros?|bucks?|pounds?)))(?= )"
)
TIME = re.compile(
    r"(?<= )(?P<hour>[01]?\d|2[0-3])[:.](?P<minute>[0-5]\d)(?: (?P<half>am|pm))?(?= )(?! (?:euros?|dollars?|pounds?))"
)
_UNIT_NUMBERS = {unit: re.compile(rf"(?<= )(\d{{1,6}}|one) {pattern}(?= )") for unit, pattern in UNITS.items()}
MERCHANT_WORDS = load_words("merchant words")  # of which merchants' names are made
_SERVED = load_words("served")  # what may be late, cold or missing besides the order's items
_MANY = {"pair": 2, "both": 2, "dozen": 12, "dozens": 24, "hundred": 100, "hundreds": 200, "thousands": 2000}
_QUANTITY = re.compile(
    rf" (\d{{1,6}}|{'|'.join(_MANY)})(?: x| of)?(?: your| the| these| those)? xitem(\d)(?= )(?! (?:and|or|,) )"
)
_ROUGH_CLOCK = 30  # minutes that "9 o'clock" may be off
_AFTER_FOOD = load_words("after food")  # dishes where they stand after a dish's first word
_AFTER_ARTICLE = load_words("after article")  # dishes where they stand after an article


def read_order(case: Case) -> KnownOrder:
    """Prepares a case for checking."""
    items = tuple(
        tuple(_singular(word) for sentence in split_sentences(item.name, ()) for word in sentence)
        for item in case.items
    )
    names = frozenset(re.findall(r"[a-z]+", " ".join([case.merchant, *(item.name for item in case.items)]).lower()))
    merchant = tuple(re.findall(r"[a-z]+", case.merchant.lower()))
    numbers = case.record.numbers
    times = {read_clock(clock) for clock in (case.ordered, case.delivered) if clock}
    took = frozenset({(read_clock(case.delivered) - read_clock(case.ordered)) % 1440} if len(times) == 2 else ())
    prices = [price for item in case.items for price in (item.price, item.price * item.quantity)]
    total = sum(item.price * item.quantity for item in case.items)
    count = sum(item.quantity for item in case.items)
    text = " ".join(sentence.text for sentence in split_sentences(case.record.text, names))
    text = f" {text} " if text else ""
    said = {clock_of(match) for match in TIME.finditer(text)}
    return KnownOrder(
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
    )


def mark_names(sentence: Words, order: KnownOrder) -> Words:
    """Writes the order's items as "xitem0", "xitem1" …, its merchant as "xmerchant", dishes it has not as "xfood"."""
    marked, place = [], 0
    while place < len(sentence):
        length, mark = _find_name(sentence, place, order)
        marked.append(mark)
        place += length
    words = Words(marked)
    words.asks = sentence.asks
    return words


def _find_name(sentence: Words, place: int, order: KnownOrder) -> tuple[int, str]:
    """Returns how many words from `place` on name something of the order, and the mark for it."""
    if sentence[place : place + len(order.merchant)] == order.merchant:
        return len(order.merchant), "xmerchant"
    for name in _list_brands().get(sentence[place], ()):
        if sentence[place : place + len(name)] == name:
            return len(name), "xplace"
    best = (1, sentence[place])
    for number, name in enumerate(order.items):
        for start in range(len(name)):
            length = 0
            while (
                start + length < len(name)
                and place + length < len(sentence)
                and _singular(sentence[place + length]) == name[start + length]
            ):
                length += 1
            words = sentence[place : place + length]
            telling = length == len(name) or any(_is_name(word) for word in words)
            if telling and length and (length > best[0] or best[1] == sentence[place]):
                best = (length, f"xitem{number}")
    if best[1] == sentence[place]:
        for name in _list_merchants().get(sentence[place], ()):
            if sentence[place : place + len(name)] == name:
                return len(name), "xplace"
        if place + 1 < len(sentence) and {sentence[place], sentence[place + 1]} <= MERCHANT_WORDS:
            return 2, "xmerchant" if {*sentence[place : place + 2]} <= set(order.merchant) else "xplace"
        if sentence[place] in order.merchant and _is_name(sentence[place]):
            return 1, "xmerchant"
        before = sentence[place - 1] if place else ""
        if sentence[place] in load_foods() or (sentence[place] in _AFTER_FOOD and _is_food(before, order)):
            return 1, "xfood"
        if sentence[place] in _AFTER_ARTICLE and before in ("your", "the", "a"):
            return 1, "xfood"
    return best


def _is_food(word: str, order: KnownOrder) -> bool:
    return word in load_foods() or any(_singular(word) in item for item in order.items)


@functools.cache
def _list_merchants() -> dict[str, list[tuple[str, ...]]]:
    """The merchants that the platform has, as words, by the first word."""
    merchants: dict[str, list[tuple[str, ...]]] = {}
    for template in bank.load_bank("names"):
        for text in template.texts if template.section[0] == "merchants" else ():
            merchants.setdefault(text.lower().split()[0], []).append(tuple(text.lower().split()))
    return merchants


@functools.cache
def _list_brands() -> dict[str, list[tuple[str, ...]]]:
    """Well-known merchants that the platform has not, as words, by the first word."""
    brands: dict[str, list[tuple[str, ...]]] = {}
    for name in sorted(load_words("brands")):
        brands.setdefault(name.split()[0], []).append(tuple(name.split()))
    return brands


def _is_name(word: str) -> bool:
    return word in load_foods() or not find_classes(word)


def find_wrong_names(sentence: Words, order: KnownOrder) -> bool:
    """Does a sentence with marks name a dish or a merchant that is not this order's?"""
    text = sentence.text
    if " xfood " in text or " xplace " in text or re.search(r" xitem(\d) xitem(?!\1)", text):
        return True
    named = [match["name"] for match in compile_table("named").finditer(text)]
    named += [name for match in compile_table("merchant named").finditer(text) for name in match.groups() if name]
    if any(not is_known(name, order.known) and not name.startswith("x") for name in named):
        return True
    things = [match["thing"] for name in ("thing before", "thing had") for match in compile_table(name).finditer(text)]
    return any(_is_other_thing(thing, order) for thing in things)


def _is_other_thing(word: str, order: KnownOrder) -> bool:
    """Is a word, where a dish is named, a thing that no order has?"""
    if word in _SERVED or word in order.known or word.startswith("x") or word in load_foods():
        return False
    classes = set(find_classes(word)) or {"n"}
    return "n" in classes and not classes & set("dpsomxrjwiu")


def find_wrong_numbers(sentence: Words, order: KnownOrder) -> bool:
    """Does a sentence name a number, time or price that contradicts the order? What lies ahead contradicts nothing."""
    text = write_numbers(write_durations(sentence.text), order.numbers["minutes"])
    if not compile_table("not of this order").search(text):
        for match in compile_table("price named").finditer(text):
            if int(re.sub("[.,]", "", match["price"])) not in order.prices:
                return True
        text = compile_table("price named").sub("paid", text)
        if _has_other_clock(text, order):
            return True
        if compile_table("spans").search(text) and (
            _has_other(text, "minutes", order) or _has_other_hours(text, order)
        ):
            return True
        if compile_table("long span").search(text) and not compile_table("figure of speech").search(text):
            return True
        if compile_table("paid").search(text) and any(
            _cents(match) not in order.prices for match in _AMOUNT.finditer(text)
        ):
            return True
        if compile_table("ordered").search(text) and _has_other(text, "items", order):
            return True
    for match in _QUANTITY.finditer(text):
        if (_MANY.get(match[1]) or int(match[1])) > order.quantities[int(match[2])]:
            return True
    return False


def _has_other_clock(text: str, order: KnownOrder) -> bool:
    """Does a text name a time of the day that is none of the order's? "9 o'clock" may be half an hour off."""
    if not order.times:
        return False
    if any(clock_of(match) not in order.times for match in TIME.finditer(text)):
        return True
    if not compile_table("clock verb").search(text):
        return False
    for match in compile_table("rough clock").finditer(text):
        said = int(match["hour"] or match["past"] or 12) * 60 + 30 * bool(match["past"])
        cycle = 720
        if match["half"] in ("am", "pm") or match["named"]:
            said, cycle = said % 720 + 720 * (match["half"] == "pm" or match["named"] == "noon"), 1440
        off = (min((said - time) % cycle, (time - said) % cycle) for time in order.times)
        if min(off) > _ROUGH_CLOCK:
            return True
    return False


def hide_amounts(text: str) -> str:
    """Writes "xmoney" for each sum of money in a text."""
    return _AMOUNT.sub("xmoney", text)


def _has_other(text: str, unit: str, order: KnownOrder) -> bool:
    found = (1 if match[1] == "one" else int(match[1]) for match in _UNIT_NUMBERS[unit].finditer(text))
    return any(number not in order.numbers[unit] for number in found)


def _has_other_hours(text: str, order: KnownOrder) -> bool:
    """Hours are said of minutes roughly: up to half an hour more or less is right."""
    hours = [1 if match[1] == "one" else int(match[1]) for match in re.finditer(r" (\d{1,3}|one) hours? ", text)]
    return any(all(abs(60 * said - minutes) > 30 for minutes in order.numbers["minutes"]) for said in hours)


def _singular(word: str) -> str:
    return word[:-1] if word.endswith("s") and len(word) > 3 and not word.endswith("ss") else word


def read_clock(clock: str) -> int:
    """Minutes of the day of "18:05"."""
    hour, minute = clock.split(":")
    return int(hour) * 60 + int(minute)


def clock_of(match: re.Match[str]) -> int:
    """Minutes of the day of a time such as 18:05 or 6:05 pm."""
    hour = int(match["hour"]) % 12 + 12 * (match["half"] == "pm") if match["half"] else int(match["hour"])
    return hour * 60 + int(match["minute"])


def _cents(match: re.Match[str]) -> int:
    whole, _, part = (match["before"] or match["after"]).replace(",", ".").partition(".")
    return int(whole) * 100 + int(part.ljust(2, "0") or 0)
