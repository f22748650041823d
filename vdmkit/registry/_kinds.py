# SPDX-License-Identifier: Apache-2.0
"""Components by kind and name.

Keyword-only parameters are recipe keys; positional ones are injected by vdmkit by their name.
This module imports no JAX, so that `vdmkit --help` stays fast.
"""

import difflib
import importlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from vdmkit.errors import RegistryError
from vdmkit.registry._component import Component

_ROOMS = ("noise", "networks", "denoiser", "distribution", "observation", "kernel", "objective")
_ROOMS += ("sampling", "likelihood", "data", "optimizer", "importers")
_RENAMED = {"times": "time_sampler"}
_registries: dict[str, "Registry"] = {}
_owner: str | None = None  # the plugin that is being loaded
_collected: list[Component] | None = None  # what the plugin file that is being executed registers
T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True)
class Registry:
    """All components of one kind. `injectable` lists the names that their positional parameters may have."""

    kind: str
    summary: str
    interface: type | None
    injectable: tuple[str, ...]
    components: dict[str, Component] = field(default_factory=dict)

    def add(self, name: str, target: Callable[..., Any]) -> None:
        """Registers a target. Raises RegistryError if the name is taken or the target does not fit this kind."""
        component = Component(self.kind, name, target, _origin(target))
        problem = self._problem(component)
        if problem:
            raise RegistryError(f"{component}: {problem}")
        if _collected is None:
            self.place(component)
        else:
            _collected.append(component)

    def place(self, component: Component) -> None:
        """Makes a component available by its name. Raises RegistryError if another component has the name."""
        other = self.components.setdefault(component.name, component)
        if other is not component:
            raise RegistryError(f"{component}: {_taken(component, other)}")

    def get(self, name: str) -> Component:
        """Returns the component of that name. Raises RegistryError with the known names and the nearest one."""
        if name not in self.components:
            known = sorted(self.components)
            raise RegistryError(f"unknown {self.kind} {name!r}. Known: {', '.join(known)}.{nearest(name, known)}")
        return self.components[name]

    def _problem(self, new: Component) -> str:
        target = new.target
        if not isinstance(new.name, str):
            return "a name is a string."
        if isinstance(target, type) and self.interface and not issubclass(target, self.interface):
            return f"{target.__name__} must subclass {self.interface.__name__}."
        abstract = {*getattr(target, "__abstractmethods__", ()), *getattr(target, "__abstractvars__", ())}
        if abstract:
            return f"{target.__name__} does not define {', '.join(sorted(abstract))}."
        if "name" in new.parameters:
            return "a recipe names the component by the key 'name'. Give this parameter another name."
        unknown = [name for name in new.injected if name not in self.injectable]
        if unknown:
            return (
                f"positional parameters {unknown} are not supplied to a {self.kind} "
                f"(supplied: {list(self.injectable)}). Make recipe keys keyword-only: put '*' before them."
            )
        return ""


def _taken(new: Component, other: Component) -> str:
    found = f"the name is taken by {other.origin}"
    if other.is_of_package and not new.is_of_package:
        return f"{found}, which is installed. Omit --plugin to use that, uninstall it, or choose another name."
    return f"{found}. Choose another name."


def nearest(name: str, known: list[str]) -> str:
    """Returns ' Did you mean "..."?' or ''."""
    match = difflib.get_close_matches(name, known, n=1)
    return f' Did you mean "{match[0]}"?' if match else ""


def define_kind(kind: str, summary: str, interface: type | None, injectable: tuple[str, ...] = ()) -> None:
    """Declares a kind of component; called once by the room that holds its interface."""
    _registries[kind] = Registry(kind, summary, interface, injectable)


def register(kind: str, name: str) -> Callable[[T], T]:
    """Returns a decorator that makes a class or function available to recipes as `name`.

    Raises:
        RegistryError: the kind is unknown, the name is taken, or the signature asks for something
            that vdmkit does not supply to this kind.
    """

    def decorate(target: T) -> T:
        registry(kind).add(name, target)
        return target

    return decorate


def registry(kind: str) -> Registry:
    """Returns the registry of a kind. Raises RegistryError if the kind does not exist."""
    if kind not in _registries:
        load_builtins()
    if kind not in _registries:
        if new := _RENAMED.get(kind):
            raise RegistryError(f"kind of component {kind!r} was renamed: {new!r}.")
        raise RegistryError(f"unknown kind of component {kind!r}. Known: {', '.join(kinds())}.{nearest(kind, kinds())}")
    return _registries[kind]


def kinds() -> list[str]:
    """Returns the names of all kinds, in the order of the rooms."""
    return list(_registries)


def load_builtins() -> None:
    """Imports the rooms that hold vdmkit's own components, and with them JAX."""
    for room in _ROOMS:
        importlib.import_module(f"vdmkit.{room}")


@contextmanager
def registering_as(owner: str) -> Iterator[None]:
    """Assigns what is registered inside to the plugin `owner`, unless it is vdmkit's own.

    After an error the registry is as it was before.
    """
    global _owner
    previous, _owner = _owner, owner
    before = [(one, dict(one.components)) for one in _registries.values()]
    try:
        yield
    except BaseException:
        _restore(before)
        raise
    finally:
        _owner = previous


@contextmanager
def collecting() -> Iterator[list[Component]]:
    """Yields a list of what is registered inside. Its names are not available until `Registry.place`."""
    global _collected
    previous, _collected = _collected, []
    try:
        yield _collected
    finally:
        _collected = previous


@contextmanager
def in_front(components: Iterable[Component]) -> Iterator[None]:
    """Makes these components available inside, in place of other plugins' components of the same names.

    Raises:
        RegistryError: one of vdmkit's own components has the name.
    """
    behind: list[Component] = []
    try:
        for component in components:
            known = registry(component.kind).components
            other = known.get(component.name, component)
            if other.origin == "vdmkit":
                raise RegistryError(f"{component}: {_taken(component, other)}")
            behind += [other] if other is not component else []
            known[component.name] = component
        yield
    finally:
        for other in reversed(behind):
            registry(other.kind).components[other.name] = other


def _restore(before: list[tuple[Registry, dict[str, Component]]]) -> None:
    _registries.clear()
    for one, components in before:
        _registries[one.kind] = one
        one.components.clear()
        one.components.update(components)


def _origin(target: Callable[..., Any]) -> str:
    """Returns who registers `target`: vdmkit, the plugin being loaded, or else the package that defines it."""
    package = target.__module__.partition(".")[0]
    return package if package == "vdmkit" else _owner or package
