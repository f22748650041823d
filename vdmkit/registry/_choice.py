# SPDX-License-Identifier: Apache-2.0
"""A component that a recipe chose, not yet built."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from vdmkit.errors import PluginError
from vdmkit.registry._component import Component
from vdmkit.registry._kinds import registry


@dataclass(frozen=True)
class Choice:
    """One registered component with all of its recipe keys; defaults are filled in when a recipe is read.

    A field annotated `Annotated[Choice, "sampler"]` is, in a recipe, a component of kind "sampler".
    `found` is what the name stood for when the recipe was read: a run may have a plugin file of its own for it.
    """

    kind: str
    name: str
    params: dict[str, Any] = field(default_factory=dict)
    found: Component | None = field(default=None, compare=False, repr=False)

    @property
    def component(self) -> Component:
        """Returns the component that the name stands for."""
        return self.found or registry(self.kind).get(self.name)

    def nested(self) -> Iterator["Choice"]:
        """Yields this choice and the choices among its keys."""
        yield self
        for value in self.params.values():
            for one in value if isinstance(value, tuple) else (value,):
                if isinstance(one, Choice):
                    yield from one.nested()

    def __str__(self) -> str:
        """Returns the name with the values that differ from the defaults, except lists."""
        defaults = {key: parameter.default for key, parameter in self.component.parameters.items()}
        given = [
            f"{key} = {value}"
            for key, value in self.params.items()
            if value != defaults.get(key) and not isinstance(value, tuple)
        ]
        return self.name + (f" ({', '.join(given)})" if given else "")

    @classmethod
    def of(cls, kind: str, part: Any) -> "Choice":
        """Returns `part` if it is a choice, else the choice that would build this object, named as in recipes.

        Values that a recipe cannot write in one word, such as arrays, are omitted.
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
            PluginError: a plugin's constructor fails in another way.
        """
        built, interface = self.component.build(context, **self.params), registry(self.kind).interface
        if interface and not isinstance(built, interface):
            raise PluginError(
                f"{self.component} gives a {type(built).__name__}, which is not of type {interface.__name__}. "
                "Repair the plugin."
            )
        return built


def built(part: Any, **context: Any) -> Any:
    """Builds a choice with its context; returns any other object as it is."""
    return part.build(**context) if isinstance(part, Choice) else part
