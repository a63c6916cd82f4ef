"""Where a model is served and how it is asked: settings, their checks, and the requests that follow from them."""

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from rollouts.endpoints import proxies
from rollouts.types import Message

EMBEDDED = "embedded"


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where a model is served and how it is asked; `docs/endpoints.md` explains. Times in seconds; 0: no limit."""

    url: str  # base URL ending in /v1, several replicas separated by commas, or "embedded"
    model: str
    api_key_env: str = ""  # name of the environment variable that holds the key
    temperature: float = 1.0
    max_tokens: int = 256
    response_format: str = "json_schema"  # how the JSON schema of an answer is passed on, a key of FORMATS
    max_tokens_field: str = "max_tokens"  # what the request calls a setting, see FIELDS
    temperature_field: str = "temperature"
    seed_field: str = "seed"
    system_role: str = "system"  # of the prompt, one of SYSTEM_ROLES
    extra_body: str = ""  # further fields of the request, as a JSON object
    concurrency: int = 64  # requests under way at a time, all replicas together
    requests_per_minute: int = 0
    tokens_per_minute: int = 0  # of prompts and answers
    connect_timeout: float = 5.0
    read_timeout: float = 120.0  # without a byte of the answer
    total_timeout: float = 300.0  # of one attempt
    retries: int = 3
    backoff: float = 1.0  # before the first retry; doubled before each further one
    max_wait: float = 60.0  # before a retry, whatever Retry-After says
    breaker_failures: int = 10  # failures in a row that open the circuit: then nobody asks for a while
    breaker_rest: float = 5.0  # from then, or from a failed probe, until the next probe
    breaker_wait: float = 120.0  # how long requests wait for the circuit to close, from when it opened
    max_answer_bytes: int = 4_000_000
    prompt_price: float = 0.0  # per million tokens
    answer_price: float = 0.0
    budget_calls: int = 0  # of a run; once a budget is reached, the run saves and stops
    budget_tokens: int = 0
    budget_cost: float = 0.0  # in the currency of the prices


ASKED = ("model", "temperature", "max_tokens", "response_format", "temperature_field", "system_role", "extra_body")
"""The fields that an answer may depend on; the others say how it is fetched."""

FIELDS = {
    "max_tokens_field": ("max_tokens", "max_completion_tokens"),
    "temperature_field": ("temperature", "none"),
    "seed_field": ("seed", "random_seed", "none"),
}
"""The names that servers have for a field of a request; "none": it is not sent."""

SYSTEM_ROLES = ("system", "developer", "user")
"""The roles that a prompt may have; "user": it goes at the beginning of the first user message."""

FORMATS = {
    "json_schema": lambda wanted: wanted,
    "json_object+schema": lambda wanted: {"type": "json_object", "schema": wanted["json_schema"]["schema"]},
    "json_object": lambda wanted: {"type": "json_object"},
    "none": lambda wanted: None,
}
"""What a server gets for a `response_format` with a JSON schema; None: nothing. Answers are read as strictly anyway."""

_AT_LEAST = {
    **dict.fromkeys(("concurrency", "max_tokens", "breaker_failures", "max_answer_bytes"), 1),
    **dict.fromkeys(("requests_per_minute", "tokens_per_minute", "retries", "backoff", "max_wait"), 0),
    **dict.fromkeys(("breaker_rest", "breaker_wait", "prompt_price", "answer_price"), 0),
    **dict.fromkeys(("budget_calls", "budget_tokens", "budget_cost", "temperature"), 0),
}
_POSITIVE = ("connect_timeout", "read_timeout", "total_timeout")


def list_urls(endpoint: Endpoint) -> list[str]:
    """The base URL of each replica, with a slash at the end."""
    if endpoint.url == EMBEDDED:
        return ["http://embedded/v1/"]
    return [url.strip().rstrip("/") + "/" for url in endpoint.url.split(",")]


def build_request(
    endpoint: Endpoint,
    messages: Sequence[Message],
    *,
    seed: int,
    response_format: Mapping[str, Any] | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Builds a request: all that an answer may depend on, with the protocol's names of fields."""
    asked = {
        "model": endpoint.model,
        "messages": [dataclasses.asdict(message) for message in _with_role(endpoint.system_role, messages)],
        "temperature": endpoint.temperature,
        "max_tokens": endpoint.max_tokens,
        "seed": seed,
    }
    if endpoint.temperature_field == "none":
        del asked["temperature"]
    if response_format is not None and (sent := FORMATS[endpoint.response_format](response_format)):
        asked["response_format"] = dict(sent)
    if tools:
        asked["tools"] = [dict(tool) for tool in tools]
    return asked | json.loads(endpoint.extra_body or "{}")


