"""Rubrics: the prompt, the schema and the reading of answers say the same; only exact answers are read."""

import contextlib
import itertools
import json
import os
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rollouts.domains.fds import generator
from rollouts.domains.fds.rubrics import COMMUNICATION, COMPENSATION, EVALUATORS, LOGIC, PRINCIPLES, PROCESS, Verdict
from rollouts.domains.fds.scenario import write_items
from tests.builders import almost

RUBRICS = (PROCESS, *EVALUATORS)
SCENARIO = next(generator.deal_scenarios(2))
GOOD = {"reason": "fine", "persona": 1, "stage": 0.5, "quality": 0, "rules": 1.0}


def best(rubric):
    return {"reason": "Well done.", **{item: scores[-1] for item, scores in rubric.items.items()}}


def without(answer, key):
    return {name: value for name, value in answer.items() if name != key}


def test_the_points_are_the_methods():
    assert [rubric.maximum for rubric in (COMMUNICATION, LOGIC, COMPENSATION)] == [28, 12, 6]
    assert len(COMMUNICATION.items) == 14 and set(COMMUNICATION.items.values()) == {(0, 1, 2)}
    assert sorted(LOGIC.items.values()) == [(0, 1)] * 6 + [(0, 1, 2)] * 3
    assert tuple(PROCESS.items) == PRINCIPLES and set(PROCESS.items.values()) == {(0, 0.5, 1)}


@pytest.mark.parametrize("rubric", RUBRICS, ids=lambda rubric: rubric.name)
def test_the_prompt_names_every_item_with_its_scores_and_nothing_else(rubric):
    prompt, order = rubric.write_prompt(SCENARIO), SCENARIO.order
    for item, scores in rubric.items.items():
        text = {(0, 1, 2): "0, 1 or 2", (0, 1): "0 or 1", (0, 0.5, 1): "0, 0.5 or 1"}[scores]
        assert prompt.count(f"\n{item} ({text}): ") == 1
    assert len(re.findall(r"^\w+ \([\d., ]+ or \d\): ", prompt, re.MULTILINE)) == len(rubric.items)
    for line in (
        f"Rubric: {rubric.name}\n",
        f"Cooperation: {SCENARIO.persona.level} (",
        f"Demand: {SCENARIO.demand}\n",
        f"Items: {write_items(order.items)}\n",
        f"Platform record: {order.record.text}\n",
        *(f"{name}: {value}\n" for name, value in order.signals),
        f": {rubric.shape}\n",
    ):
        assert line in prompt
    assert "{" not in prompt.replace(rubric.shape, "")


@pytest.mark.parametrize("rubric", RUBRICS, ids=lambda rubric: rubric.name)
def test_prompts_differ_only_in_the_case_at_their_end(rubric):
    """A server that keeps the beginnings of prompts computes the rubric once."""
    one, other = (rubric.write_prompt(scenario) for scenario in itertools.islice(generator.deal_scenarios(2), 2))
    common, *cases = os.path.commonprefix([one, other]), *(prompt.split("# Customer\n")[1] for prompt in (one, other))
    assert rubric.shape in common and common.endswith("# Customer\nCooperation: ")
    assert cases[0] != cases[1] and len(common) > max(map(len, cases))


def test_the_process_judge_is_guided_by_level():
    prompt = PROCESS.write_prompt(SCENARIO)
    for level, name in enumerate(generator.LEVELS, start=1):
        assert prompt.count(f"\n- {level}, {name}: ") == 1


@pytest.mark.parametrize("rubric", RUBRICS, ids=lambda rubric: rubric.name)
def test_the_schema_is_what_is_read(rubric):
    wrapper = rubric.response_format
    assert wrapper["type"] == "json_schema" and wrapper["json_schema"]["strict"] is True
    assert wrapper["json_schema"]["name"] == rubric.name
    schema = json.loads(json.dumps(wrapper["json_schema"]["schema"]))
    assert schema["type"] == "object" and schema["additionalProperties"] is False
    assert schema["required"] == list(schema["properties"]) == ["reason", *rubric.items]
    assert schema["properties"].pop("reason") == {"type": "string"}
    for item, value in schema["properties"].items():
        assert value["type"] == "number"
        for score in value["enum"]:
            assert rubric.read_answer(json.dumps(best(rubric) | {item: score})).scores[item] == score
    assert rubric.read_answer(json.dumps(best(rubric))).total == rubric.maximum


