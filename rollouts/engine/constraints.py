"""Constrained decoding: which tokens may be drawn next, so that an answer follows a JSON schema or calls a tool.

The work is done by llguidance (https://github.com/guidance-ai/llguidance): grammars over bytes, masks over tokens. JSON
is written in one line with ", " and ": " between its parts, as Qwen2.5's tool calls are; free white space would let a
model write nothing else. Keys come in the order in which the schema has them.

Legend: V the model's vocabulary.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import llguidance
import numpy as np
import tokenizers

from models.tokenizer import Tokenizer

_FORM = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_ANY_OBJECT = {"type": "object"}
_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}


class ConstraintError(ValueError):
    """A constraint that the library gave up."""


class Constraint:
    """What may be written next in one answer. Not for several threads at a time."""

    def __init__(self, matcher: llguidance.LLMatcher, vocab_size: int):
        self._matcher, self._vocab_size = matcher, vocab_size

    def allowed(self) -> np.ndarray:
        """Returns [V] bool: the tokens that may be drawn next.

        Control tokens are never among them, but for the end-of-turn token where the answer may end; where it must, that
        is the only one.

        Raises ConstraintError where the library gives up, for instance at a schema that takes too much work.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise ConstraintError(f"a constraint took too much work: {_shorten(self._matcher.get_error())}")
        allowed = np.zeros(self._vocab_size, bool)
        found = np.unpackbits(bits, bitorder="little")[: self._vocab_size]
        allowed[: len(found)] = found
        return allowed

    def accept(self, token: int) -> None:
        """Takes the token that was drawn. Raises ConstraintError if there is no going on after it."""
        if not self._matcher.consume_token(int(token)):
            raise ConstraintError(f"the token {token} is not allowed here: {_shorten(self._matcher.get_error())}")

    def fork(self) -> "Constraint":
        """Returns a constraint that goes on from here on its own."""
        return Constraint(self._matcher.deep_copy(), self._vocab_size)


class Constraints:
    """Makes constraints over one vocabulary. It takes a second or so to make and is to be kept.

    Raises ValueError for a tokenizer that has more ids than the model, or that llguidance cannot read.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int):
        if vocab_size < tokenizer.vocab_size:
            raise ValueError(f"expected a model with at least {tokenizer.vocab_size} ids, got {vocab_size}")
        self._vocab_size = vocab_size
        self._limits = llguidance.LLParserLimits(verbose_errors=False)
        self._vocabulary = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Vocabulary(tokenizer)))

    def constrain_json(self, schema: Mapping[str, Any] | None) -> Constraint:
        """Returns a constraint to a JSON value that follows `schema`; None: to any object.

        Raises ValueError, naming the field, for a schema that is none, that nothing can follow, or that llguidance
        does not support.
        """
        field = "response_format.json_schema.schema"
        return self._make_constraint(f"start: {_write_rule(_ANY_OBJECT if schema is None else schema, field)}", field)

    def constrain_calls(
        self, tools: Sequence[Mapping[str, Any]], *, names: Sequence[str] | None = None, parallel: bool = True
    ) -> Constraint:
        """Returns a constraint to a call, or to one or more (`parallel`), as Qwen2.5 writes them, and nothing else.

        Args:
          tools: all tools of a request, checked by `serving.tool_use.read_tool_use`; messages name their place.
          names: which of them may be called; None: all.
          parallel: whether more than one call may be written.

        Raises:
          ValueError: when the parameters of a tool are no schema that llguidance supports, naming the field.
        """
        rules = []
        for number, tool in enumerate(tools):
            function = tool["function"]
            if names is not None and function["name"] not in names:
                continue
            field = f"tools[{number}].function.parameters"
            schema = {**_ANY_OBJECT, **function["parameters"]} if function.get("parameters") else _NO_ARGUMENTS
            head = json.dumps(f'{{"name": "{function["name"]}", "arguments": ')
            rule = f'{head} {_write_rule(schema, field)} "}}"'
            self._make_constraint(f"start: {rule}", field)  # each alone, so that a message names the right one
            rules.append(f"call_{number}: {rule}")
        if not rules:
            raise ValueError("'tools': expected one that may be called, got none")
        choice = " | ".join(rule.partition(":")[0] for rule in rules)
        more = r'("\n" call)*' if parallel else ""
        lines = [f"start: call {more}", rf'call: "<tool_call>\n" ({choice}) "\n</tool_call>"', *rules]
        return self._make_constraint("\n".join(lines), "tools")

    def _make_constraint(self, rules: str, field: str) -> Constraint:
        matcher = llguidance.LLMatcher(
            self._vocabulary, f"%llguidance {{}}\n{rules}\n", log_level=0, limits=self._limits
        )
        if matcher.is_error():
            raise ValueError(f"'{field}': not supported as a constraint: {_shorten(matcher.get_error())}")
        made = Constraint(matcher, self._vocab_size)
        try:
            made.allowed()
        except ConstraintError as error:
            raise ValueError(f"'{field}': not supported as a constraint: {error}") from None
        return made


class _Vocabulary:
    """What `llguidance.TokenizerWrapper` wants to know of a tokenizer.

    Made from a tokenizer.json alone, the library would take each added token that looks like a tag for a control token,
    `<tool_call>` among them, and yet encode the text to it.
    """

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer):
        content = tokenizer.to_json()
        # A schema may ask for text that is not normalized; then its bytes are wanted, not those of the normal form.
        self._backend = tokenizers.Tokenizer.from_str(json.dumps(json.loads(content) | {"normalizer": None}))
        self._backend.encode_special_tokens = True
        if self._backend.get_vocab_size() != tokenizer.vocab_size:
            raise ValueError("constrained decoding: expected a tokenizer without gaps among its ids")
        try:
            plain = llguidance.LLTokenizer(content)
        except ValueError as error:
            raise ValueError(f"constrained decoding does not know this tokenizer: {_shorten(str(error))}") from None
        self.tokens = [plain.decode_bytes([token]) for token in range(plain.vocab_size)]
        self.special_token_ids = sorted(tokenizer.control_ids)
        self.eos_token_id = tokenizer.im_end

    def __call__(self, text: str) -> list[int]:
        return self._backend.encode(text, add_special_tokens=False).ids


def _write_rule(schema: Any, field: str) -> str:
    """Writes a schema as a rule of llguidance. Raises ValueError if it is no JSON object."""
    if not isinstance(schema, Mapping):
        raise ValueError(f"'{field}': expected a JSON schema, got {type(schema).__name__}")
    try:
        # The key is the library's own, and not for clients: it can switch checks off.
        return f"%json {json.dumps({**schema, 'x-guidance': _FORM}, allow_nan=False)}"
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"'{field}': expected a JSON schema: {error}") from None


def _shorten(error: str) -> str:
    return " ".join(error.split())[:200]