def translate_request(endpoint: Endpoint, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Renames the fields of a request to what the endpoint's server calls them, and drops those it does not want."""
    names = {field.removesuffix("_field"): getattr(endpoint, field) for field in FIELDS}
    return {names.get(name, name): value for name, value in asked.items() if names.get(name) != "none"}


def _with_role(role: str, messages: Sequence[Message]) -> list[Message]:
    """Gives the prompt in `messages` that role; a user's joins the user message after it, as roles must alternate."""
    if not messages or messages[0].role != "system":
        return list(messages)
    prompt, *others = messages
    if role == "user" and others and others[0].role == "user":
        first, *others = others
        return [Message("user", f"{prompt.content}\n\n{first.content}"), *others]
    return [Message(role, prompt.content), *others]


def check_endpoint(name: str, endpoint: Endpoint) -> None:
    """Raises ValueError, naming the field, if a setting in config.{name}, its key or its proxy is invalid."""
    for url in list_urls(endpoint):
        _check_url(name, url)
        if endpoint.url != EMBEDDED and (proxy := proxies.find_proxy(url)):
            proxies.make_transport(proxy)
    for field, least in _AT_LEAST.items():
        if not getattr(endpoint, field) >= least:
            raise ValueError(f"config.{name}.{field}: expected {least} or more, got {getattr(endpoint, field)}")
    for field in _POSITIVE:
        if not getattr(endpoint, field) > 0:
            raise ValueError(f"config.{name}.{field}: expected more than 0 seconds, got {getattr(endpoint, field)}")
    if endpoint.response_format not in FORMATS:
        raise ValueError(
            f"config.{name}.response_format: expected one of {', '.join(FORMATS)}, got {endpoint.response_format!r}"
        )
    for field, names in {**FIELDS, "system_role": SYSTEM_ROLES}.items():
        if getattr(endpoint, field) not in names:
            raise ValueError(
                f"config.{name}.{field}: expected one of {', '.join(names)}, got {getattr(endpoint, field)!r}"
            )
    _check_extra_body(name, endpoint.extra_body)
    if endpoint.budget_cost and not (endpoint.prompt_price or endpoint.answer_price):
        raise ValueError(f"config.{name}.budget_cost: expected prices beside it, config.{name}.prompt_price is 0")
    if endpoint.api_key_env:
        key = os.environ.get(endpoint.api_key_env, "")
        if not key:
            raise ValueError(f"config.{name}.api_key_env: the environment variable {endpoint.api_key_env} is not set")
        if not re.fullmatch(r"[!-~]+", key):  # and never show it
            raise ValueError(
                f"config.{name}.api_key_env: expected printable ASCII without spaces in {endpoint.api_key_env}"
            )


def _check_extra_body(name: str, text: str) -> None:
    try:
        found = json.loads(text or "{}")
        json.dumps(found, allow_nan=False).encode()
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"config.{name}.extra_body: expected a JSON object as text, got {text!r:.100}")
    ours = {"endpoint", "model", "messages", "response_format", "tools", "n", "stream"}.union(*FIELDS.values())
    if taken := sorted(ours & found.keys()):
        raise ValueError(f"config.{name}.extra_body: expected fields without a setting of their own, got {taken[0]!r}")


def _check_url(name: str, url: str) -> None:
    expected = f"config.{name}.url: expected 'embedded' or http(s)://…/v1, several separated by commas"
    if any(mark in url for mark in "@?#"):  # configs are kept and shown
        raise ValueError(f"{expected}; without user, password or query: keys are for config.{name}.api_key_env")
    try:
        parts = httpx.URL(url)  # the client will read it with httpx too
        fine = parts.scheme in ("http", "https") and parts.host and (parts.port is None or 0 < parts.port < 2**16)
    except (httpx.InvalidURL, ValueError):
        fine = False
    if not fine:
        raise ValueError(f"{expected}; got {url.rstrip('/')!r}")