def test_a_verdict_is_read():
    verdict = PROCESS.read_answer(json.dumps(GOOD))
    assert verdict == Verdict({"persona": 1.0, "stage": 0.5, "quality": 0.0, "rules": 1.0}, "fine")
    assert list(verdict.scores) == list(PRINCIPLES) and {type(score) for score in verdict.scores.values()} == {float}
    assert verdict.total == 2.5
    assert PROCESS.read_answer(f"\n {json.dumps(dict(reversed(GOOD.items())))} \n") == verdict  # by name, not by place
    assert PROCESS.read_answer(json.dumps(GOOD | {"reason": "half \ud83d"})).reason == "half ?"


@pytest.mark.parametrize(
    "fenced",
    ["```json\n{}\n```", "```\n{}\n```", "```JSON\n{}```\n", "\n~~~json\n{}\n~~~ ", "````\n{}\n````", "```json {} ```"],
)
@pytest.mark.parametrize("reason", ["fine", "It said ``` and ```json\n{}\n```."])
def test_a_verdict_alone_in_a_markdown_fence_is_read(fenced, reason):
    answer = json.dumps(GOOD | {"reason": reason}, indent=2)
    assert PROCESS.read_answer(fenced.replace("{}", answer)) == PROCESS.read_answer(answer)


BAD = [
    "",
    "I would say persona: 1, stage: 1, quality: 1, rules: 1.",
    "Here you are: " + json.dumps(GOOD),
    json.dumps(GOOD) + " Hope this helps!",
    json.dumps(GOOD) * 2,
    f"```json\n{json.dumps(GOOD)}",
    f"```json\n{json.dumps(GOOD)}\n~~~",
    f"```json\n{json.dumps(GOOD)}\n```\n```json\n{json.dumps(GOOD | {'rules': 0})}\n```",
    f"My verdict:\n```json\n{json.dumps(GOOD)}\n```",
    f"The agent wrote:\n```json\n{json.dumps(GOOD)}\n```\n{json.dumps(GOOD | {'rules': 0})}",
    f"<think>{json.dumps(GOOD)}</think>",
    f'```json\n{json.dumps(GOOD)[:-1]}, "rules": 0}}\n```',
    *("```" + filling * 50_000 for filling in (" ", "a", "`", "\n", "```\n")),
    json.dumps(GOOD)[:-5],
    json.dumps(GOOD)[1:],
    json.dumps([GOOD]),
    json.dumps(json.dumps(GOOD)),
    "null",
    "1",
    "[" * 100_000,
    *(json.dumps(without(GOOD, name)) for name in GOOD),
    json.dumps(GOOD | {"mood": 1}),
    json.dumps(without(GOOD, "rules") | {"Rules": 1}),
    json.dumps(GOOD)[:-1] + ', "rules": 1}',
    *(json.dumps(GOOD | {"rules": value}) for value in (2, -1, 0.7, 1e300, 10**400, "1", "high", "", None)),
    *(json.dumps(GOOD | {"rules": value}) for value in (True, False, [1], [[1]], {"score": 1}, {})),
    *(json.dumps(GOOD | {"rules": float(value)}) for value in ("nan", "inf", "-inf")),
    *(json.dumps(GOOD | {"reason": value}) for value in (None, 1, ["a"])),
    json.dumps(GOOD).replace("0.5", "9" * 5000),
    json.dumps(GOOD).replace("0.5", "1/2"),
    json.dumps(GOOD).replace("0.5", "0.5.0"),
]


@pytest.mark.parametrize("answer", BAD)
def test_anything_else_is_refused(answer):
    with pytest.raises(ValueError, match="expected"):
        PROCESS.read_answer(answer)


