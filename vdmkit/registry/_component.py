# SPDX-License-Identifier: Apache-2.0
"""One component: a class or function that recipes name. Its signature defines its recipe keys."""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_type_hints

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
        """Calls the target with the parts of `context` that it asks for, and with `params` as recipe keys.

        Raises:
            RecipeError: the target refuses the values.
            PluginError: a plugin's target fails in another way.
        """
        arguments = [context[name] for name in self.injected]
        with self.named("cannot be built"):
            return self.target(*arguments, **params)

    @contextmanager
    def named(self, failing: str) -> Iterator[None]:
        """Adds this component's name to errors raised in the block, which calls its code.

        Raises:
            RecipeError: the code refuses values.
            PluginError: a plugin's code fails in another way: "schedule 'x' of y.py cannot be built: ...".
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
        """Returns the line of the plugin that failed; a message of vdmkit's own does not need one."""
        file = getattr(sys.modules.get(self.target.__module__), "__file__", None)
        return place_of(error, lambda other: other == file) if self._is_foreign else ""

    @property
    def is_of_package(self) -> bool:
        """Returns whether an installed plugin package brought it, rather than vdmkit or a plugin file."""
        return self._is_foreign and not self.origin.endswith(".py")

    @property
    def _is_foreign(self) -> bool:
        return self.origin != "vdmkit"

    @cached_property
    def _signature(self) -> list[inspect.Parameter]:
        """Reads the signature, when the component is registered, so that an error shows at once."""
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
        # An Equinox class shows annotations as they were written, in quotes or after `from __future__`.
        parameters = list(inspect.signature(target.__init__, eval_str=True).parameters.values())[1:]
    return [_with_range_of_field(one, target) for one in parameters] if isinstance(target, type) else parameters


def _with_range_of_field(parameter: inspect.Parameter, target: type) -> inspect.Parameter:
    """Adds the range that a class states where it declares the field to its constructor's parameter."""
    try:
        plain, full = (get_type_hints(target, include_extras=extras).get(parameter.name) for extras in (False, True))
    except Exception:  # the annotation cannot be evaluated at run time, so it states no range
        return parameter
    return parameter.replace(annotation=full) if plain == parameter.annotation else parameter
