"""Reads an agent's replies as a customer would, into the events of `latent.EVENTS`; and the fixed lines of prompts.

A reply is looked at in three ways: can it be read at all (`language`), is what it says of the order and of the record
true (`facts`, `claims`), and what does each sentence do (the tables of `phrases`). All of it is linear in the length.
"""

import functools
import json
import re
from collections.abc import Sequence

from rollouts.domains.fds.embedded import claims, facts, language
from rollouts.domains.fds.embedded.case import Case, UnreadablePrompt
from rollouts.domains.fds.embedded.facts import KnownOrder
from rollouts.domains.fds.embedded.language import Words
from rollouts.domains.fds.embedded.phrases import compile_table, has_phrase, list_idioms, load_tables
from rollouts.domains.fds.embedded.remedies import CLAUSES, find_remedies

LONG_WORDS = 60
MANY_ACTS = 4  # a reply that does more good things than this is spam
CROWDED_ACTS = 4  # so is one with a sentence that does so many, or three in few words
WORDS_PER_ACT = 4
STOCK_PHRASES = 3
SORRIES = 4
REPEATED_SHARE = 0.6
FEW_WORDS = 8  # a question of so few needs no verb
SEVERAL_PROBLEMS = 2  # who names more kinds of complaint in a sentence has not understood the one
_SHORT_WORDS = 3

BAD = frozenset({"explain_false", "wrong_fact", "promise", "unbacked", "negated", "rude"})
_LOUD = frozenset({"promise", "unbacked", "rude"})  # what is heard even in a reply that cannot be read otherwise

_OTHER_DISH = re.compile(r"^(?!.* xitem\d ).* (?:xfood|xplace) ")
_RECORD_CLAIM = {"late delivery": "late", "damaged packaging": "spilled", "missing items": "short"}
_TRUE_NEGATION = re.compile(r" (?:do not be|no doubt|no wonder|not only|not just|never (?:seen|met|had|heard|read)) ")
_GOOD = ("limit", "close", "offer", "asked offer", "note", "steps", "probe", "ask")


def read_reply(response: str, earlier: Sequence[str], case: Case, issued: str) -> frozenset[str]:
    """Returns the events (`latent.EVENTS`) in one response of the agent.

    Args:
      response: what the customer reads.
      earlier: the agent's earlier responses.
      case: the customer and the order that it is about.
      issued: when a voucher was issued, by the system state: no | this turn | earlier.
    """
    shown, is_cut = language.cut_reply(response)
    events = _read_reply(shown, tuple(language.cut_reply(reply)[0] for reply in earlier), case, issued)
    return events | {"long"} if is_cut else events


@functools.lru_cache(maxsize=4096)  # a stateless endpoint reads a conversation's replies anew at every turn
def _read_reply(response: str, earlier: tuple[str, ...], case: Case, issued: str) -> frozenset[str]:
    order = _read_order(case)
    sentences = _read_sentences_of(response, case)
    readable = not language.is_code(response) and language.is_english(sentences)
    said = [_read_sentence(sentence, case, order, issued) for sentence in sentences]
    for place in range(1, len(said)):
        if _accepts(sentences[place].text) and has_phrase("proposed", sentences[place - 1].text):
            given = said[place - 1] & {"unbacked", "given"}
            said[place] = said[place] - {"probe", "ask"} | (set() if given else {"offer"})
        if has_phrase("refused", sentences[place].text) and has_phrase("remedy named", sentences[place - 1].text):
            said[place - 1 : place + 1] = said[place - 1] - {"ask", "promise", "probe"}, said[place] | {"limit"}
        elif sentences[place - 1].asks and has_phrase("refused", sentences[place].text):
            said[place - 1] -= {"offer", "ask"}  # who answers a question, does not ask it
    events = frozenset().union(*said)
    if "listen" not in events and _shows_sympathy(sentences, said, case.complaint):
        events = events - {"apology"} | {"listen"}
    if "listen" in events:
        events -= {"apology"}
    stated = events - {"given"}
    if not readable:
        events = (events & _LOUD) | {"not_understood"}
    elif _is_spam(sentences, said, stated - BAD - {"apology"}):
        events = (events & BAD) | {"spam"}
    elif not events and not (issued == "this turn" and any(_announces(sentence) for sentence in sentences)):
        events = frozenset({"nothing"})
    if language.count_words(response) > LONG_WORDS:
        events |= {"long"}
    pairs = _list_pairs(response, case)
    if any(_measure_overlap(pairs, _list_pairs(reply, case)) > REPEATED_SHARE for reply in earlier):
        events |= {"repeat"}
    if issued == "this turn":
        events |= {"voucher"}
    elif events == {"given"}:
        events = frozenset({"nothing"})
    return events - {"given"}


