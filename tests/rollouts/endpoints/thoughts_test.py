"""Whatever a completion says about itself is read: thoughts are told from answers, and what is not whole is no answer.

``--hypothesis-profile=100k`` fuzzes for 10^5 cases.
"""

import contextlib
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts.endpoints import answers
from rollouts.endpoints.answers import NoAnswer


def completion(content=None, finish="stop", **message):
    choice = {"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return answers.read_answer(json.dumps({"choices": [choice]}).encode())


RATING = "If the agent refuses I will answer with [end:1]."
COLD = "The rice is cold."
TURN = "<response>Sorry.</response><action>chat</action>"


@pytest.mark.parametrize(
    "message",
    [
        {"content": f"<think>\n{RATING}\n</think>\n\n{COLD}"},
        {"content": f"{RATING}\n</think>\n\n{COLD}"},  # the chat template wrote the beginning
        {"content": f"<think>{RATING}</think><think>Or not.</think>{COLD}"},
        {"content": f"<think></think>\n{COLD}"},
        {"content": f"[THINK]{RATING}[/THINK]{COLD}"},
        {"content": f"<|channel|>analysis<|message|>{RATING}<|end|><|channel|>final<|message|>{COLD}"},
        {"content": f"<|channel|>final <|constrain|>JSON<|message|>{COLD}<|return|>"},
        {"content": f"<|channel|>final<|message|><think>{RATING}</think>{COLD}"},  # thoughts within the last channel
        {"content": COLD, "reasoning_content": RATING},
        {"content": COLD, "reasoning": RATING, "reasoning_content": None},
        {"content": [{"type": "text", "text": "The rice "}, {"type": "text", "text": "is cold."}]},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": RATING}]},
                {"type": "text", "text": COLD},
            ]
        },
        {"content": [{"type": "reasoning", "text": RATING}, {"type": "output_text", "text": COLD}]},
        *({"content": COLD, "finish": finish} for finish in (None, "", "stop", "STOP", "eos_token", "end_turn")),
        {"content": COLD, "tool_calls": [], "function_call": None, "refusal": None},
    ],
)
def test_a_whole_answer_is_told_from_the_thoughts_before_it(message):
    assert answers.extract_text(completion(**message)) == COLD


@pytest.mark.parametrize(
    ("message", "cause", "said"),
    [
        ({"content": COLD, "finish": "length"}, "truncated", "within its answer.*is cold"),
        ({"content": None, "reasoning": "So I", "finish": "length"}, "truncated", "within its thoughts.*So I"),
        ({"content": "<think>So I", "finish": "max_tokens"}, "truncated", "within its thoughts.*So I"),
        ({"content": "<think>So I", "finish": None}, "truncated", "within its thoughts"),
        ({"content": f"<think>a</think> <think>{COLD}"}, "truncated", "within its thoughts"),
        ({"content": f"<|channel|>analysis<|message|>{COLD}"}, "truncated", "within its thoughts"),
        ({"content": f"{COLD} <think>{RATING}</think>"}, "malformed", "thoughts in the middle"),
        ({"content": f"<think>a</think>{COLD}</think>[end:5]"}, "malformed", "thoughts in the middle"),
        ({"content": f"[end:1]</think>{COLD}</think>[end:5]"}, "malformed", "thoughts in the middle"),
        ({"content": "", "reasoning_content": COLD}, "malformed", "only thought.*is cold"),
        ({"content": "<think>So I</think> \n"}, "malformed", "only thought.*So I"),
        ({"content": None}, "malformed", "without text"),
        ({"content": []}, "malformed", "without text"),
        ({"content": None, "refusal": "I cannot be rude."}, "refused", "I cannot be rude"),
        ({"content": [{"type": "refusal", "refusal": "No."}]}, "refused", "No."),
        ({"content": "The r", "finish": "content_filter"}, "filtered", "The r"),
        ({"content": COLD, "finish": "tool_calls"}, "malformed", "called a tool"),
        ({"content": COLD, "tool_calls": [{"id": "1"}]}, "malformed", "called a tool"),
        ({"content": COLD, "finish": "abort"}, "malformed", "'abort'"),
    ],
)
def test_what_is_no_whole_plain_answer_has_its_cause(message, cause, said):
    with pytest.raises(NoAnswer, match=said) as caught:
        answers.extract_text(completion(**message))
    assert caught.value.cause == cause


