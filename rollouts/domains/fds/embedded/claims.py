"""Checks what an agent says of the platform's record.

What a sentence says is found in two ways, so that any wording does: by a table of what records are mostly about (in
`tables/facts.txt`), and by the wordings of the kinds of records (`words.records`), of which the nearest is taken. The
record is read the same way.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from rollouts.domains.fds.embedded import statements
from rollouts.domains.fds.embedded.facts import TIME, clock_of, hide_amounts
from rollouts.domains.fds.embedded.language import Words, split_sentences
from rollouts.domains.fds.embedded.phrases import compile_table, has_phrase, list_idioms, load_tables, load_words
from rollouts.domains.fds.embedded.statements import stem_word
from rollouts.domains.fds.scenario import Record
from rollouts.domains.fds.words import records

NEAR = 0.55  # the share of a wording's weight that a sentence about the record must have
RARE = 5.0  # the weight of a word that no wording has, as of one that a single wording has
SAME_NUMBER = 0.35  # what the record's number adds to nearness
NEAR_COUNTED = 0.4  # and one that has its number
EXACT = 0.9  # what comes nearer than this to a wording means that wording, whatever else it might mean
NEAR_UNFRAMED = 0.8  # and one that does not name the record

OPPOSITES = {
    "late": "on_time",
    "spilled": "sealed",
    "short": "complete",
    "complaints": "no_complaints",
    "oven": "temperature",
}
CONTRARY = OPPOSITES | {opposite: claim for claim, opposite in OPPOSITES.items()}
_RECORD_CLAIMS = tuple(name for name in load_tables() if name.startswith("claim "))
_GENERAL = frozenset({"on_time", "complete", "no_complaints", "sealed", "transit", "held", "ride"})
"""Claims that are true also where a record says the same in detail."""
_NUMBER = re.compile(r"(?<= )(\d{1,6})(?= )")
_DENIAL = re.compile(r" (?:not|never) ")
_FRACTION = re.compile(r"(?<= )\d+[.,]\d+(?= )")


class Testimony(NamedTuple):
    """What a record says, in the shape in which sentences are checked."""

    claims: frozenset[str]
    wordings: "tuple[Wording, ...]"  # of its kind
    kind: str
    numbers: frozenset[int]
    supports: bool | None


_STOP = load_words("stop")  # words that tell nothing of what a record says
_OFF_RECORD = load_words("off record")  # what a screen shows besides the record; stems
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
    wordings = tuple(_read_wording(kind, wording, _weigh_words()) for wording in texts)
    return Testimony(claims, wordings, kind, frozenset(record.numbers), record.supports)


def read_claims(text: str) -> frozenset[str]:
    """Returns what a text says that a record can say, names of the tables "claim …" of `tables/facts.txt`."""
    found = {name[6:].replace(" ", "_") for name in _RECORD_CLAIMS if has_phrase(name, text)}
    for claim, opposite in OPPOSITES.items():
        if claim in found and opposite in found:
            found.discard(claim)
    if len(found) > 1:
        found.discard("nothing")
    if "transit" in found:
        found -= {"late", "held"}
    return frozenset(found)


_KNOWN = re.compile(
    r" (?:what you (?:say|said|told us|wrote|write|report)|from what|what (?:i|we) (?:can )?(?:see|find|know) is that"
    r"|(?:that|this|it) is what|what (?:the|our|my) \S+ (?:says|shows|tells)(?: me| us)? is(?: this| that)?"
    r"|(?:i|let me) will (?:also )?(?:add|say|admit|grant)(?: that)?|(?:i|we) (?:will|can) (?:only )?(?:find|add)) "
)  # asks nothing
_CONCLUSION = re.compile(r" , (?:so|which) ")  # what follows is no part of what the record says


def check_record(sentence: Words, record: Record, times: Collection[int], complaint_claim: str, listens: bool) -> str:
    """Tells how a sentence stands to the record: explain_true | explain_false | "" if it says nothing of it.

    Args:
      sentence: with marks for names.
      record: the platform's.
      times: of the order, minutes of the day.
      complaint_claim: what the customer says anyway; who repeats it without naming the record only listens.
      listens: does the sentence show understanding? Then it says nothing of a record that it does not name.
    """
    if sentence.asks:
        return ""
    testimony = read_testimony(record)
    text = statements.write_numbers(statements.write_durations(_drop_notes(sentence.text)), testimony.numbers)
    for pattern, written in list_idioms("synonyms"):
        text = pattern.sub(written, text)
    if is_named(text):
        text, told = _check_silence(text, testimony)
        if told or not text:
            return told
    plain, turned = _split_denial(*statements.split_reversal(text), testimony)
    told = _check_content(plain, testimony, times, complaint_claim, listens)
    stated = statements.drop_own_words(plain)
    if told != "explain_true" and stated != plain:
        hidden = {CONTRARY.get(claim, "") for claim in read_claims(plain)} & testimony.claims
        rest = _check_content(stated, testimony, times, complaint_claim, listens)
        told = rest if not told or (rest == "explain_true" and not hidden) else told
    if turned and told:
        contrary = {CONTRARY.get(claim, "") for claim in read_claims(plain)} & testimony.claims
        return "explain_false" if told == "explain_true" else "explain_true" if contrary else ""
    if told == "explain_true" and statements.find_additions(text, _list_own_words(testimony), testimony.claims):
        return "explain_false"
    return told


def _drop_notes(text: str) -> str:
    """Takes out that the customer's words are put on record: that is no statement of what the record says."""
    return compile_table("filed").sub("", text).replace("  ", " ")


