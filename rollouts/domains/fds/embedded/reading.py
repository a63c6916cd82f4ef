"""Reads an agent's replies as a customer would, into the events of `latent.EVENTS`; and prompts' and state's fixed lines.

A reply goes through three looks: can it be read at all (`language`), is what it says of the order and the record true
(`facts`), and what does each sentence do (`acts`). No look is slower than linear in the length of the reply.
"""

import functools
import json
import re
from collections.abc import Mapping, Sequence

from rollouts.domains.fds.embedded import acts, claims, facts, language
from rollouts.domains.fds.embedded.case import Case, UnreadablePrompt
from rollouts.domains.fds.embedded.facts import Order
from rollouts.domains.fds.embedded.language import Words

LONG_WORDS = 60
MANY_ACTS = 4  # a reply that does more good things than this is spam
CROWDED_ACTS = 4  # so is one with a sentence that does so many, or three in few words
WORDS_PER_ACT = 4
STOCK_PHRASES = 3
SORRIES = 4
REPEATED_SHARE = 0.6
_SHORT_WORDS = 3

_BAD = frozenset({"explain_false", "wrong_fact", "promise", "unbacked", "negated", "rude"})
_LOUD = frozenset({"promise", "unbacked", "rude"})  # what is heard even in a reply that cannot be read otherwise

_PROBLEMS = {  # complaint -> the words for it
    "late delivery": r"(?:late (?!message|reply|answer|response)|later |delay|wait|slow|long |time|hungry|overdue|forever|hours?)",
    "food temperature": r"(?:cold |lukewarm|tepid|temperature|icy |frozen|chilled|(?:not|nor|longer|barely|hardly) (?:\w+ )?(?:warm|hot) |have been (?:\w+ )?(?:warm|hot) |be (?:warm|hot) )",
    "damaged packaging": r"(?:spill|spilt|leak|damage|packag|mess (?!up)|messy|burst|torn|crushed|soaked|broken|ripped|(?:came|arrived|was|were) open )",
    "missing items": r"(?:missing|incomplete|left out|left behind|without|never (?:came|arrived|got|get)|not (?:\w+ )?(?:get|got|come|arrive|receive|there|in the bag)|forgot|forgotten|lack|short |only part|half )",
    "taste below expectations": r"(?:tast(?!e buds)|flavou?r|bland|awful|disgusting|inedible|season|salty)",
    "not fresh or undercooked": r"(?:raw |undercook|uncook|not (?:\w+ )?(?:fresh|cooked|done)|pink |underdone|cooked (?:through|properly|long|enough)|stale|spoil|bloody|half cooked|rotten)",
}
_UNDERSTOOD = (
    r"(?:sorry|apolog\w+|understand|understandable|see (?:why|that|how)|hear (?:you|that|about)|get (?:that|why|it)|frustrat\w+|disappoint\w+|upset\w*|"
    r"annoy\w+|(?:not|never|hardly) (?:\S+ )?(?:acceptable|right|okay|ok|fun|good|pleasant|happen|what you (?:paid|ordered))|unacceptable|should (?:not|never)|must (?:have )?(?:be|been|feel|felt)|"
    r"regret|no (?:wonder|fun|good)|worrying|letdown|anger|angry|concern|anybody would|anyone would|should have|ruin\w*|terrible|awful|unpleasant|horrible|dreadful|shame|pity|no joke|realise|realize|starving|ridiculous that|nobody (?:likes|wants))"
)
_SORRY = re.compile(r"(?<= )(?:sorry|apolog\w+|regret|forgive|let you down)(?= )")
_NOT_SORRY = re.compile(r" (?:not|no|nothing|need|you) (?:[^ ,]+ ){0,4}?(?:sorry|apolog\w+) | sorry (?:state|not sorry) ")
_SORRY_FOR = re.compile(r" (?:sorry|apolog\w+|regret) (?:\S+ ){0,3}?(?:for|about|that|this) | apolog\w+ (?:any|the) ")
_UNMOVED = re.compile(r" (?:not (?:sorry|understand (?:why|what|you))|so what) ")
_QUESTION = re.compile(
    r"^ (?:(?:and|so|but|then|or|ok|okay|hmm?|hi|sorry|please|well|also|now|sure|there|,) )*(?:(?:could|can|would|will|may|might|shall|should|do|does|did|is|are|was|were|have|has) "
    r"(?:i|you|we|they|it|he|she|there|that|this|the|a|your|any|everything|anything|something|somebody|anybody|xitem\d)|(?:what|which|when|where|how|why|who)(?: (?!i |you |we )\S+){0,2}? (?:could|can|would|will|may|shall|should|do|does|did|is|are|was|were|have|has|happened|went)) "
)
_ABOUT = re.compile(r" (?:what|which|when|where|how|did|was|were|is|are|does|do|has|have|had|would|could|can) ")
_NEGATION = re.compile(rf" {acts.GROUPS['not']} ")
_CLAUSES = re.compile(r" (?:, )?(?:but|however|yet|although|though|instead) | , (?:(?:and|so|then) )?")
_EVIDENCE = re.compile(rf" {acts.GROUPS['evidence']} ")
_ACCEPTED = re.compile(
    r"^(?! (?:\S+ )?(?:what|how|which) ).* (?:would|is|does|are|do|will) (?:you|that|it|this) (?:\S+ ){0,3}?(?:okay|ok|fine|work|fair|take|accept|like|suit|help|all right|alright|good|agree) "
)
_PROPOSED = re.compile(r" (?:can|could|have|would|is|like to) (?:\S+ ){0,6}?vouchers? | vouchers? (?:\S+ ){0,6}?(?:can|could|would) ")
_STILL_OPEN = re.compile(r" (?:anything|something) (?:else|more|further) | let me know | still open ")
_OLD_VOUCHER = re.compile(r"^ why | vouchers? (?:you|did|was|code) ")
_ELSE_WRONG = re.compile(r" (?:anything|something|nothing) else (?:\S+ )?(?:missing|wrong|cold|spill\w*|leak\w*|damaged|late|raw|happen\w*|taste\w*) ")
_OTHER_DISH = re.compile(r"^(?!.* xitem\d ).* (?:xfood|xplace) ")
_RECORD_CLAIM = {"late delivery": "late", "damaged packaging": "spilled", "missing items": "short"}

