"""What may be asked of the server: requests of the OpenAI protocol, checked field by field."""

import contextlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

MOST_STOPS, MOST_CHOICES, MOST_TOOLS, MOST_MESSAGES = 16, 128, 128, 4096


class RequestError(ValueError):
    """A request that is not answered; `status` and the rest are what the OpenAI protocol says of it."""

    def __init__(self, message: str, *, param: str | None = None, status: int = 400, code: str | None = None):
        super().__init__(message)
        self.param, self.status, self.code = param, status, code

    def to_json(self) -> dict[str, Any]:
        """Returns the body of the answer."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def _only(*allowed: Any) -> Any:
    """A field that other servers have and this one does not; null and the `allowed` values ask for nothing."""

    def check(value: Any) -> Any:
        if value is not None and value not in allowed:
            wanted = " or ".join(f"{one!r}" for one in (None, *allowed))
            raise ValueError(f"not supported by this server; expected {wanted}")
        return None

    return Annotated[Any, BeforeValidator(check)]


def _mend_text(value: Any) -> Any:
    """Replaces halves of surrogate pairs, which JSON can spell and no file or tokenizer can hold."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_mend_text)]


def _join_parts(value: Any) -> Any:
    """Joins a content that is given in parts of text."""
    if not isinstance(value, list):
        return value
    for number, part in enumerate(value):
        if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            raise ValueError(f'part {number}: expected {{"type": "text", "text": …}}, got {part!r:.80}')
    return "".join(part["text"] for part in value)


class FieldError(ValueError):
    """A value that a field must not have beside others; `field` is its name within its object."""

    def __init__(self, field: str, message: str):
        super().__init__(message)
        self.field = field


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Echoed(BaseModel):
    """What clients send back of answers, of whatever server: they add fields of their own, which say nothing here."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Function(_Echoed):
    """What a call calls."""

    name: Text
    arguments: Text


class Call(_Echoed):
    """A call of a tool, in the history of a conversation."""

    type: Literal["function"] | None = "function"
    function: Function


class ChatMessage(_Echoed):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[Text | None, BeforeValidator(_mend_text), BeforeValidator(_join_parts)] = None
    tool_calls: tuple[Call, ...] | None = Field(None, strict=False)
    refusal: _only("") = None
    audio: _only() = None
    function_call: _only() = None

    @model_validator(mode="after")
    def _check_content(self) -> "ChatMessage":
        if self.tool_calls and self.role != "assistant":
            raise FieldError("tool_calls", f"expected none in a message with the role {self.role!r}")
        if self.content is None and self.role != "assistant":
            raise FieldError("content", "expected a text")
        return self


class StreamOptions(_Strict):
    """How an answer is streamed."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # nothing is added to chunks; there is nothing to turn off


class JsonSchema(_Strict):
    """A schema that an answer follows."""

    name: Text | None = None
    description: Text | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(_Strict):
    """What an answer looks like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> "ResponseFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise FieldError("json_schema", 'expected where "type" is "json_schema", and nowhere else')
        return self


def _list_stops(value: Any) -> Any:
    stops = [value] if isinstance(value, str) else value
    if stops is not None and not (isinstance(stops, list) and len(stops) <= MOST_STOPS and all(stops)):
        raise ValueError(f"expected up to {MOST_STOPS} texts, none of them empty")
    return tuple(stops or ())


class _Request(_Strict):
    """What both kinds of completions have."""

    model: Text
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)  # -1, as other servers have it, and 0: all
    max_tokens: int | None = Field(None, ge=1)
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    seed: int | None = None
    stop: Annotated[tuple[Text, ...], BeforeValidator(_list_stops)] = ()
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None

    # Accepted: they do not change what is answered.
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None

    # Refused by name, unless they ask for nothing.
    frequency_penalty: _only(0) = None
    presence_penalty: _only(0) = None
    repetition_penalty: _only(1) = None
    min_p: _only(0) = None
    min_tokens: _only(0) = None
    logit_bias: _only({}) = None
    best_of: _only(1) = None
    ignore_eos: _only(False) = None
    include_stop_str_in_output: _only(False) = None
    skip_special_tokens: _only(True) = None
    length_penalty: _only(1) = None
    use_beam_search: _only(False) = None
    return_tokens_as_token_ids: _only(False) = None

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        """Drops fields that are null: they ask for nothing, whatever they are."""
        return {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _check_stream(self) -> "_Request":
        if self.stream_options and self.stream_options.include_usage and not self.stream:
            raise FieldError("stream_options", "expected only with stream=true")
        return self


class ChatRequest(_Request):
    """A request for the next message of a conversation."""

    messages: tuple[ChatMessage, ...] = Field(min_length=1, max_length=MOST_MESSAGES, strict=False)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: _only(0) = None
    tools: list[dict[str, Any]] | None = Field(None, max_length=MOST_TOOLS)
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None

    modalities: _only(["text"]) = None
    audio: _only() = None
    prediction: _only() = None
    functions: _only([]) = None
    function_call: _only("none") = None
    web_search_options: _only() = None
    reasoning_effort: Any = None  # this model thinks as it was trained to
    verbosity: _only("medium") = None
    chat_template_kwargs: _only({}) = None
    add_generation_prompt: _only(True) = None
    continue_final_message: _only(False) = None

    @property
    def limit(self) -> int | None:
        """The most tokens that the answer may have; None: the server's."""
        return self.max_completion_tokens or self.max_tokens