def tells_event(sentence: Words, record: Record, complaint: str) -> bool:
    """Does a sentence tell of something that happened, that neither the record tells nor the customer complains of?"""
    testimony, text = read_testimony(record), sentence.text
    if has_phrase("event open", text):
        return False
    if has_phrase("event of the customer", text) or has_phrase("mishap", text):
        return _find_nearness(_content(text), _is_negative(text), testimony)[0] < NEAR
    problem = f"problem {complaint}"
    for clause in statements.split_clauses(text):
        if has_phrase("event denied", clause) or not has_phrase("event verb", clause):
            continue
        rest = compile_table(problem).sub("", clause) if problem in load_tables() else clause
        if has_phrase("event party", clause) and statements.find_additions(
            rest, _list_own_words(testimony), testimony.claims
        ):
            return True
    return False


def _split_denial(text: str, turned: bool, testimony: Testimony) -> tuple[str, bool]:
    """Takes "not" and "never" out where a clause claims the same without them: "not on time", but not "not late"."""
    if _find_nearness(_content(text), _is_negative(text), testimony)[0] >= NEAR:
        return text, turned
    for clause in statements.split_clauses(text):
        plain = _DENIAL.sub(" ", clause, count=1)
        if plain != clause and (claimed := read_claims(plain)) and claimed == read_claims(clause):
            return text.replace(clause.strip(), plain.strip()), not turned
    return text, turned


def is_named(text: str) -> bool:
    """Does a sentence name the record?"""
    return has_phrase("record", text) or has_phrase("frame", text)


def _list_own_words(testimony: Testimony) -> frozenset[str]:
    return frozenset().union(*(wording.content for wording in testimony.wordings))


def _check_silence(text: str, testimony: Testimony) -> tuple[str, str]:
    """Checks what a sentence says that the record does not tell.

    Returns the rest of the sentence, "" if that tells nothing of the record, and what was found: explain_true |
    explain_false, or "" where the rest settles it.
    """
    if has_phrase("undecided", text):
        return "", "explain_true" if testimony.supports is None else "explain_false"
    silent = testimony.kind == "silent"
    clauses = statements.split_clauses(text)
    others = [clause for clause in clauses if not has_phrase("tells no reason", clause)]
    if len(others) < len(clauses):  # no record tells why it happened
        rest = " , ".join(clause.strip() for clause in others)
        if silent and not read_claims(f" {rest} ") - {"nothing"}:
            return "", "explain_true"
        return (f" {rest} ", "") if is_named(f" {rest} ") else ("", "")
    for clause in clauses:
        match = compile_table("tells nothing").search(clause)
        if not match:
            continue
        rest = " , ".join(other.strip() for other in clauses if other != clause)
        topic = read_claims(clause[match.end() - 1 :])
        contrary = {CONTRARY.get(claim, "") for claim in testimony.claims}
        if topic & testimony.claims:
            return text, "explain_false"
        if silent or topic & contrary or (topic and testimony.supports is None):
            known = {*testimony.claims, *(CONTRARY if silent else {*topic, *contrary} & set(CONTRARY))}
            added = statements.find_additions(text, _list_own_words(testimony), known)
            return text, "explain_false" if added or (
                silent and read_claims(f" {rest} ") - {"nothing"}
            ) else "explain_true"
    return text, ""


