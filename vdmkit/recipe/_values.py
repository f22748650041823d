# SPDX-License-Identifier: Apache-2.0
"""Checks a value against an annotation by pydantic, and describes both in plain words."""

import inspect
import json
import math
import re
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from vdmkit.registry import Choice, nearest

_PLAIN_WORDS = {
    "a valid integer": "an integer",
    "a valid number": "a number",
    "a valid string": "a string",
    "a valid boolean": "true or false",
    "a valid array": "a list",
    "a valid tuple": "a list",
    "a valid list": "a list",
    "an object": "a table",
}


class UnfitError(ValueError):
    """A value that its annotation does not allow; the message gives the expected and the found value."""


def check_value(annotation: Any, value: Any) -> Any:
    """Converts a `value` from TOML to the type of `annotation`.

    The rules are those of strict JSON: a list may become a tuple, an integer a float, a string a path, but "5" does not
    become an integer. Infinite and NaN floats are refused for every annotation.

    Raises:
        UnfitError: the value does not fit, or TOML cannot express the type.
    """
    _refuse_infinite(value)
    if annotation is inspect.Parameter.empty:
        return value
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False))
        return adapter.validate_json(json.dumps(value, default=str))
    except (PydanticUserError, NameError) as error:  # the latter: a name in quotes inside the annotation
        raise UnfitError(f"a recipe cannot give a value of type {type_name(annotation)}.") from error
    except ValidationError as error:
        raise UnfitError(_explain(error)) from error


def _refuse_infinite(value: Any) -> None:
    """Raises UnfitError for infinities and NaN, also inside lists and tables whose annotation allows anything."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UnfitError(f"expected a finite number, found {describe(value)}.")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _refuse_infinite(inner)


def _explain(error: ValidationError) -> str:
    details = error.errors(include_url=False)
    expected = list(dict.fromkeys(_expectation(detail["msg"]) for detail in details))
    text = f"expected {' or '.join(expected)}, found {describe(details[0]['input'])}."
    literals = [name for detail in details if detail["type"] == "literal_error" for name in _quoted(detail["msg"])]
    return text + nearest(str(details[0]["input"]), literals)


def _expectation(message: str) -> str:
    expected = message.removeprefix("Input should be ").partition(", ")[0]
    expected = re.sub(r"\b0\.000+\d+", lambda digits: f"{float(digits[0]):g}", expected)
    return _PLAIN_WORDS.get(expected, expected)


def _quoted(message: str) -> list[str]:
    return re.findall(r"'([^']*)'", message)


def describe(value: Any) -> str:
    """Returns a TOML value in the words of an error message."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return f"the list {json.dumps(value, default=str)}"
    return f"the string {json.dumps(value, ensure_ascii=False)}" if isinstance(value, str) else toml_text(value)


def toml_text(value: Any) -> str:
    """Returns a plain value as TOML writes it in one line; None, which TOML cannot write, is "none"."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return repr(value)  # TOML writes inf and nan as Python does
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{json.dumps(key)} = {toml_text(inner)}' for key, inner in value.items())}}}"
    return json.dumps(value, default=str, ensure_ascii=False)


def type_name(annotation: Any) -> str:
    """Returns an annotation in the notation of recipes: `int >= 1`, `"ema" | "raw"`, `list of int`.

    None is not shown in a union, because a recipe gives it by the absence of a key.
    """
    if annotation is inspect.Parameter.empty:
        return "any"
    if isinstance(annotation, type):
        return annotation.__name__.replace("NoneType", "none")
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " | ".join(type_name(part) for part in parts if part is not type(None))
    if origin is Literal:
        return " | ".join(map(toml_text, parts))
    if origin in (tuple, list):
        return _list_name(parts)
    if origin is Annotated:
        base, *constraints = parts
        if Choice in (base, *get_args(base)):
            return f"component of kind {constraints[0]}"
        bounds = [bound for constraint in constraints for bound in _bounds(constraint)]
        return f"{type_name(base)} {', '.join(bounds)}".rstrip()
    return re.sub(r"\b(typing|pathlib|collections\.abc)\.", "", inspect.formatannotation(annotation))


def _list_name(parts: tuple[Any, ...]) -> str:
    """Returns the words for a list: of one type, or of a type for every element."""
    if len(parts) == 1 or parts[1:] == (...,):
        return f"list of {type_name(parts[0])}"
    return f"[{'; '.join(map(type_name, parts))}]"


def _bounds(constraint: Any) -> list[str]:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "multiple_of": "multiple of"}
    found = {sign: getattr(constraint, name) for name, sign in signs.items() if hasattr(constraint, name)}
    return [f"{sign} {_short(value)}" for sign, value in found.items()] or [str(constraint)]


def _short(number: Any) -> str:
    """Returns 10000 for 10000.0, and 1e+12 for its digits."""
    short = f"{number:g}"
    return short if float(short) == number and isinstance(number, float) else str(number)