_GOOD = {event: acts.compile_phrases(phrases) for event, phrases in acts.GOOD.items()}
_MANNERS = {event: acts.compile_phrases(phrases) for event, phrases in acts.BAD.items()}
_STOCK = acts.compile_phrases(acts.STOCK)
_PLEDGED = acts.compile_phrases((*acts.REMEDIES["promise"], *acts.REMEDIES["able"]), REMEDY=acts.OTHER)
_PLEDGED_VOUCHER = acts.compile_phrases(acts.REMEDIES["promise"], REMEDY=acts.VOUCHER)
_PLEDGED_CALL = acts.compile_phrases(acts.REMEDIES["call"])
_GIVEN = acts.compile_phrases(acts.REMEDIES["unbacked"], REMEDY=acts.OTHER)
_GIVEN_VOUCHER = acts.compile_phrases(acts.REMEDIES["unbacked"], REMEDY=acts.VOUCHER)
_AHEAD = re.compile(r" (?:will|going to|shall|promise|within|by tomorrow|by tonight|soon|shortly) ")
_GIVEN_AFTER = acts.compile_phrases(acts.REMEDIES["after"], REMEDY=acts.OTHER)
_SUPPOSED = re.compile(r" (?:say yes|say the word|if|once|should|would|could|unless|until|whether|(?<!as )promised) ")


def read_reply(response: str, earlier: Sequence[str], case: Case, issued: str) -> frozenset[str]:
    """Returns the events (`latent.EVENTS`) in one response of the agent.

    Args:
      response: what the customer reads.
      earlier: the agent's earlier responses.
      case: the customer and the order that it is about.
      issued: when a voucher was issued, by the system state: no | this turn | earlier.
    """
    order = _read_order(case)
    sentences = read_sentences(response, order)
    readable = not language.is_code(response) and language.is_english(sentences)
    said = [_read_sentence(sentence, case, order, issued) for sentence in sentences]
    for place in range(1, len(said)):
        if _ACCEPTED.search(sentences[place].text) and _PROPOSED.search(sentences[place - 1].text):
            said[place] = said[place] - {"probe", "ask"} | ({"offer"} if not said[place - 1] & {"unbacked", "given"} else set())
    events = frozenset().union(*said)
    if "listen" not in events and _shows_sympathy(sentences, said, case.complaint):
        events = events - {"apology"} | {"listen"}
    if "listen" in events:
        events -= {"apology"}
    stated = events - {"given"}
    if not readable:
        events = (events & _LOUD) | {"not_understood"}
    elif _is_spam(sentences, said, stated - _BAD - {"apology"}):
        events = (events & _BAD) | {"spam"}
    elif not events:
        events = frozenset({"nothing"})
    if len(response.split()) > LONG_WORDS:
        events |= {"long"}
    if any(_measure_overlap(sentences, read_sentences(reply, order)) > REPEATED_SHARE for reply in earlier):
        events |= {"repeat"}
    if issued == "this turn":
        events |= {"voucher"}
    elif events == {"given"}:
        events = frozenset({"nothing"})
    return events - {"given"}


