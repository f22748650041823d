# SPDX-License-Identifier: Apache-2.0
"""Reads TOML recipes into plain values, and records the file and line (or the override) of each value.

tomllib does not report positions. tomlkit keeps every character, so line numbers can be counted from its document.
The size of a file is limited before it is parsed. Shipped recipes have names: `digits` is recipes/digits.toml and
`digits/edm` is recipes/digits/edm.toml.
"""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, final

import tomlkit
from tomlkit.container import Container
from tomlkit.items import AoT, Table

from vdmkit.errors import RecipeError
from vdmkit.io import (
    MAX_BITS,
    MAX_DEPTH,
    MAX_EXTENDED,
    MAX_KEYS,
    MAX_RECIPE,
    TooMuch,
    check_at_most,
    not_a_file,
    read_at_most,
)

Keys = tuple[str | int, ...]
"""A dotted key, as its parts; an int is the position in an array of tables."""


def line_map(text: str) -> dict[Keys, int]:
    """Returns the line (from 1) of each key or table header. `text` must be valid TOML with \n line ends."""
    lines: dict[Keys, int] = {}
    _walk_container(tomlkit.parse(text), (), 1, lines)
    return lines


def _walk_container(container: Container, keys: Keys, line: int, lines: dict[Keys, int]) -> int:
    """Records the lines of everything in `container`, which starts on `line`; returns the line after it."""
    for key, item in container.body:
        if key is None:  # blank lines and comments
            line += item.as_string().count("\n")
            continue
        inner = (*keys, *(part.key for part in key))
        if isinstance(item, Table):
            line = _walk_table(item, inner, line, lines)
        elif isinstance(item, AoT):
            lines.setdefault(inner, line)
            for index, table in enumerate(item.body):
                line = _walk_table(table, (*inner, index), line, lines)
        else:
            line += item.trivia.indent.count("\n")
            lines.setdefault(inner, line)
            line += (item.as_string() + item.trivia.trail).count("\n")
    return line


def _walk_table(table: Table, keys: Keys, line: int, lines: dict[Keys, int]) -> int:
    if not table.is_super_table():  # a super table is only the prefix of other headers or dotted keys
        line += table.trivia.indent.count("\n")
        lines.setdefault(keys, line)
        line += table.trivia.trail.count("\n")
    return _walk_container(table.value, keys, line, lines)