@pytest.mark.parametrize(
    "content",
    [
        1,
        {"text": COLD},
        ["Hi"],
        [{"type": "image_url", "image_url": {}}],
        [{"type": "text", "text": 1}],
        [{"text": COLD}],
    ],
)
def test_other_content_than_text_is_refused(content):
    with pytest.raises(ValueError, match="chat completion with text"):
        completion(content)


@pytest.mark.parametrize(
    ("message", "turn"),
    [
        ({"content": TURN, "reasoning_content": "listen first"}, f"<think>listen first</think>{TURN}"),
        ({"content": TURN, "reasoning": "listen first"}, f"<think>listen first</think>{TURN}"),
        ({"content": TURN, "reasoning_content": ""}, f"<think></think>{TURN}"),
        ({"content": TURN, "reasoning_content": None}, TURN),  # it did not think: its own breach
        ({"content": f"hm</think>{TURN}"}, f"<think>hm</think>{TURN}"),
        ({"content": f"<think>hm</think>{TURN}"}, f"<think>hm</think>{TURN}"),
        ({"content": f"<think>hm</think>{TURN}", "reasoning_content": "deep"}, f"<think>hm</think>{TURN}"),
        ({"content": [{"type": "text", "text": TURN}]}, TURN),
        ({"content": "<think>hm", "finish": "length"}, "<think>hm"),
        ({"content": None, "reasoning": "hm", "finish": "length"}, "<think>hm"),
        ({"content": None, "finish": "length"}, ""),
        ({"content": None, "reasoning": "hm"}, "<think>hm"),
        ({"content": None, "refusal": "I cannot."}, "I cannot."),
    ],
)
def test_an_agents_turn_has_its_thoughts_before_it_wherever_they_were_sent(message, turn):
    assert answers.extract_turn(completion(**message)) == turn


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ({"content": None}, "malformed"),
        ({"content": " ", "reasoning": " "}, "malformed"),
        ({"content": "x", "finish": "content_filter"}, "filtered"),
        ({"content": "x", "finish": "abort"}, "malformed"),
        ({"content": "x", "tool_calls": [{}]}, "malformed"),
    ],
)
def test_what_a_server_did_to_an_agents_turn_is_not_the_agents_fault(message, cause):
    with pytest.raises(NoAnswer) as caught:
        answers.extract_turn(completion(**message))
    assert caught.value.cause == cause


@pytest.mark.parametrize(
    "piece",
    [
        "<think>",
        "</think>",
        "<think></think>",
        "<think> ",
        " ",
        "<|channel|>",
        "<|channel|>final",
        "[THINK]",
        "<",
        "think>",
    ],
)
@pytest.mark.parametrize("end", ["", "</think>", "<|message|>", "x"])
def test_a_hundred_thousand_marks_take_no_time(piece, end):
    sent = completion(piece * 100_000 + end)
    for read in (answers.extract_text, answers.extract_turn):
        with contextlib.suppress(NoAnswer):
            read(sent)


MARK = re.compile("think|thought|reasoning|<[|]", re.IGNORECASE)
spoken = st.sampled_from([RATING, "{}", "```", "<b>", "a < b"]) | st.text(max_size=20).filter(
    lambda text: text.strip() and not MARK.search(text)
)


@given(spoken, spoken, st.sampled_from(["tags", "half", "field", "parts", "twice"]), st.text(" \n", max_size=3))
def test_thoughts_never_reach_the_answer_and_an_answer_never_is_a_thought(thought, said, form, space):
    content, beside = {
        "tags": (f"{space}<think>{thought}</think>{space}{said}", {}),
        "half": (f"{thought}</think>{space}{said}", {}),
        "field": (said, {"reasoning_content": thought}),
        "parts": ([{"type": "thinking", "thinking": thought}, {"type": "text", "text": said}], {}),
        "twice": (f"<think>{thought}</think>{space}<think>{thought}</think>{said}", {"reasoning": ""}),
    }[form]
    read = answers.extract_text(completion(content, **beside))
    assert read == said if form in ("field", "parts") else read == said.lstrip()
    if form in ("tags", "half", "twice"):
        begun = content if form != "half" else f"<think>{content}"
        for cut in (begun.rindex("<think>") + 8, begun.rindex("</think>") + 7):
            with pytest.raises(NoAnswer):
                answers.extract_text(completion(begun[:cut], finish=None))
