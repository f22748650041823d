# SPDX-License-Identifier: Apache-2.0
"""The arrays of a file that are not those of a model."""

from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]


def misfits(found: Shapes, wanted: Shapes, part: str) -> str:
    """Returns how many paths differ and a line for each, or "" if none does; `part` names what the file is for."""
    lines = [
        f"{name}: {found.get(name, 'nothing')} in the file, {wanted.get(name, 'nothing')} in the {part}"
        for name in sorted(wanted.keys() | found.keys())
        if wanted.get(name) != found.get(name)
    ]
    return f"{len(lines)} paths differ:\n  " + "\n  ".join(lines) if lines else ""