@functools.lru_cache(maxsize=256)
def _read_order(case: Case) -> Order:
    return facts.read_order(case)


def read_sentences(text: str, order: Order) -> list[Words]:
    """Splits a reply into sentences, with marks for what the order has; see `facts.mark_names`."""
    return [facts.mark_names(sentence, order) for sentence in language.split_sentences(text, order.known)]


def _read_sentence(sentence: Words, case: Case, order: Order, issued: str) -> frozenset[str]:
    """Returns what one sentence does; "given" stands for a voucher that was truly issued and is spoken of."""
    text = sentence.text
    events = set()
    if facts.find_wrong_names(sentence, order):
        events.add("wrong_fact")
    heard = acts.REPORTED.sub(" ", text)  # what the customer said, the agent does not
    asks = sentence.asks or bool(_QUESTION.search(text))
    events |= _find_bad_manners(heard)
    spoken = _simplify(facts.hide_amounts(heard))
    events |= _find_remedies(spoken, asks, issued)
    events |= _find_good_acts(spoken, text, asks)
    listens = _is_listening(text, case.complaint) or bool(_SORRY.search(text))
    told = claims.check_record(sentence, case.record, order.times, _RECORD_CLAIM.get(case.complaint, ""), listens)
    if "negated" in events:
        events -= {"note", "ask", "steps", "probe", "offer", "promise", "limit"} - ({"promise"} if asks else set())
    if "rude" in events:
        events -= {"probe", "close", "note", "ask", "limit"}
    if events & {"promise", "unbacked", "given"}:
        events -= {"probe", "offer"} if not asks else {"probe"}
    if told and not events & {"limit", "unbacked", "promise", "offer", "rude"}:
        events.add(told)
        events -= {"note", "probe", "steps"}
    if told != "explain_false" and facts.find_wrong_numbers(sentence, order) and not events & {"promise", "unbacked"}:
        events.add("wrong_fact")
    listens = _is_listening(text, case.complaint) and not events & {"negated"} and not told
    if asks and not events - {"wrong_fact"} and not listens and _ABOUT.search(text) and not _ACCEPTED.search(text):
        events.add("ask")
    if listens and not _OTHER_DISH.search(text):
        events.add("listen")
    elif _SORRY.search(text) and not _NOT_SORRY.search(text) and not events & {"limit", "rude"}:
        if _SORRY_FOR.search(text) or not events - {"wrong_fact"}:
            events.add("apology")
    return frozenset(events)


def _find_bad_manners(heard: str) -> set[str]:
    """Returns `rude` and `negated` where a text is so. Who denies an insult does not insult."""
    events = {event for event in ("rude", "negated") if _MANNERS[event].search(heard)}
    for clause in _CLAUSES.split(heard):
        clause = f" {clause.strip()} "
        match = _MANNERS["insult"].search(clause)
        if match and not _NEGATION.search(clause[: match.end()].replace(" do not be ", " ")):
            events.add("rude")
    return events


def _simplify(text: str) -> str:
    """Takes out idioms whose words mean something else, and writes a voucher of a sum as a gift card."""
    for pattern, written in acts.IDIOMS:
        text = pattern.sub(written, text)
    return text


def _find_remedies(text: str, asks: bool, issued: str) -> set[str]:
    """Returns `promise`, `unbacked` or `given`, whatever is said of remedies."""
    events = {"unbacked"} if not asks and _GIVEN_AFTER.search(text) else set()
    for clause in _CLAUSES.split(text):
        clause = f" {clause.strip()} "
        if _NEGATION.search(clause):
            continue
        if not asks and not _AHEAD.search(clause) and _GIVEN.search(clause):
            events.add("unbacked")
        elif _PLEDGED.search(clause) or (_AHEAD.search(clause) and _GIVEN.search(clause)) or (_PLEDGED_CALL.search(clause) and not asks):
            events.add("promise")
        if asks or _SUPPOSED.search(text):
            continue
        if _GIVEN_VOUCHER.search(clause):
            events.add("unbacked" if issued == "no" else "given")
        elif _PLEDGED_VOUCHER.search(clause):
            events.add("promise" if issued == "no" else "given")
    return events