def _check_content(text: str, testimony: Testimony, times: Collection[int], complaint_claim: str, listens: bool) -> str:
    """Compares the words of a sentence with those of the record; see `check_record`."""
    framed = has_phrase("frame", text)
    if has_phrase("record", text) and (backing := _check_backing(text, testimony.supports)):
        return backing
    if has_phrase("not said", _CONCLUSION.split(_KNOWN.sub(" ", text))[0] + " ") or (listens and not framed):
        return ""
    found = read_claims(text)
    numbers = {int(number) for number in _NUMBER.findall(TIME.sub(" ", text))}
    content, negative = _content(text), _is_negative(text)
    near, other = _find_nearness(content, negative, testimony)
    if not framed:
        if has_phrase("ideal", text):
            return ""
        measured = has_phrase("measured", text)
        contrary = {CONTRARY.get(claim, "") for claim in found} & testimony.claims
        about = (found & testimony.claims or contrary) and (measured or found - {"hot", "nothing", complaint_claim})
        if not about and not (near >= NEAR_UNFRAMED and len(content) > 1):
            return ""
    wrong = bool(numbers - testimony.numbers or _FRACTION.search(hide_amounts(TIME.sub(" ", text)))) or any(
        clock_of(match) not in times for match in TIME.finditer(text)
    )
    exactly = near >= EXACT and near >= other
    if (
        other >= EXACT
        and other > near
        and not _agrees_broadly(found, testimony, bool(numbers) and near >= NEAR_COUNTED)
    ):
        return "explain_false"
    if not exactly and {CONTRARY.get(claim, "") for claim in found} & testimony.claims:
        return "explain_false"
    counted = bool(numbers) and numbers <= testimony.numbers and not found and near + SAME_NUMBER >= NEAR > other
    if found and found <= testimony.claims or near >= NEAR and near >= other or counted:
        return "explain_false" if wrong else "explain_true"
    return (
        "explain_false"
        if framed and (found or len(content) > 1 or (content and (negative or numbers))) and not content & _OFF_RECORD
        else ""
    )


def _agrees_broadly(found: frozenset[str], testimony: Testimony, counted: bool) -> bool:
    """Does a sentence with the words of another kind of record still say, less closely, what this one says?"""
    if not found or not found <= testimony.claims:
        return False
    return testimony.kind == "other" or found <= _GENERAL or counted


def _check_backing(text: str, supports: bool | None) -> str:
    """Checks a sentence that says whether the record bears the customer out; "" if it does not say that."""
    if opposed := compile_table("opposes").search(text):
        if re.search(r" (?:not|nothing|never)(?: [a-z]+)? $", text[: opposed.start()]):
            return "explain_false" if supports is False else "explain_true"
        return "explain_true" if supports is False else "explain_false"
    if not has_phrase("backs", text) or has_phrase("unsettled", text) or read_claims(text):
        return ""
    said = not re.search(r" (?:not|nothing|never|no) ", text)
    return "explain_true" if said == (supports is True) else "explain_false"


def _plain(wording: str) -> str:
    """A wording in the shape in which sentences are read, one space on each side."""
    return f" {' '.join(word for sentence in split_sentences(wording.replace(':', ' '), ()) for word in sentence)} "


def _content(text: str) -> frozenset[str]:
    """The words of a text that mean something, without endings; numbers are checked elsewhere."""
    return frozenset(stem_word(word) for word in text.split() if word.isalpha() and word not in _STOP)


def _is_negative(text: str) -> bool:
    return len(_NEGATIVE.findall(text)) % 2 == 1


class Wording(NamedTuple):
    """One way to put a record."""

    kind: str
    content: frozenset[str]  # the words that mean something
    negative: bool
    weight: float  # of its words together


@functools.cache
def _list_wordings() -> tuple[Wording, ...]:
    """Every wording of every kind of record."""
    kinds = [
        (kind.name, records.list_wordings(kind.name, (1,) if kind.numbers else ())) for kind in records.list_kinds()
    ]
    return tuple(_read_wording(name, text, _weigh_words()) for name, texts in kinds for text in texts)


def _read_wording(kind: str, text: str, weights: Mapping[str, float]) -> Wording:
    content = _content(_plain(text))
    return Wording(kind, content, _is_negative(_plain(text)), _weigh_content(content, weights))


def _weigh_content(content: Collection[str], weights: Mapping[str, float]) -> float:
    """Returns the weight of words together, rounded once: words of a set come in another order in each process."""
    return math.fsum(weights.get(word, RARE) for word in content)


@functools.cache
def _weigh_words() -> dict[str, float]:
    """How much each word tells of a kind of record: the fewer wordings have it, the more."""
    texts = [text for kind in records.list_kinds() for text in records.list_wordings(kind.name, (1,))]
    counts = Counter(word for text in texts for word in _content(_plain(text)))
    return {word: math.log(len(texts) / count) for word, count in counts.items()}


@functools.cache
def _index_wordings() -> dict[str, tuple[Wording, ...]]:
    index: dict[str, tuple[Wording, ...]] = {}
    for wording in _list_wordings():
        for word in wording.content:
            index[word] = (*index.get(word, ()), wording)
    return index


def _find_nearness(content: frozenset[str], negative: bool, testimony: Testimony) -> tuple[float, float]:
    """Returns how near a sentence comes to the record's wordings, and to those of other kinds; 0 to 1."""
    weights = _weigh_words()

    def share(wording: Wording) -> float:
        if not wording.weight or negative != wording.negative:
            return 0.0
        return _weigh_content(wording.content & content, weights) / wording.weight

    others = {
        wording for word in content for wording in _index_wordings().get(word, ()) if wording.kind != testimony.kind
    }
    return max(map(share, testimony.wordings)), max(map(share, others), default=0.0)
