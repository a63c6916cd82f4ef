"""Telling a model's thoughts from its answer, where a server sends both in one text."""

import re
from typing import NamedTuple

_MARKS = {
    "<think>": "</think>",  # DeepSeek, Qwen and most others
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",  # Mistral
    "◁think▷": "◁/think▷",  # Kimi
    "<|START_THINKING|>": "<|END_THINKING|>",  # Cohere
}
"""What thoughts before an answer begin and end with."""

_EACH = "|".join(f"{re.escape(begin)}.*?{re.escape(end)}" for begin, end in _MARKS.items())
_THOUGHT = re.compile(rf"\s*(?:{_EACH})", re.DOTALL)
_FINAL = re.compile(r"<\|channel\|>\s*final[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")  # gpt-oss without a parser


class Split(NamedTuple):
    """A text without its thoughts."""

    answer: str
    flaw: str = ""  # truncated: it ends within thoughts | malformed: thoughts within or after the answer


def split_thoughts(text: str) -> Split:
    """Takes off the thoughts that `text` begins with; a text without any stays as it is.

    The first thought may lack its opening `<think>`: some chat templates write it in the model's place.
    """
    if "<|channel|>" in text:
        return _split_channels(text)
    end = 0
    while thought := _THOUGHT.match(text, end):
        end = thought.end()
    if not end and "</think>" in text:
        end = text.index("</think>") + len("</think>")
        if "<think>" in text[:end]:
            return Split(text, "malformed")
    answer = text[end:].lstrip() if end else text
    if answer.lstrip().startswith(tuple(_MARKS)):
        return Split("", "truncated")
    return Split(answer, "malformed" if "<think>" in answer or "</think>" in answer else "")


def _split_channels(text: str) -> Split:
    finals = list(_FINAL.finditer(text))
    if not finals:
        return Split("", "truncated")
    answer = text[finals[-1].end() :].strip().removesuffix("<|return|>").removesuffix("<|end|>")
    return Split(answer, "malformed") if "<|channel|>" in answer else split_thoughts(answer)