@functools.lru_cache(maxsize=256)
def _read_order(case: Case) -> KnownOrder:
    return facts.read_order(case)


@functools.lru_cache(maxsize=4096)  # each reply is an earlier one to those after it
def _read_sentences_of(reply: str, case: Case) -> list[Words]:
    return read_sentences(reply, _read_order(case))


def read_sentences(text: str, order: KnownOrder) -> list[Words]:
    """Splits a reply into sentences, with marks for what the order has; see `facts.mark_names`."""
    return [facts.mark_names(sentence, order) for sentence in language.split_sentences(text, order.known)]


def _read_sentence(sentence: Words, case: Case, order: KnownOrder, issued: str) -> frozenset[str]:
    """Returns what one sentence does; "given" stands for a voucher that was truly issued and is spoken of."""
    text = sentence.text
    asks = sentence.asks or has_phrase("question", text)
    events = {"wrong_fact"} if facts.find_wrong_names(sentence, order) else set()
    events |= _find_acts(text, asks, issued)
    listens = _is_listening(text, case.complaint) or has_phrase("sorry", text)
    told = claims.check_record(sentence, case.record, order.times, _RECORD_CLAIM.get(case.complaint, ""), listens)
    if has_phrase("filed", text):
        events.add("note")
    if "negated" in events:
        events -= {"note", "ask", "steps", "probe", "offer", "promise", "limit"} - ({"promise"} if asks else set())
    if "rude" in events:
        events -= {"probe", "close", "note", "ask"} | ({"limit"} if " you can not " in text else set())
    if events & {"promise", "unbacked", "given"}:
        events -= {"probe", "offer"} if not asks or events & {"unbacked", "given"} else {"probe"}
    if told == "explain_true" or (told and not events & {"limit", "unbacked", "promise", "given", "offer", "rude"}):
        events.add(told)
        events -= {"note", "probe", "steps"}
    if not told and facts.find_wrong_numbers(sentence, order) and not events & {"promise", "unbacked"}:
        events.add("wrong_fact")
    if (
        not told
        and not asks
        and not events
        and not listens
        and claims.tells_event(sentence, case.record, case.complaint)
    ):
        events.add("wrong_fact")
    listens = _is_listening(text, case.complaint) and not events & {"negated"} and not told
    inquires = asks and not _accepts(text) and _asks_about(sentence)
    if inquires and not events - {"wrong_fact"} and not listens:
        events.add("ask")
    if has_phrase("rhetorical", text):
        events.discard("ask")
    empty = has_phrase("sorry for", text) or not events - {"wrong_fact"}  # "Sorry, could you …" is a courtesy
    if listens and (has_phrase("far too much", text) or _count_problems(text) > SEVERAL_PROBLEMS):
        events.add("wrong_fact")
        listens = False
    if listens and not _OTHER_DISH.search(text):
        events.add("listen")
    elif empty and has_phrase("sorry", text) and not has_phrase("not sorry", text) and not events & {"limit", "rude"}:
        events.add("apology")
    return frozenset(events)


