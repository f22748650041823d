# SPDX-License-Identifier: Apache-2.0
"""Validates a recipe document against constructor signatures and collects all problems.

Values are checked against annotations by pydantic, and both are described in plain words. Renamed keys are refused with
a message that gives the new name, if the component has it. The estimators `bound` and `importance` still have `steps`,
which is T of a bound; the estimator and the sampler `ode` have `solver_steps`.
"""

import inspect
import json
import math
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from vdmkit.errors import RegistryError
from vdmkit.recipes.document import Document, Keys, Place
from vdmkit.registry import Choice, nearest, registry

RENAMED = {
    "objective.times": "objective.time_sampler",
    "objective.schedule": "objective.schedule_loss",
    "likelihood.estimator.steps": "likelihood.estimator.solver_steps",
    "sampling.sampler.steps": "sampling.sampler.solver_steps",
}


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
    except (PydanticUserError, NameError) as error:  # NameError: a quoted name inside the annotation
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
    """Returns a description of a TOML value for error messages."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return f"the list {json.dumps(value, default=str)}"
    return f"the string {json.dumps(value, ensure_ascii=False)}" if isinstance(value, str) else toml_text(value)


def toml_text(value: Any) -> str:
    """Returns a plain value as one line of TOML; None, which TOML cannot write, becomes "none"."""
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

    None is omitted from unions, because a recipe expresses it by omitting the key.
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
    """Returns the description of a list with one element type, or with a type for each element."""
    if len(parts) == 1 or parts[1:] == (...,):
        return f"list of {type_name(parts[0])}"
    return f"[{'; '.join(map(type_name, parts))}]"


def _bounds(constraint: Any) -> list[str]:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "multiple_of": "multiple of"}
    found = {sign: getattr(constraint, name) for name, sign in signs.items() if hasattr(constraint, name)}
    return [f"{sign} {_short(value)}" for sign, value in found.items()] or [str(constraint)]


def _short(number: Any) -> str:
    """Returns 10000 for 10000.0, and 1e+12 instead of all its digits."""
    short = f"{number:g}"
    return short if float(short) == number and isinstance(number, float) else str(number)


class Reader:
    """Turns tables of `document` into objects. A result is valid only if `problems` is empty.

    `misses_component` is true if one of the problems is a name that is not registered.
    """

    def __init__(self, document: Document):
        self._document = document
        self._problems: list[tuple[Place, str]] = []
        self.misses_component = False

    @property
    def problems(self) -> list[str]:
        """Returns the problems, one line each, ordered by file and line."""
        return [f"{place}: {text}" for place, text in sorted(self._problems)]

    def read(self, target: type, keys: Keys, table: Any) -> Any:
        """Calls the settings class `target` with the keys of `table`; returns None if they have a problem."""
        before = len(self._problems)
        arguments = self._arguments(_parameters(target), keys, table)
        return target(**arguments) if len(self._problems) == before else None

    def _arguments(self, parameters: dict[str, inspect.Parameter], keys: Keys, table: Any) -> dict[str, Any]:
        if not isinstance(table, dict):
            self._report(keys, f"expected a table, found {describe(table)}.")
            return {}
        for key in table.keys() - parameters.keys():
            self._report((*keys, key), _unknown((*keys, key), list(parameters)))
        return {name: self._argument(parameter, keys, table) for name, parameter in parameters.items()}

    def _argument(self, parameter: inspect.Parameter, keys: Keys, table: dict[str, Any]) -> Any:
        inner = (*keys, parameter.name)
        if parameter.name in table:
            return self._value(parameter.annotation, parameter.default, inner, table[parameter.name])
        if _is_settings(parameter.annotation):
            return self.read(parameter.annotation, inner, {})
        if isinstance(parameter.default, Choice):  # the defaults of its component are not filled in yet
            return self._component(parameter.default.kind, parameter.default, inner, {})
        if parameter.default is parameter.empty:
            self._report(inner, _missing(parameter, keys), at=keys)
        return parameter.default

    def _value(self, annotation: Any, default: Any, keys: Keys, value: Any) -> Any:
        if _component_kind(annotation):
            return self._component(_component_kind(annotation), default, keys, value)
        if get_origin(annotation) is tuple and _component_kind(get_args(annotation)[0]):
            return self._components(_component_kind(get_args(annotation)[0]), keys, value)
        if _is_settings(annotation):
            return self.read(annotation, keys, value)
        return self._plain(annotation, keys, value)

    def _components(self, kind: str, keys: Keys, values: Any) -> tuple[Any, ...]:
        if not isinstance(values, list):
            self._report(keys, f"expected a list of components of kind {kind}, found {describe(values)}.")
            return ()
        return tuple(self._component(kind, None, (*keys, index), value) for index, value in enumerate(values))

    def _component(self, kind: str, default: Any, keys: Keys, value: Any) -> Choice | None:
        table = {"name": value} if isinstance(value, str) else value
        if not isinstance(table, dict):
            return self._report(keys, f"expected a component of kind {kind}, found {describe(value)}.")
        fallback = default if isinstance(default, Choice) and "name" not in table else None
        name = fallback.name if fallback else table.get("name")
        if not isinstance(name, str):
            found = "missing key." if name is None else f"expected a string, found {describe(name)}."
            return self._report((*keys, "name"), f"{found} {_known('', sorted(registry(kind).components))}")
        try:
            component = registry(kind).get(name)
        except RegistryError as error:
            self.misses_component = True
            return self._report((*keys, "name"), str(error))
        kept = fallback.params if fallback else {}
        given = kept | {key: inner for key, inner in table.items() if key != "name"}
        return Choice(kind, name, self._arguments(component.parameters, keys, given), component)

    def _plain(self, annotation: Any, keys: Keys, value: Any) -> Any:
        try:
            return check_value(annotation, value)
        except UnfitError as error:
            return self._report(keys, str(error))

    def _report(self, keys: Keys, text: str, at: Keys | None = None) -> None:
        dotted = ".".join(str(key) for key in keys)
        self._problems.append((self._document.place(keys if at is None else at), f"{dotted}: {text}"))


def _parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(target, eval_str=True).parameters)


def _component_kind(annotation: Any) -> str:
    """Returns the kind in `Annotated[Choice, kind]` or `Annotated[Choice, kind] | None`, or an empty string.

    `Annotated[Choice | AbstractKernel, "kernel"]` also accepts an object, in Python.
    """
    if type(None) in get_args(annotation):
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is not Annotated:
        return ""
    base, *metadata = get_args(annotation)
    return metadata[0] if Choice in (base, *get_args(base)) else ""


def _is_settings(annotation: Any) -> bool:
    return isinstance(annotation, type) and is_dataclass(annotation)


def _missing(parameter: inspect.Parameter, table: Keys) -> str:
    header = ".".join(str(key) for key in table)
    kind = _component_kind(parameter.annotation)
    if not kind:
        return f"missing key ({type_name(parameter.annotation)})" + (f" in [{header}]." if header else ".")
    known = ", ".join(sorted(registry(kind).components))
    return f"missing table. Add [{header}{'.' if header else ''}{parameter.name}] with name = one of: {known}."


def _unknown(keys: Keys, known: list[str]) -> str:
    new = RENAMED.get(".".join(map(str, keys)), "")
    if new.rpartition(".")[2] in known:
        return f"was renamed: {new}."
    return f"unknown key. {_known(str(keys[-1]), known)}"


def _known(key: str, known: list[str]) -> str:
    return f"Known: {', '.join(known) or 'none'}.{nearest(key, known)}"
