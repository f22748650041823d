# SPDX-License-Identifier: Apache-2.0
"""The arrays of a file that are not those of a model."""

import re
from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]


def misfits(found: Shapes, wanted: Shapes, part: str) -> str:
    """Returns how many paths differ and a line for each, or "" if none does.

    `part` names what the file is for.
    """
    names = [name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)]
    if not names:
        return ""
    lines = [
        f"{name}: {found.get(name, 'nothing')} in the file, {wanted.get(name, 'nothing')} in the {part}"
        for name in sorted(names, key=_with_numbers)
    ]
    return f"{len(names):,} paths differ:\n  " + "\n  ".join(lines)


def _with_numbers(name: str) -> list[tuple[int, str]]:
    """Returns a key that sorts the second of eleven layers before the eleventh."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
