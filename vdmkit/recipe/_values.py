# SPDX-License-Identifier: Apache-2.0
"""Checks a value against an annotation by pydantic, and describes both in plain words."""

import inspect
import json
import math
import re
import types
from typing import Annotated, Any, Union, get_args, get_origin

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
    """Returns a plain value as TOML writes it, for messages and listings; None is an absent key."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return repr(value)  # TOML writes inf and nan as Python does
    return json.dumps(list(value) if isinstance(value, tuple) else value, default=str, ensure_ascii=False)


def type_name(annotation: Any) -> str:
    """Returns an annotation in the notation of recipes: `int > 0`, `'ema' | 'raw'`, `list of int`."""
    if annotation is inspect.Parameter.empty:
        return "any"
    if isinstance(annotation, type):
        return annotation.__name__.replace("NoneType", "None")
    if get_origin(annotation) in (Union, types.UnionType):
        return " | ".join(map(type_name, get_args(annotation)))
    if get_origin(annotation) is Annotated:
        base, *constraints = get_args(annotation)
        base = Choice if Choice in get_args(base) else base  # a recipe cannot give objects
        return " ".join([type_name(base), *map(_constraint, constraints)])
    return re.sub(r"\b(typing|pathlib|collections\.abc)\.", "", inspect.formatannotation(annotation))


def _constraint(constraint: Any) -> str:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    if hasattr(constraint, "multiple_of"):
        return f"multiple of {constraint.multiple_of}"
    bounds = [f"{sign} {getattr(constraint, name)}" for name, sign in signs.items() if hasattr(constraint, name)]
    return ", ".join(bounds) or str(constraint)