_LEVELS, _BITS = "levels of tables within tables", "bits of an integer"
_PART = r"""(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![\w-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{MAX_DEPTH}}}")


def read_toml(path: Path) -> str:
    """Returns the text of a file. Raises TooMuch if it exceeds the size of a recipe, UnicodeDecodeError or OSError."""
    return read_at_most(path, MAX_RECIPE).decode().replace("\r\n", "\n")


def parse_toml(text: str) -> dict[str, Any]:
    """Parses TOML. Raises TOMLDecodeError if it is invalid, and TooMuch if it is too deeply nested or too large."""
    if _LONG_KEY.search(text):  # tomllib is quadratic in the number of parts
        raise TooMuch(f"it has more {_LEVELS} than the {MAX_DEPTH} that vdmkit reads")
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise TooMuch(f"it has more {_LEVELS} than the {MAX_DEPTH} that vdmkit reads") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # Python refuses integers of more than 4,300 digits
        raise TooMuch(f"it has an integer of more than the {MAX_BITS:,} bits that vdmkit reads") from None
    _check_size(values)
    return values


def _check_size(values: dict[str, Any]) -> None:
    """Raises TooMuch if the values have more levels, keys or digits than a recipe may have."""
    level, depth, keys = [values], 0, 0
    while level:
        check_at_most(MAX_DEPTH, depth, _LEVELS)
        tables = [one for one in level if isinstance(one, dict)]
        keys += len(tables) + sum(map(len, tables))
        check_at_most(MAX_KEYS, keys, "keys and tables")
        parts = [part for one in level for part in (one.values() if isinstance(one, dict) else one)]
        check_at_most(MAX_BITS, max((part.bit_length() for part in parts if type(part) is int), default=0), _BITS)
        level, depth = [part for part in parts if isinstance(part, dict | list)], depth + 1


_PACKAGE = Path(__file__).parents[1]


def shipped_recipes() -> dict[str, Path]:
    """Returns the files of vdmkit's own recipes by name, sorted.

    In a wheel they are inside the package; in a checkout, editable installs included, they are next to it.
    """
    inside, outside = _PACKAGE / "recipes" / "shipped", _PACKAGE.parent / "recipes"
    folder = inside if inside.is_dir() else outside
    files = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.toml")}
    return dict(sorted(files.items()))


def recipe_summary(path: Path) -> str:
    """Returns the first line of a recipe without the comment sign, which describes the recipe."""
    return path.read_text().partition("\n")[0].removeprefix("#").strip()


def find_recipe(name: str | os.PathLike[str]) -> Path:
    """Returns the file of a recipe, given by its path or by a name in `shipped_recipes`. A path takes precedence.

    Raises:
        RecipeError: neither a file nor a recipe has this name; the message suggests similar names.
    """
    path, advice = locate_recipe(name, Path())
    if reason := not_a_file(path):
        raise RecipeError(f"{os.fspath(name) or path}: cannot read the recipe: {reason}.{advice}")
    return path


def locate_recipe(name: str | os.PathLike[str], folder: Path) -> tuple[Path, str]:
    """Returns the file of the recipe called `name` in `folder`, and advice.

    If neither a file nor a recipe has this name, the file is `folder / name` and the advice consists of sentences that
    start with a space; otherwise the advice is empty.
    """
    path = folder / name
    if os.path.lexists(path) and not os.path.isdir(path):  # a folder `digits` does not hide the recipe `digits`
        return path, ""
    known = shipped_recipes()
    found = known.get(os.fspath(name))
    return (found, "") if found else (path, _advice(PurePath(name), list(known)))


def _advice(path: PurePath, known: list[str]) -> str:
    """Suggests names whose last part is similar to that of `path`, and how to list all names.

    Returns '' for a .toml file without similar names.
    """
    last, last_parts = path.name.removesuffix(".toml"), {PurePath(one).name for one in known}
    alike = [last] if last in last_parts else difflib.get_close_matches(last, last_parts)
    near = [f'"{one}"' for part in alike for one in known if PurePath(one).name == part]
    if not near and path.suffix == ".toml":
        return ""
    question = f" Did you mean {_one_of(near)}?" if near else ""
    return f"{question} `vdmkit list recipe` shows the recipes that come with vdmkit."


def _one_of(names: list[str]) -> str:
    """Returns 'a, b or c'."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


@final
class Override(str):
    """`KEY=VALUE` that stands for an option such as `--steps 50`; a plain string was given by `--set`."""

    given: str

    def __new__(cls, text: str, given: str) -> "Override":
        made = super().__new__(cls, text)
        made.given = given
        return made


@dataclass(frozen=True, order=True)
class Place:
    """A file and a line in it (0 for the whole file), or an override as the user wrote it."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True)
class Document:
    """Plain values and the places where they were written. Values inside a list share the list's place."""

    values: dict[str, Any]
    places: Mapping[Keys, Place]

    def place(self, keys: Keys) -> Place:
        """Returns where `keys` was written, or the place of the innermost table that contains it."""
        while keys not in self.places:
            keys = keys[:-1]
        return self.places[keys]


def read_document(name: str | os.PathLike[str], overrides: Iterable[str] = ()) -> Document:
    """Reads a recipe by its path or name, the recipes that it extends, and `key=value` overrides; later overrides win.

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
    """Merges `top` over `base`, tables key by key; a table with a different `name` replaces the old one."""
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
