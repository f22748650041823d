# SPDX-License-Identifier: Apache-2.0
"""The authors' constructor arguments, of which every one is read, known to have no effect, or refused."""

from collections.abc import Mapping
from typing import Any

from vdmkit.errors import CheckpointError

_ACCEPTED: dict[Any, tuple[type, ...]] = {float: (int, float), tuple: (list, tuple)}


class Settings:
    """Reads a configuration and collects what cannot be built."""

    def __init__(self, config: Mapping[str, Any], title: str):
        self._config, self._title = config, title
        self._problems: list[str] = []
        self._read: set[str] = set()

    def of(self, name: str, kind: Any, default: Any = None) -> Any:
        """Returns a value of this type; integers may stand for floats. Without a default the field is required."""
        self._read.add(name)
        value: Any = self._config.get(name)
        if value is None and default is not None:
            return default
        if type(value) not in _ACCEPTED.get(kind, (kind,)):
            found = f"{value!r}, but {kind.__name__} is expected" if name in self._config else "missing"
            self._problems.append(f"{name}: {found}")
            return 1 if kind is int else kind()
        return kind(value)

    def has(self, name: str) -> bool:
        """Returns whether the field is there, if only as null."""
        return name in self._config

    def only(self, name: str, *allowed: Any, default: Any = None) -> Any:
        """Returns a value that must be one of `allowed`; by default the first one."""
        self._read.add(name)
        value = self._config.get(name, allowed[0] if default is None else default)
        value = tuple(value) if isinstance(value, list) else value
        if value not in allowed:
            self._problems.append(f"{name}: {value!r}, but {' or '.join(map(repr, allowed))} is expected")
            return allowed[0]
        return value

    def taps(self, name: str, default: tuple[int, ...]) -> list[float]:
        """Returns a filter of even length, which shifts nothing when it halves and doubles.

        It must be symmetrical: the authors turn others around in one direction or another.
        """
        found = [float(tap) for tap in self.of(name, tuple, default)]
        if found != found[::-1] or len(found) % 2 or not found:
            self._problems.append(f"{name}: {found}, but a symmetrical filter of even length is expected")
        return found

    def ignore(self, *names: str) -> None:
        """Says that these fields have no effect on the network's function."""
        self._read.update(names)

    def problem(self, text: str) -> None:
        """Adds a problem."""
        self._problems.append(text)

    def finish(self) -> None:
        """Raises CheckpointError if anything was refused or not read; lists all of it."""
        problems = [*self._problems, *(f"{name}: unknown field" for name in self._config if name not in self._read)]
        if problems:
            raise CheckpointError(f"{self._title} cannot be built here:\n  " + "\n  ".join(problems))
