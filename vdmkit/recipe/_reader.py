# SPDX-License-Identifier: Apache-2.0
"""Checks a document against constructor signatures, and collects all problems."""

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Annotated, Any, get_args, get_origin

from vdmkit.errors import RegistryError
from vdmkit.recipe._document import Document, Place
from vdmkit.recipe._lines import Keys
from vdmkit.recipe._renamed import RENAMED
from vdmkit.recipe._values import UnfitError, check_value, describe, type_name
from vdmkit.registry import Choice, nearest, registry


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
        """Returns the problems, one line each, in the order of files and lines."""
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
        if isinstance(parameter.default, Choice):  # its component's defaults are still to be filled in
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
