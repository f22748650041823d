# SPDX-License-Identifier: Apache-2.0
"""The registry of components: classes and functions that a recipe chooses by kind and name.

The signature of a component defines its recipe keys: keyword-only parameters are recipe keys, and positional ones are
injected by vdmkit by name. `Component` is one registered class or function, `Registry` all components of a kind, and
`Choice` a component that a recipe chose with its keys, not yet built.

This module does not import JAX, so that `vdmkit --help` stays fast.
"""

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar, get_type_hints

from vdmkit.errors import PluginError, RecipeError, RegistryError, VdmkitError, in_one_line, place_of


@dataclass(frozen=True)
class Component:
    """A registered class or function, with its parameters and their types."""

    kind: str
    name: str
    target: Callable[..., Any]
    origin: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}" + (f" of {self.origin}" if self._is_foreign else "")

    @property
    def summary(self) -> str:
        """Returns the first line of the docstring."""
        return (inspect.getdoc(self.target) or "").partition("\n")[0]

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """Returns the keyword-only parameters, which are recipe keys, with resolved annotations."""
        return {p.name: p for p in self._signature if p.kind is p.KEYWORD_ONLY}

    @property
    def injected(self) -> tuple[str, ...]:
        """Returns the names of the positional parameters, which vdmkit supplies."""
        return tuple(p.name for p in self._signature if p.kind is not p.KEYWORD_ONLY)

    def build(self, context: dict[str, Any], **params: Any) -> Any:
        """Calls the target with its positional parameters from `context`, and with `params` as recipe keys.

        Raises:
            RecipeError: the target refuses the values.
            PluginError: a plugin's target fails in any other way.
        """
        arguments = [context[name] for name in self.injected]
        with self.named("cannot be built"):
            return self.target(*arguments, **params)

    @contextmanager
    def named(self, failing: str) -> Iterator[None]:
        """Adds the name of this component to errors raised in the block, which runs the component's code.

        Raises:
            RecipeError: the code refuses values.
            PluginError: a plugin's code fails in any other way: "schedule 'x' of y.py cannot be built: ...".
        """
        try:
            yield
        except RecipeError as error:
            raise RecipeError(f"{self}: {error}") from error
        except ValueError as error:
            raise RecipeError(f"{self}: {error}{self._place(error)}") from error
        except VdmkitError:
            raise
        except (Exception, SystemExit) as error:
            if self._is_foreign:
                raise PluginError(self._failure(failing, error)) from error
            raise

    def _failure(self, failing: str, error: BaseException) -> str:
        return (
            f"{self} {failing}: {in_one_line(error)}{self._place(error)}. Repair the plugin. "
            "VDMKIT_TRACEBACK=1 before the command shows how it came to this."
        )

    def _place(self, error: BaseException) -> str:
        """Returns the line of the plugin that failed, or '' for vdmkit's own components."""
        file = getattr(sys.modules.get(self.target.__module__), "__file__", None)
        return place_of(error, lambda other: other == file) if self._is_foreign else ""

    @property
    def is_of_package(self) -> bool:
        """Returns whether the component comes from an installed plugin package, not from vdmkit or a plugin file."""
        return self._is_foreign and not self.origin.endswith(".py")

    @property
    def _is_foreign(self) -> bool:
        return self.origin != "vdmkit"

    @cached_property
    def _signature(self) -> list[inspect.Parameter]:
        """Reads the signature when the component is registered, so that errors show at once."""
        try:
            return _parameters(self.target)
        except Exception as error:
            raise RegistryError(
                f"{self}: its signature cannot be read: {in_one_line(error)}. Its annotations must have a meaning "
                "when it is registered."
            ) from error


def _parameters(target: Callable[..., Any]) -> list[inspect.Parameter]:
    parameters = list(inspect.signature(target, eval_str=True).parameters.values())
    if isinstance(target, type) and any(isinstance(one.annotation, str) for one in parameters):
        # The signature of an Equinox class keeps annotations as strings if they were quoted.
        parameters = list(inspect.signature(target.__init__, eval_str=True).parameters.values())[1:]
    return [_with_range_of_field(one, target) for one in parameters] if isinstance(target, type) else parameters


def _with_range_of_field(parameter: inspect.Parameter, target: type) -> inspect.Parameter:
    """Copies the range in a field's annotation to the constructor parameter of the same name."""
    try:
        plain, full = (get_type_hints(target, include_extras=extras).get(parameter.name) for extras in (False, True))
    except Exception:  # the annotation cannot be evaluated at run time, so it states no range
        return parameter
    return parameter.replace(annotation=full) if plain == parameter.annotation else parameter