def _list_prompts(value: Any) -> tuple[str | tuple[int, ...], ...]:
    """Lists the prompts: a text, tokens, or a list of either."""
    alone = isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int))
    listed = [value] if alone else value
    if not (isinstance(listed, list) and listed and (all(map(_is_tokens, listed)) or _are_texts(listed))):
        raise ValueError("expected a text, a list of tokens, or a list of texts or of lists of tokens")
    return tuple(one if isinstance(one, str) else tuple(one) for one in listed)


def _is_tokens(value: Any) -> bool:
    return isinstance(value, list) and all(type(token) is int for token in value)


def _are_texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


class CompletionRequest(_Request):
    """A request to go on with a text or with tokens."""

    prompt: Annotated[tuple[Text | tuple[int, ...], ...], BeforeValidator(_list_prompts)]
    logprobs: int | None = Field(None, ge=0, le=0)  # of the tokens that were drawn, not of others
    echo: _only(False) = None
    suffix: _only("") = None

    @property
    def limit(self) -> int:
        """The most tokens that the answer may have."""
        return self.max_tokens or 16  # as the protocol says


class Outcome(_Strict):
    """What a client says of a conversation that was served."""

    id: Text  # of an answer in it, or its x-session-id
    resolved: bool | None = None
    escalated: bool | None = None
    rating: float | None = None

    @model_validator(mode="after")
    def _check_rating(self) -> "Outcome":
        if self.rating is not None and not math.isfinite(self.rating):
            raise FieldError("rating", "expected a finite number")
        return self


Request = TypeVar("Request", bound=BaseModel)


def read_request(kind: type[Request], body: object) -> Request:
    """Reads a request. Raises RequestError, which quotes the field and says what was expected."""
    if not isinstance(body, Mapping):
        raise RequestError(f"expected a JSON object, got {body!r:.80}")
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        own = fault.get("ctx", {}).get("error")
        param = _name_field([*fault["loc"], *([own.field] if isinstance(own, FieldError) else [])])
        text = _describe_fault(fault)
        raise RequestError(f"'{param}': {text}" if param else text, param=param or None) from None


def _describe_fault(fault: Mapping[str, Any]) -> str:
    match fault["type"]:
        case "extra_forbidden":
            return "this field is not supported by this server"
        case "missing":
            return "expected a value, got none"
        case "value_error":
            return str(fault["ctx"]["error"])
        case "too_short":
            return f"expected one or more, got {fault['input']!r:.80}"
        case "too_long":
            return f"expected at most {fault['ctx']['max_length']}, got {fault['ctx']['actual_length']}"
        case "tuple_type" | "list_type":
            return f"expected a list, got {fault['input']!r:.80}"
        case "model_type" | "dict_type":
            return f"expected an object, got {fault['input']!r:.80}"
    expected = re.sub(r"^Input should be (a valid )?", "expected ", fault["msg"])
    return f"{expected}, got {fault['input']!r:.80}"


def _name_field(place: Sequence[int | str]) -> str:
    """Names a field as a client would: messages[0].content."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


@contextlib.contextmanager
def name_field() -> Iterator[None]:
    """Makes RequestErrors of ValueErrors that begin with a field in quotes."""
    try:
        yield
    except ValueError as error:
        raise RequestError(str(error), param=str(error).split("'")[1]) from None
    except RecursionError:
        raise RequestError("'tools': expected tools that are nested less deep", param="tools") from None