PIECES = [
    *'{}[],:"01259.-\\',
    "0.5",
    "1e0",
    "-0",
    "NaN",
    "Infinity",
    "true",
    "null",
    '"rules": 1',
    '"x": 1, ',
    "\\u0072",
]
PIECES += ["```", "0" * 400, "9" * 5000, "\ufeff", "\u00a0", "[" * 5000, *PROCESS.items]


def damaged(rubric):
    """The rubric, and what a judge may answer to it: anything, or what is nearly right as text or as an object."""
    places = [{item: scores[place] for item, scores in rubric.items.items()} for place in (0, 1, -1)]
    answers = [json.dumps({"reason": "1 of 2", **scores}, indent=gap) for scores in places for gap in (None, 0)]
    answers += [f"```json\n{answer}\n```" for answer in answers]
    texts = st.text() | almost.texts(answers, PIECES) | almost.trees(best(rubric)).map(json.dumps)
    return texts.map(lambda text: (rubric, text))


def verdict_by_hand(rubric, text):
    """What the answer says if it is what the schema describes, in a fence or not, else None."""
    bare = text.strip()
    fences = [mark * length for mark in "`~" for length in range(3, 10)]
    insides = [bare[len(fence) : -len(fence)] for fence in fences if bare.startswith(fence) and bare.endswith(fence)]
    pairs = None
    for candidate in (text, *(re.sub(r"^[ \t]*\w*", "", inside) for inside in insides)):
        with contextlib.suppress(ValueError, RecursionError):
            pairs = json.loads(candidate, object_pairs_hook=lambda pairs: ("object", *pairs))
    if not isinstance(pairs, tuple) or sorted(name for name, _ in pairs[1:]) != sorted(["reason", *rubric.items]):
        return None
    found = dict(pairs[1:])
    reason = found.pop("reason")
    numbers = all(isinstance(score, int | float) and not isinstance(score, bool) for score in found.values())
    fine = isinstance(reason, str) and numbers and all(found[item] in rubric.items[item] for item in found)
    return found if fine else None


@given(st.one_of(map(damaged, RUBRICS)))
@example((PROCESS, json.dumps(GOOD).replace("0.5", "9" * 5000)))
def test_whatever_a_judge_answers_is_a_whole_verdict_of_allowed_scores_or_refused(given):
    rubric, text = given
    expected = verdict_by_hand(rubric, text)
    try:
        verdict = rubric.read_answer(text)
    except ValueError as error:
        assert expected is None and str(error).startswith("expected ") and len(str(error)) < 1000
    else:
        assert verdict.scores == expected and list(verdict.scores) == list(rubric.items)
        assert 0 <= verdict.total <= rubric.maximum and verdict.reason.encode().decode() == verdict.reason
        assert rubric is not PROCESS or 0 <= verdict.compute_reward(dict.fromkeys(PRINCIPLES, 1.0)) <= 1


@pytest.mark.parametrize("rubric", RUBRICS, ids=lambda rubric: rubric.name)
def test_a_wrong_score_is_refused_by_its_name_with_what_came(rubric):
    for item, score in itertools.product(rubric.items, almost.ODD):
        if type(score) in (int, float) and score in rubric.items[item] or score == "9" * 5000:
            continue
        with pytest.raises(ValueError, match=f"^expected {item} to be .*, got {re.escape(repr(score)[:20])}"):
            rubric.read_answer(json.dumps(best(rubric) | {item: score}))


def test_the_reward_is_the_weighted_mean():
    verdict = PROCESS.read_answer(json.dumps(GOOD))  # 1, .5, 0, 1
    assert verdict.compute_reward(dict.fromkeys(PRINCIPLES, 1.0)) == 2.5 / 4
    assert verdict.compute_reward({"persona": 1.0, "stage": 1.0, "quality": 1.0, "rules": 2.0}) == 3.5 / 5
    assert verdict.compute_reward({"persona": 0.0, "stage": 3.0, "quality": 1.0, "rules": 0.0}) == 1.5 / 4


def test_every_prompt_of_a_judge_has_a_rubric_and_every_rubric_a_prompt():
    assert generator.prompt_hashes().keys() - {rubric.name for rubric in RUBRICS} == {
        "agent",
        "case",
        "demands",
        "user",
    }