# The modules that define vdmkit's own components, in the order in which `vdmkit list` shows their kinds.
_MODULES = ("schedules", "process", "networks", "predictions", "toy_data", "decoders", "reverse", "losses")
_MODULES += ("sampling", "likelihood", "data", "training.optimizers", "importers")
_RENAMED = {"times": "time_sampler"}
_registries: dict[str, "Registry"] = {}
_owner: str | None = None  # the plugin that is being loaded
_collected: list[Component] | None = None  # components registered by the plugin file that is being executed
T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True)
class Registry:
    """All components of one kind; `injectable` lists the names that their positional parameters may have."""

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
        """Makes a component available by its name. Raises RegistryError if a different component has the name."""
        other = self.components.setdefault(component.name, component)
        if other is not component:
            raise RegistryError(f"{component}: {_taken(component, other)}")

    def get(self, name: str) -> Component:
        """Returns the component of that name. Raises RegistryError with the known names and the closest match."""
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
    """Declares a kind of component; called once by the package that defines its interface."""
    _registries[kind] = Registry(kind, summary, interface, injectable)


def register(kind: str, name: str) -> Callable[[T], T]:
    """Returns a decorator that makes a class or function available to recipes as `name`.

    Raises:
        RegistryError: the kind is unknown, the name is taken, or a positional parameter is not supplied to this kind.
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
    """Returns the names of all kinds, in the order in which their packages are imported."""
    return list(_registries)


def load_builtins() -> None:
    """Imports the modules that define vdmkit's own components, which imports JAX."""
    for module in _MODULES:
        importlib.import_module(f"vdmkit.{module}")


@contextmanager
def registering_as(owner: str) -> Iterator[None]:
    """Attributes components registered in the block to the plugin `owner`, unless they are vdmkit's own.

    If the block raises, the registry is restored.
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
    """Yields a list of the components registered in the block; they become available with `Registry.place`."""
    global _collected
    previous, _collected = _collected, []
    try:
        yield _collected
    finally:
        _collected = previous


@contextmanager
def in_front(components: Iterable[Component]) -> Iterator[None]:
    """Makes these components take precedence in the block over components of other plugins with the same names.

    Raises:
        RegistryError: a component of vdmkit has the name.
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
    """Returns the origin of `target`: vdmkit, the plugin being loaded, or otherwise the package that defines it."""
    package = target.__module__.partition(".")[0]
    return package if package == "vdmkit" else _owner or package


@dataclass(frozen=True)
class Choice:
    """A registered component with all of its recipe keys; defaults are filled in when a recipe is read.

    A field annotated `Annotated[Choice, "sampler"]` is a component of kind "sampler" in a recipe. `found` is the
    component that the name referred to when the recipe was read, because a run may have its own plugin file for it.
    """

    kind: str
    name: str
    params: dict[str, Any] = field(default_factory=dict)
    found: Component | None = field(default=None, compare=False, repr=False)

    @property
    def component(self) -> Component:
        """Returns the component that the name refers to."""
        return self.found or registry(self.kind).get(self.name)

    def nested(self) -> Iterator["Choice"]:
        """Yields this choice and, recursively, the choices among its keys."""
        yield self
        for value in self.params.values():
            for one in value if isinstance(value, tuple) else (value,):
                if isinstance(one, Choice):
                    yield from one.nested()

    def __str__(self) -> str:
        """Returns the name and the values that differ from the defaults, except lists."""
        defaults = {key: parameter.default for key, parameter in self.component.parameters.items()}
        given = [
            f"{key} = {value}"
            for key, value in self.params.items()
            if value != defaults.get(key) and not isinstance(value, tuple)
        ]
        return self.name + (f" ({', '.join(given)})" if given else "")

    @classmethod
    def of(cls, kind: str, part: Any) -> "Choice":
        """Returns `part` if it is a choice, and otherwise the choice that would build this object.

        Values that are not scalars or strings, such as arrays, are omitted.
        """
        if isinstance(part, Choice):
            return part
        known = [one for one in registry(kind).components.values() if one.target is type(part)]
        component = known[0] if known else Component(kind, type(part).__name__, type(part), "vdmkit")
        values = {key: getattr(part, key, None) for key in component.parameters}
        plain = {key: value for key, value in values.items() if isinstance(value, bool | int | float | str)}
        return cls(kind, component.name, plain, component)

    def build(self, **context: Any) -> Any:
        """Builds the component; its positional parameters are taken from `context` by name.

        Raises:
            RecipeError: the constructor refuses the values.
            PluginError: a plugin's constructor fails in any other way.
        """
        built, interface = self.component.build(context, **self.params), registry(self.kind).interface
        if interface and not isinstance(built, interface):
            raise PluginError(
                f"{self.component} gives a {type(built).__name__}, which is not of type {interface.__name__}. "
                "Repair the plugin."
            )
        return built


def built(part: Any, **context: Any) -> Any:
    """Builds a choice with its context; returns any other object unchanged."""
    return part.build(**context) if isinstance(part, Choice) else part
