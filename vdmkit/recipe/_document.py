# SPDX-License-Identifier: Apache-2.0
"""Reads TOML into plain values and records the file and line, or the override, of each."""

import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from vdmkit.errors import RecipeError
from vdmkit.foreign import MAX_EXTENDED, TooMuch
from vdmkit.paths import not_a_file
from vdmkit.recipe._lines import Keys, line_map
from vdmkit.recipe._names import find_recipe, locate_recipe
from vdmkit.recipe._toml import parse_toml, read_toml


@final
class Override(str):
    """`KEY=VALUE` that the user gave in other words, such as `--steps 50`; a plain string was given by `--set`."""

    given: str

    def __new__(cls, text: str, given: str) -> "Override":
        made = super().__new__(cls, text)
        made.given = given
        return made


@dataclass(frozen=True, order=True)
class Place:
    """A file and a line in it (0 for the whole file), or an override in the words of the user."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True)
class Document:
    """Plain values, and the places where they were written. Values inside a list share the list's place."""

    values: dict[str, Any]
    places: Mapping[Keys, Place]

    def place(self, keys: Keys) -> Place:
        """Returns where `keys` was written, or the nearest table around it."""
        while keys not in self.places:
            keys = keys[:-1]
        return self.places[keys]


def read_document(name: str | os.PathLike[str], overrides: Iterable[str] = ()) -> Document:
    """Reads a recipe by its path or name, what it extends, and `key=value` overrides; later overrides win.

    Raises:
        RecipeError: a file is missing or not TOML (file:line:column), `extends` is circular, or an override is not
            KEY=VALUE.
    """
    document = _read_file(find_recipe(name), ())
    changes = Document({}, {})
    for text in overrides:
        changes = merge(changes, _read_override(text))
    return merge(document, changes)


def merge(base: Document, top: Document) -> Document:
    """Merges `top` over `base`, tables key by key; a table with another `name` replaces the old one."""
    places = dict(base.places)
    values = _merge_tables(base.values, top.values, (), places)
    return Document(values, {**places, **top.places, (): base.places.get((), Place("--set"))})


def _merge_tables(base: dict[str, Any], top: dict[str, Any], keys: Keys, places: dict[Keys, Place]) -> dict[str, Any]:
    merged = dict(base)
    for key, new in top.items():
        old = base.get(key)
        if isinstance(old, str) and isinstance(new, dict) and "name" not in new:
            old = {"name": old}  # a component without parameters may be just its name
        if isinstance(old, dict) and isinstance(new, dict) and not _renames(old, new):
            merged[key] = _merge_tables(old, new, (*keys, key), places)
        else:
            merged[key] = new
            _forget((*keys, key), places)
    return merged


def _renames(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return "name" in old and "name" in new and old["name"] != new["name"]


def _forget(keys: Keys, places: dict[Keys, Place]) -> None:
    for known in [known for known in places if known[: len(keys)] == keys]:
        del places[known]


def _read_file(path: Path, children: tuple[Path, ...]) -> Document:
    if path.resolve() in children:
        chain = " -> ".join(str(child) for child in (*children, path.resolve()))
        raise RecipeError(f"{path}: extends is circular: {chain}. Remove one of these lines.")
    if len(children) > MAX_EXTENDED:
        raise RecipeError(f"{path}: more than {MAX_EXTENDED} recipes extend each other. Write them into fewer files.")
    text = _read_text(path)
    values = _parse(text, path)
    places = {keys: Place(str(path), line) for keys, line in line_map(text).items()}
    document = Document(values, {(): Place(str(path)), **places})
    if "extends" not in values:
        return document
    base = _read_file(_parent(path, values.pop("extends"), document.place(("extends",))), (*children, path.resolve()))
    merged = merge(base, document)
    return Document(merged.values, {**merged.places, (): Place(str(path))})


def _parent(path: Path, extends: Any, place: Place) -> Path:
    if not isinstance(extends, str):
        raise RecipeError(f"{place}: extends: expected the path of a recipe, found {extends!r}.")
    parent, advice = locate_recipe(extends, path.parent)
    if reason := not_a_file(parent):
        raise RecipeError(f"{place}: extends: {parent}: {reason}. The path is relative to {path}.{advice}")
    return parent


def _read_text(path: Path) -> str:
    try:
        return read_toml(path)
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text (byte {error.start}). A recipe is a TOML file.") from error
    except TooMuch as error:
        raise RecipeError(f"{path}: {error}. A recipe is a TOML file.") from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot read the recipe: {error.strerror}.") from error


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        return parse_toml(text)
    except TooMuch as error:
        raise RecipeError(f"{path}: {error}. A recipe is a TOML file.") from error
    except tomllib.TOMLDecodeError as error:
        message, line, column = _syntax_error(str(error), text)
        raise RecipeError(f"{path}:{line}:{column}: not valid TOML: {message}.") from error


def _syntax_error(message: str, text: str) -> tuple[str, int, int]:
    found = re.search(r" \(at line (\d+), column (\d+)\)", message)
    if found:
        return message[: found.start()], int(found[1]), int(found[2])
    lines = text.split("\n")
    return message.removesuffix(" (at end of document)"), len(lines), len(lines[-1]) + 1


def _read_override(text: str) -> Document:
    place = Place(text.given if isinstance(text, Override) else f"--set {text}")
    key, equals, value = (part.strip() for part in text.partition("="))
    if not key or not equals:
        raise RecipeError(f"{place}: expected KEY=VALUE, such as training.steps=100.")
    try:
        values = parse_toml(f"{key} = {value}")
    except TooMuch as error:
        raise RecipeError(f"{place}: {error}.") from error
    except tomllib.TOMLDecodeError:
        values = _string_override(key, value, place)
    return Document(values, dict.fromkeys(_all_keys(values, ()), place))


def _string_override(key: str, value: str, place: Place) -> dict[str, Any]:
    try:
        return tomllib.loads(f"{key} = {json.dumps(value, ensure_ascii=False)}")
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{place}: {key!r} is not a dotted key such as model.network.channels.") from error


def _all_keys(values: dict[str, Any], keys: Keys) -> Iterator[Keys]:
    for key, value in values.items():
        yield (*keys, key)
        if isinstance(value, dict):
            yield from _all_keys(value, (*keys, key))
