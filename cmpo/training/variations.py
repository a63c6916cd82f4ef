"""Variations of demonstrations, for small models: the same dialogue about other facts, and in other words.

A scripted agent's dialogues name the same few things again and again. A small model learns these by heart, and says
them in place of what a prompt holds; and it falls silent at a customer's first unknown word. What is varied here leaves
what the agent decides as it is, so a model has to read the prompt for the names and every word of a customer for the
rest.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from cmpo.training.demonstrations import Conversation
from cmpo.training.exercises import FACT

KEPT_NAMES = 0.25
"""How many words of names stay, so that half of a name may be known."""

OTHER_NUMBERS = 0.8
"""How many numbers of a quoted fact become others; how many words is drawn anew in each conversation, from none to all:
a known record would else tell what the customer complains of, and nobody would listen."""

OTHER_PHRASES = 0.5
"""How many quoted facts become phrases of any words instead: what is known of their wording would else be continued."""

MOST_GARBLED = 0.35
"""The most words of a conversation's customer that are garbled; how many is drawn anew in each."""

SHOUTED, MUMBLED = 0.15, 0.15
"""How many of a garbled conversation's messages come in capitals, and without any."""

_NAME = re.compile(r"\b[A-Z][a-z]+\b")
_PRICE = re.compile(r"\b\d+\.\d\d\b")
_PART = re.compile(r"[A-Za-z]{4,}|\d+")
_WORD = re.compile(r"[A-Za-z][A-Za-z']*")
_MARKED = re.compile(r"(\[[^\]]*\])")  # what stands in brackets is no speech
_ONSETS = (*"bcdfghjklmnprstvw", *"bcdfghklmnprst", "br", "ch", "cr", "gr", "pl", "qu", "sh", "sp", "st", "th", "tr")
_VOWELS = (*"aeiouaeiouaeiou", "ea", "ee", "oo", "ou")
_CODAS = (*"lmnrst", *"lnrst", "ck", "ll", "mp", "nd", "ng", "rd", "rn", "st")


def vary_conversations(
    conversations: Sequence[Conversation], *, facts: float, words: float, seed: int
) -> list[Conversation]:
    """Varies the facts of a share `facts` of conversations, and the customer's words of a share `words`; each by lot.

    Facts are lines ``name: value`` of the first message. Names in them (words with a capital) become invented ones,
    prices others, everywhere in the conversation. A value that the agent quotes whole has some of its words and numbers
    replaced, there and in the quotation, or becomes a phrase of the customers' words. The customer's words are left
    out, mistyped or replaced.
    """
    if not facts and not words:
        return list(conversations)
    rng = np.random.default_rng(seed)
    heard = [word for conversation in conversations for word in _list_heard_words(conversation)]
    varied = []
    for conversation in conversations:
        if rng.random() < facts:
            conversation = _vary_facts(conversation, heard, rng)
        if rng.random() < words:
            conversation = _garble_words(conversation, heard, rng)
        varied.append(conversation)
    return varied


def _list_heard_words(conversation: Conversation) -> list[str]:
    said = " ".join(message.content for message in conversation if message.role == "user")
    return _WORD.findall(_MARKED.sub(" ", said))


def _vary_facts(conversation: Conversation, heard: Sequence[str], rng: np.random.Generator) -> Conversation:
    """Returns the conversation with other names, prices and quoted values."""
    values = [line.partition(": ")[2] for line in conversation[0].content.splitlines() if FACT.fullmatch(line)]
    said = "\n".join(message.content for message in conversation if message.role == "assistant")
    others = {}
    for value in values:
        if value.endswith((".", "!", "?")):
            continue  # a sentence, whose capital makes no name
        for name in _NAME.findall(value):
            if name not in others and rng.random() >= KEPT_NAMES:
                others[name] = invent_word(rng).capitalize()
        for price in _PRICE.findall(value):
            others[price] = f"{rng.integers(1, 40)}.{rng.integers(0, 10)}0"
        if value in said and not _NAME.search(value):
            others[value] = _vary_value(value, heard, rng)
    return [dataclasses.replace(message, content=_replace_all(message.content, others)) for message in conversation]


def _vary_value(value: str, heard: Sequence[str], rng: np.random.Generator) -> str:
    share = rng.random()
    if heard and rng.random() < OTHER_PHRASES:
        return _make_phrase(heard, rng)
    return _PART.sub(lambda part: _replace_part(part[0], share, rng), value)


def _replace_part(part: str, share: float, rng: np.random.Generator) -> str:
    if part.isdigit():
        return str(rng.integers(2, 100)) if rng.random() < OTHER_NUMBERS else part
    return invent_word(rng) if rng.random() < share else part


def _make_phrase(heard: Sequence[str], rng: np.random.Generator) -> str:
    """Makes three to nine words, most of them heard ones, often with a number among them."""
    words = [
        invent_word(rng) if rng.random() < 0.25 else heard[rng.integers(len(heard))].lower()
        for _ in range(rng.integers(3, 10))
    ]
    if rng.random() < 0.7:
        words.insert(rng.integers(len(words) + 1), str(rng.integers(2, 100)))
    return " ".join(words)


def _replace_all(text: str, others: Mapping[str, str]) -> str:
    """Replaces whole words and values in one go, longer ones first."""
    if not others:
        return text
    known = "|".join(re.escape(name) for name in sorted(others, key=len, reverse=True))
    return re.sub(rf"(?<!\w)(?:{known})(?!\w)", lambda match: others[match[0]], text)


def invent_word(rng: np.random.Generator) -> str:
    """Makes a word of one to three syllables up."""
    parts = [letters for _ in range(rng.choice((1, 2, 2, 2, 3))) for letters in (_ONSETS, _VOWELS)]
    parts += [_CODAS] * (len(parts) == 2 or rng.random() < 0.5)
    return "".join(letters[rng.integers(len(letters))] for letters in parts)


def _garble_words(conversation: Conversation, heard: Sequence[str], rng: np.random.Generator) -> Conversation:
    """Returns the conversation with a customer whose words are partly left out, mistyped or others."""
    share = rng.uniform(0, MOST_GARBLED)

    def garble(match: re.Match[str]) -> str:
        return _garble_word(match[0], heard, rng) if rng.random() < share else match[0]

    def garble_message(text: str) -> str:
        parts = _MARKED.split(text)
        parts[::2] = [_WORD.sub(garble, part) for part in parts[::2]]
        draw = rng.random()
        if draw < SHOUTED + MUMBLED:
            parts[::2] = [part.upper() if draw < SHOUTED else part.lower() for part in parts[::2]]
        return re.sub(" {2,}", " ", "".join(parts)).strip() or text

    return [
        dataclasses.replace(message, content=garble_message(message.content)) if message.role == "user" else message
        for message in conversation
    ]


def _garble_word(word: str, heard: Sequence[str], rng: np.random.Generator) -> str:
    kind = rng.integers(4)
    if kind == 0 or len(word) < 3:
        return ""
    if kind == 1:
        return str(heard[rng.integers(len(heard))])
    if kind == 2:
        return invent_word(rng)
    place = rng.integers(1, len(word))
    return str(rng.choice((word[:place] + word[place + 1 :], word[:place] + word[place - 1 :])))
