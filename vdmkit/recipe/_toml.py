# SPDX-License-Identifier: Apache-2.0
"""Parses TOML from elsewhere."""

import tomllib
from pathlib import Path
from typing import Any

from vdmkit.foreign import MAX_DEPTH, MAX_RECIPE, TooMuch, check_at_most, read_at_most

_LEVELS = "levels of tables within tables"


def read_toml(path: Path) -> str:
    """Returns the text of a file. Raises TooMuch if it is larger than a recipe, UnicodeDecodeError or OSError."""
    return read_at_most(path, MAX_RECIPE).decode().replace("\r\n", "\n")


def parse_toml(text: str) -> dict[str, Any]:
    """Parses TOML. Raises TOMLDecodeError if it is not, and TooMuch if tables or arrays are nested too deeply."""
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise TooMuch(f"it asks for more {_LEVELS} than the {MAX_DEPTH} that vdmkit reads") from None
    level, depth = [values], 0
    while level:
        check_at_most(MAX_DEPTH, depth, _LEVELS)
        parts = [part for one in level for part in (one.values() if isinstance(one, dict) else one)]
        level, depth = [part for part in parts if isinstance(part, dict | list)], depth + 1
    return values
