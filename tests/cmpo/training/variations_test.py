"""Variations of demonstrations: other facts everywhere alike, other words of customers only, and nothing else."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpo.training import variations
from cmpo.training.variations import vary_conversations
from rollouts.types import GivenMessage, Message

PROMPT = (
    "You are an agent: be kind, Sir.\nitems: 2 Duck Soup 4.10, 1 Ice Tea 2.50\nmerchant: Green Bowl\n"
    "courier: The bell is broken.\nrecord: courier was 17 minutes late today\ntag: late delivery\nAnswer briefly."
)
QUOTED = "The Duck Soup of Green Bowl: courier was 17 minutes late today. You paid 4.10, sorry for a late delivery."
CONVERSATION = [
    Message("system", PROMPT),
    Message("user", "My Duck Soup from Green Bowl came late, the Duck Soup is cold! [Sent Picture: Duck Soup, cold]"),
    GivenMessage("assistant", "Hello, what about the Duck Soup?"),
    Message("tool", "found Duck Soup at 4.10"),
    Message("assistant", QUOTED),
]


def vary(*conversations, facts=0.0, words=0.0, seed=0):
    return vary_conversations(conversations, facts=facts, words=words, seed=seed)


def read_facts(conversation):
    return dict(line.split(": ", 1) for line in conversation[0].content.splitlines()[1:-1])


def test_without_a_share_nothing_is_varied():
    assert vary(CONVERSATION, CONVERSATION) == [CONVERSATION, CONVERSATION]


def test_facts_are_others_and_the_same_in_all_messages():
    seen = set()
    for found in vary(*[CONVERSATION] * 60, facts=1.0):
        facts = read_facts(found)
        first, price, second = re.fullmatch(
            r"2 ([A-Z][a-z]+ [A-Z][a-z]+) (\d+\.\d\d), 1 ([A-Z][a-z]+ [A-Z][a-z]+) \d+\.\d\d", facts["items"]
        ).groups()
        assert first in found[1].content and "Duck" not in found[1].content.replace(first, "")
        assert found[1].content.endswith(f"[Sent Picture: {first}, cold]")
        assert found[2] == GivenMessage("assistant", f"Hello, what about the {first}?")
        assert found[3] == Message("tool", f"found {first} at {price}")
        assert found[4].content.startswith(f"The {first} of {facts['merchant']}: {facts['record']}. You paid {price},")
        seen |= {first, second, facts["merchant"], facts["record"]}
    assert len(seen) > 150


def test_sentences_and_what_nobody_quotes_stay():
    silent = [*CONVERSATION[:4], Message("assistant", "I am sorry.")]
    for found in vary(*[silent] * 20, facts=1.0):
        facts = read_facts(found)
        assert found[0].content.startswith("You are an agent: be kind, Sir.\n")
        assert facts["courier"] == "The bell is broken."
        assert facts["record"] == "courier was 17 minutes late today" and facts["tag"] == "late delivery"


def test_numbers_and_words_of_a_quoted_value_change_one_by_one(monkeypatch):
    monkeypatch.setattr(variations, "OTHER_PHRASES", 0.0)
    values = [read_facts(found)["record"].split() for found in vary(*[CONVERSATION] * 200, facts=1.0)]
    assert all(len(words) == 6 and words[3 - 1].isdigit() and words[1] == "was" for words in values)
    assert 0.7 < np.mean([words[2] != "17" for words in values]) < 0.9
    changed = [
        sum(words[place] != was for place, was in ((0, "courier"), (3, "minutes"), (4, "late"))) for words in values
    ]
    assert 0.4 < np.mean(changed) / 3 < 0.6
    assert all(0.15 < np.mean(np.array(changed) == count) < 0.4 for count in range(4))  # none to all are as likely


def test_half_of_the_quoted_values_become_phrases_of_customers_words():
    values = [read_facts(found)["record"].split() for found in vary(*[CONVERSATION] * 400, facts=1.0)]
    heard = {word.lower() for word in re.findall(r"[A-Za-z]+", CONVERSATION[1].content.split("[")[0])}
    phrases = [words for words in values if len(words) != 6 or words[1] != "was"]
    assert 0.4 < len(phrases) / len(values) < 0.6
    assert {len(words) for words in phrases} == set(range(3, 11))
    assert 0.6 < np.mean([any(word.isdigit() for word in words) for words in phrases]) < 0.8
    assert 0.6 < np.mean([word in heard for words in phrases for word in words if not word.isdigit()]) < 0.85


def test_words_are_the_customers_alone_and_brackets_stay():
    varied = vary(*[CONVERSATION] * 100, words=1.0)
    assert all(found[:1] + found[2:] == CONVERSATION[:1] + CONVERSATION[2:] for found in varied)
    messages = [found[1].content for found in varied]
    assert all(message.endswith("[Sent Picture: Duck Soup, cold]") for message in messages)
    assert len(set(messages)) > 60
    assert 0.05 < np.mean([message.split("[")[0].isupper() for message in messages]) < 0.3


@pytest.mark.parametrize("name, place", [("facts", 0), ("words", 1)])
def test_about_a_share_is_varied_and_it_follows_from_the_seed(name, place):
    many = [CONVERSATION] * 400
    varied = vary(*many, **{name: 0.25})
    assert 0.15 < np.mean([found[place] != CONVERSATION[place] for found in varied]) < 0.35
    assert vary(*many, **{name: 0.25}) == varied != vary(*many, **{name: 0.25}, seed=1)


@given(st.lists(st.text(max_size=80), min_size=2, max_size=4), st.integers(0, 99))
def test_any_texts_stay_as_many_messages_of_the_same_roles(texts, seed):
    conversation = [
        Message(role, text) for role, text in zip(("system", "user", "assistant", "user"), texts, strict=False)
    ]
    ((*found,),) = vary(conversation, facts=1.0, words=1.0, seed=seed)
    assert [message.role for message in found] == [message.role for message in conversation]
    assert all(message.content.strip() for message, was in zip(found, conversation, strict=True) if was.content.strip())


def test_invented_words_are_many_and_can_be_spoken():
    rng = np.random.default_rng(0)
    words = [variations.invent_word(rng) for _ in range(500)]
    assert len(set(words)) > 400
    assert all(re.fullmatch(r"[a-z]{2,12}", word) and re.search("[aeiou]", word) for word in words)
