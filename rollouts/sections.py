"""Typed sections of a config, and errors that name the field, the expected value and the given one."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import pydantic

Count = Annotated[int, pydantic.Field(ge=1)]
Natural = Annotated[int, pydantic.Field(ge=0)]
NotNegative = Annotated[float, pydantic.Field(ge=0)]
Positive = Annotated[float, pydantic.Field(gt=0)]
Share = Annotated[float, pydantic.Field(ge=0, le=1)]
PositiveShare = Annotated[float, pydantic.Field(gt=0, le=1)]
Seed = Annotated[int, pydantic.Field(ge=0, le=2**31 - 1)]
Axis = Annotated[int, pydantic.Field(ge=-1)]
Dtype = Literal["float32", "bfloat16", "float16"]

_TYPES = {
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "True or False",
    "string_type": "text",
    "model_type": "a section of settings",
    "missing": "a value",
}


_STRICT = pydantic.ConfigDict(strict=True)


class Section(pydantic.BaseModel):
    """A section of a config. It ignores fields that it does not know, as other sections own them.

    A misspelt key is refused where the config is made.
    """

    model_config = pydantic.ConfigDict(extra="ignore", frozen=True, strict=True)


def per_cost(number: Any, named: Any = None) -> Any:
    """Makes the type of a field that is one `number`, or a mapping from each cost's name to a number.

    `named` is the type of the mapping's numbers; default: `number`.
    """
    one, each = (pydantic.TypeAdapter(kind, config=_STRICT) for kind in (number, named or number))

    def check_numbers(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: _check_value(each, x, name) for name, x in value.items()}
        return _check_value(one, value)

    return Annotated[Any, pydantic.PlainValidator(check_numbers)]


def check_section(section: type[Section], tree: Mapping[str, Any]) -> None:
    """Raises ValueError, naming the first field of `tree`, a config as a dict, that `section` does not allow."""
    try:
        section.model_validate(tree)
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False)[0]
        place = ".".join(map(str, found["loc"]))
        if own := found.get("ctx", {}).get("error"):  # of a section's own validator
            raise ValueError(f"config.{place}{getattr(own, 'place', '')}: {own}") from None
        raise ValueError(f"config.{place}: {_describe_error(found, _find_bounds(section, found['loc']))}") from None


def flatten_config(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the leaves of nested dicts, by their dotted names."""
    flat, branches = {}, [("", tree)]
    while branches:
        prefix, branch = branches.pop(0)
        for name, value in branch.items():
            if isinstance(value, Mapping):
                branches.append((f"{prefix}{name}.", value))
            else:
                flat[prefix + name] = value
    return flat


class _Refused(ValueError):
    """A value that a field of `per_cost` does not allow."""

    def __init__(self, message: str, name: str):
        super().__init__(message)
        self.place = f".{name}" if name else ""


def _check_value(adapter: pydantic.TypeAdapter, value: Any, name: str = "") -> Any:
    try:
        return adapter.validate_python(value)
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False)[0]
        raise _Refused(_describe_error(found, adapter.core_schema), name) from None


def _find_bounds(section: type[Section], place: tuple) -> Mapping[str, Any]:
    """Finds the bounds of a field, or its choices, by its place in a section."""
    kind, parts = section, ()
    for name in place:
        if (field := getattr(kind, "model_fields", {}).get(name)) is None:
            break
        kind, parts = field.annotation, field.metadata
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    return {key: x for part in parts for key in ("ge", "gt", "le") if (x := getattr(part, key, None)) is not None}


def _describe_error(found: Mapping[str, Any], bounds: Mapping[str, Any]) -> str:
    """Describes one of pydantic's errors: the expected value, and the given one."""
    if found["type"] == "literal_error":
        return f"expected one of {bounds['choices']}, got {found['input']!r:.100}"
    if found["type"] in ("greater_than", "greater_than_equal", "less_than_equal"):
        return f"expected {_describe_range(bounds)}, got {found['input']!s:.30}"
    came = "none" if found["type"] == "missing" else f"{found['input']!r:.100}"
    return f"expected {_TYPES.get(found['type'], found['msg'])}, got {came}"


def _describe_range(bounds: Mapping[str, Any]) -> str:
    least, beyond, most = (bounds.get(key) for key in ("ge", "gt", "le"))
    if beyond is not None:
        return f"more than {beyond}" + (f" and at most {most}" if most is not None else "")
    if least is None:
        return f"{most} or less"
    return f"{least} or more" if most is None else f"{least} to {most}"
