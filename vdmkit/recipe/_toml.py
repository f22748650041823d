# SPDX-License-Identifier: Apache-2.0
"""Parses TOML from elsewhere."""

import re
import tomllib
from pathlib import Path
from typing import Any

from vdmkit.foreign import MAX_BITS, MAX_DEPTH, MAX_KEYS, MAX_RECIPE, TooMuch, check_at_most, read_at_most

_LEVELS, _BITS = "levels of tables within tables", "bits of an integer"
_PART = r"""(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![\w-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{MAX_DEPTH}}}")


def read_toml(path: Path) -> str:
    """Returns the text of a file. Raises TooMuch if it is larger than a recipe, UnicodeDecodeError or OSError."""
    return read_at_most(path, MAX_RECIPE).decode().replace("\r\n", "\n")


def parse_toml(text: str) -> dict[str, Any]:
    """Parses TOML. Raises TOMLDecodeError if it is not, and TooMuch if it nests too deeply, or has too much in it."""
    if _LONG_KEY.search(text):  # tomllib takes time and memory for the square of its parts
        raise TooMuch(f"it asks for more {_LEVELS} than the {MAX_DEPTH} that vdmkit reads")
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise TooMuch(f"it asks for more {_LEVELS} than the {MAX_DEPTH} that vdmkit reads") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # of Python, for more than 4,300 digits
        raise TooMuch(f"it asks for an integer of more than the {MAX_BITS:,} bits that vdmkit reads") from None
    _check_size(values)
    return values


def _check_size(values: dict[str, Any]) -> None:
    """Raises TooMuch for more levels, keys or digits than a recipe has."""
    level, depth, keys = [values], 0, 0
    while level:
        check_at_most(MAX_DEPTH, depth, _LEVELS)
        tables = [one for one in level if isinstance(one, dict)]
        keys += len(tables) + sum(map(len, tables))
        check_at_most(MAX_KEYS, keys, "keys and tables")
        parts = [part for one in level for part in (one.values() if isinstance(one, dict) else one)]
        check_at_most(MAX_BITS, max((part.bit_length() for part in parts if type(part) is int), default=0), _BITS)
        level, depth = [part for part in parts if isinstance(part, dict | list)], depth + 1
