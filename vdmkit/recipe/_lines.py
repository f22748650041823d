# SPDX-License-Identifier: Apache-2.0
"""Finds the line of every key in a TOML text.

tomllib does not report positions; tomlkit keeps every character, so lines can be counted.
"""

import tomlkit
from tomlkit.container import Container
from tomlkit.items import AoT, Table

Keys = tuple[str | int, ...]
"""A dotted key, as its parts; an int is the position in an array of tables."""


def line_map(text: str) -> dict[Keys, int]:
    """Returns the line (from 1) of each key or table header. `text` is valid TOML with \\n line ends."""
    lines: dict[Keys, int] = {}
    _walk_container(tomlkit.parse(text), (), 1, lines)
    return lines


def _walk_container(container: Container, keys: Keys, line: int, lines: dict[Keys, int]) -> int:
    """Records the lines of everything in `container`, which begins on `line`; returns the line after it."""
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