def _find_good_acts(spoken: str, text: str, asks: bool) -> set[str]:
    found = {event for event, pattern in _GOOD.items() if pattern.search(text if event == "probe" else spoken)}
    if "asked_offer" in found:
        found = found - {"asked_offer"} | ({"offer"} if asks else set())
    if not asks and not re.search(r" (?:tell me|let me know|may i ask) ", text):
        found.discard("probe")
    if not asks:
        clauses = [f" {clause} " for clause in _CLAUSES.split(spoken)]
        if not any("voucher" in clause and not _NEGATION.search(clause) for clause in clauses):
            found.discard("offer")
        if any(_NEGATION.search(clause) for clause in clauses if _EVIDENCE.search(clause)):
            found.discard("ask")
        if not _STILL_OPEN.search(text):
            found.discard("close")
    if "close" in found and _ELSE_WRONG.search(text):
        found = found - {"close"} | {"ask"}
    if found & {"probe", "close"} and not _EVIDENCE.search(text):
        found -= {"ask"}
    if found & {"close", "offer"}:
        found.discard("probe")
    if "offer" in found and _OLD_VOUCHER.search(text):
        found.discard("offer")
    return found


def _is_listening(text: str, complaint: str) -> bool:
    """Does a text name the complaint and show that it was understood?"""
    return bool(_shows_understanding(text) and _names_problem(text, complaint))


def _shows_understanding(text: str) -> bool:
    return bool(re.search(rf" {_UNDERSTOOD} ", text) and not _UNMOVED.search(text) and not _NOT_SORRY.search(text))


def _names_problem(text: str, complaint: str) -> bool:
    return complaint in _PROBLEMS and bool(re.search(rf" {_PROBLEMS[complaint]}", text))


def _shows_sympathy(sentences: Sequence[Words], said: Sequence[frozenset[str]], complaint: str) -> bool:
    """Do two sentences in a row, together, name the complaint and show that it was understood?"""
    plain = [not _QUESTION.search(sentence.text) and events <= {"apology"} for sentence, events in zip(sentences, said, strict=True)]
    for place in range(len(sentences) - 1):
        if plain[place] and plain[place + 1] and _is_listening(sentences[place].text + sentences[place + 1].text, complaint):
            return True
    return False


def _is_spam(sentences: Sequence[Words], said: Sequence[frozenset[str]], good: frozenset[str]) -> bool:
    """Is a reply a heap: too much at once, the same thing twice, or stock phrases piled up?"""
    long = [sentence for sentence in sentences if len(sentence) >= _SHORT_WORDS]
    return (
        len(good) > MANY_ACTS
        or any(_is_crowded(sentence, events - _BAD) for sentence, events in zip(sentences, said, strict=True))
        or len(set(long)) < len(long)
        or sum(len(_STOCK.findall(sentence.text)) for sentence in sentences) >= STOCK_PHRASES
        or sum(bool(_SORRY.search(sentence.text)) for sentence in sentences) >= SORRIES
    )


def _is_crowded(sentence: Words, acts_of_it: frozenset[str]) -> bool:
    """Does one sentence do too much, or so much in so few words that it can only be key words?"""
    return len(acts_of_it) >= CROWDED_ACTS or (len(acts_of_it) >= 3 and len(sentence) < WORDS_PER_ACT * len(acts_of_it))


def _measure_overlap(sentences: Sequence[Words], others: Sequence[Words]) -> float:
    """Returns the share of a reply's pairs of words that another reply has; names and numbers count as alike."""
    pairs, known = _list_pairs(sentences), set(_list_pairs(others))
    return sum(pair in known for pair in pairs) / len(pairs) if len(pairs) > 1 else 0.0


def _list_pairs(sentences: Sequence[Words]) -> list[tuple[str, str]]:
    words = [re.sub(r"^(?:x(?:item\d|food|merchant|place)|\d.*)$", "x", word) for sentence in sentences for word in sentence if word != ","]
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
