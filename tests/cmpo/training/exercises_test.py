"""Exercises in reading: the facts of a prompt, in any order, and nothing else."""

from cmpo.training.exercises import make_exercises
from rollouts.types import Message

PROMPT = "You are an agent: be kind.\nrecord: 6 days ago\nitems: 2 Soup 4.10\ntag: cold food\nAnswer briefly."


def make(*prompts, seed=0):
    return make_exercises([[Message("system", prompt), Message("user", "Hi")] for prompt in prompts], seed)


def test_each_fact_is_in_the_prompt_and_in_the_answer_and_nothing_else():
    ((prompt, answer),) = make(PROMPT)
    assert (prompt.role, answer.role) == ("system", "assistant")
    assert sorted(prompt.content.split("\n")) == ["items: 2 Soup 4.10", "record: 6 days ago", "tag: cold food"]
    assert sorted(answer.content.rstrip(".").split(". ")) == sorted(prompt.content.split("\n"))


def test_orders_differ_and_follow_from_the_seed():
    exercises = make(*[PROMPT] * 50)
    assert len({(prompt.content, answer.content) for prompt, answer in exercises}) > 10
    assert any(prompt.content.split("\n") != answer.content.rstrip(".").split(". ") for prompt, answer in exercises)
    assert make(*[PROMPT] * 50) == exercises != make(*[PROMPT] * 50, seed=1)


def test_prompts_without_facts_give_none():
    assert len(make(PROMPT, "Be kind.", "record: alone")) == 1
    assert make("Be kind.", "record: alone") == []