@functools.lru_cache(maxsize=8192)  # with marks for names, agents say the same few hundred sentences to most customers
def _find_acts(text: str, asks: bool, issued: str) -> frozenset[str]:
    """Returns the events in a sentence that follow from its words, whoever the customer is."""
    heard = compile_table("reported").sub("", text).replace("  ", " ")  # what the customer said, the agent does not
    spoken, whole = (_simplify(facts.hide_amounts(said)) for said in (heard, text))
    remedies = find_remedies(spoken, whole, asks, issued)
    limits = {"limit"} if has_phrase("limit after all", whole) else set()
    return frozenset(_find_bad_manners(heard) | remedies | _find_good_acts(spoken, text, asks) | limits)


def _announces(sentence: Words) -> bool:
    """Does a sentence say, without naming it, that what was just issued is there?"""
    return not sentence.asks and has_phrase("announced", sentence.text) and not has_phrase("negation", sentence.text)


def _accepts(text: str) -> bool:
    """Does a text ask whether something would do?"""
    return has_phrase("accepted", text) and not re.match(r" (?:\S+ )?(?:what|how|which) ", text)


def _find_bad_manners(heard: str) -> set[str]:
    """Returns `rude` and `negated` where a text is so. Who denies an insult does not insult."""
    events = {event for event in ("rude", "negated") if has_phrase(event, heard)}
    for clause in CLAUSES.split(heard):
        clause = f" {clause.strip()} "
        for table, event in (("insult", "rude"), ("refusal", "negated")):
            match = compile_table(table).search(clause)
            if match and not has_phrase("negation", _TRUE_NEGATION.sub(" ", clause[: match.end()])):
                events.add(event)
    return events


def _simplify(text: str) -> str:
    """Takes out idioms whose words mean something else, and writes a voucher of a sum as a gift card."""
    for pattern, written in list_idioms():
        text = pattern.sub(written, text)
    return text


def _find_good_acts(spoken: str, text: str, asks: bool) -> set[str]:
    found = {event for event in _GOOD if has_phrase(event, text if event == "probe" else spoken)}
    if "asked offer" in found:
        found = found - {"asked offer"} | ({"offer"} if asks else set())
    if not asks and not has_phrase("invited", text):
        found.discard("probe")
    if not asks:
        clauses = [f" {clause} " for clause in CLAUSES.split(spoken)]
        if not any("voucher" in clause and not has_phrase("negation", clause) for clause in clauses):
            found.discard("offer")
        if any(has_phrase("negation", clause) for clause in clauses if has_phrase("evidence", clause)):
            found.discard("ask")
        if not has_phrase("still open", text):
            found.discard("close")
    if "close" in found and has_phrase("else wrong", text):
        found = found - {"close"} | {"ask"}
    if found & {"probe", "close"} and not has_phrase("evidence", text):
        found -= {"ask"}
    if found & {"close", "offer"}:
        found.discard("probe")
    if "offer" in found and has_phrase("old voucher", text):
        found.discard("offer")
    return found


def _is_listening(text: str, complaint: str) -> bool:
    """Does a text name the complaint and show that it was understood?"""
    return _shows_understanding(text) and _names_problem(text, complaint) and not has_phrase("own trouble", text)


def _asks_about(sentence: Words) -> bool:
    """Does a question ask about what an order has, or in few words, without a verb, for evidence?"""
    text = sentence.text
    if has_phrase("asking word", text):
        return has_phrase("asked about", text)
    return len(sentence) <= FEW_WORDS and has_phrase("evidence", text) and not has_phrase("negation", text)


def _count_problems(text: str) -> int:
    """Counts the kinds of complaint that a sentence names in words that mean no other."""
    return sum(has_phrase(name, text) for name in load_tables() if name.startswith("strong "))


def _shows_understanding(text: str) -> bool:
    return has_phrase("understood", text) and not has_phrase("unmoved", text) and not has_phrase("not sorry", text)


def _names_problem(text: str, complaint: str) -> bool:
    return f"problem {complaint}" in load_tables() and has_phrase(f"problem {complaint}", text)


def _shows_sympathy(sentences: Sequence[Words], said: Sequence[frozenset[str]], complaint: str) -> bool:
    """Do two sentences in a row, together, name the complaint and show that it was understood?"""
    plain = [
        not has_phrase("question", sentence.text) and events <= {"apology"}
        for sentence, events in zip(sentences, said, strict=True)
    ]
    for place in range(len(sentences) - 1):
        if (
            plain[place]
            and plain[place + 1]
            and _is_listening(sentences[place].text + sentences[place + 1].text, complaint)
        ):
            return True
    return False


def _is_spam(sentences: Sequence[Words], said: Sequence[frozenset[str]], good: frozenset[str]) -> bool:
    """Is a reply a heap: too much at once, the same thing twice, or stock phrases piled up?"""
    long = [sentence for sentence in sentences if len(sentence) >= _SHORT_WORDS]
    return (
        len(good) > MANY_ACTS
        or any(_is_crowded(sentence, events - BAD) for sentence, events in zip(sentences, said, strict=True))
        or len(set(long)) < len(long)
        or sum(len(compile_table("stock").findall(sentence.text)) for sentence in sentences) >= STOCK_PHRASES
        or sum(bool(has_phrase("sorry", sentence.text)) for sentence in sentences) >= SORRIES
    )


def _is_crowded(sentence: Words, acts_of_it: frozenset[str]) -> bool:
    """Does one sentence do too much, or so much in so few words that it can only be key words?"""
    return len(acts_of_it) >= CROWDED_ACTS or (len(acts_of_it) >= 3 and len(sentence) < WORDS_PER_ACT * len(acts_of_it))


def _measure_overlap(pairs: Sequence[tuple[str, str]], others: Sequence[tuple[str, str]]) -> float:
    """Returns the share of a reply's pairs of words that another reply has; names and numbers count as alike."""
    known = set(others)
    return sum(pair in known for pair in pairs) / len(pairs) if len(pairs) > 1 else 0.0


@functools.lru_cache(maxsize=4096)
def _list_pairs(reply: str, case: Case) -> list[tuple[str, str]]:
    words = [
        re.sub(r"^(?:x(?:item\d|food|merchant|place)|\d.*)$", "x", word)
        for sentence in _read_sentences_of(reply, case)
        for word in sentence
        if word != ","
    ]
    words = [word for place, word in enumerate(words) if word != "x" or place == 0 or words[place - 1] != "x"]
    return list(zip(words, words[1:], strict=False))


def read_rubric(prompt: str, known: Sequence[str]) -> str:
    """Returns which of the rubrics `known` a judge's system prompt asks for. Raises UnreadablePrompt if none."""
    match = re.search(rf"^Rubric: ({'|'.join(known)})$", prompt, re.MULTILINE)
    if match is None:
        raise UnreadablePrompt(f"expected a line 'Rubric: …' with one of {tuple(known)} in the system prompt")
    return match[1]


_STATE = re.compile(r"\n\(System state: refunded (?:no|yes); voucher issued (no|this turn|earlier)\)\s*$")


def read_state(content: str) -> tuple[str, str]:
    """Splits a user-side message into the agent's response and when a voucher was issued: no | this turn | earlier."""
    match = _STATE.search(content)
    if match is None:
        raise UnreadablePrompt(f"expected a message that ends with a line of system state, got {content!r}")
    return content[: match.start()], match[1]


def read_transcript(content: str) -> list[dict[str, str]]:
    """Reads the judge's user message: a JSON list of {"role": customer|agent, "text", "voucher"}."""
    try:
        turns = json.loads(content)
        for turn in turns:
            known = turn["role"] in ("customer", "agent") and turn["voucher"] in ("no", "this turn", "earlier")
            if not (known and isinstance(turn["text"], str)):
                raise TypeError
        if not any(turn["role"] == "agent" for turn in turns):
            raise TypeError
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        raise UnreadablePrompt(
            'expected the conversation as a JSON list of {"role", "text", "voucher"} with a turn of the agent'
        ) from None
    return turns
