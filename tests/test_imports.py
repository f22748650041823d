# SPDX-License-Identifier: Apache-2.0
"""Who may import whom. A package imports only from those before it in ROOMS, so the equations know no engineering."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vdmkit

PACKAGE = Path(vdmkit.__file__).parent
ROOMS = [
    "errors",
    "paths",
    "foreign",
    "files",
    "npz",
    "limits",
    "arguments",
    "typing",
    "notebook",
    "registry",
    "randomness",
    "distributed",
    "progress",
    "devices",
    "remembered",
    "mesh",
]  # the ground
ROOMS += ["estimate", "noise", "networks", "observation", "denoiser", "distribution", "kernel", "integrator", "model"]
ROOMS += ["data", "objective", "sampling", "likelihood", "classification", "optimizer", "recipe"]
ROOMS += [
    "health",
    "training",
    "assembly",
    "speed",
    "doctor",
    "memory",
    "study",
    "quality",
    "checkpoint",
    "importers",
    "report",
    "page",
    "testing",
]
ROOMS += ["run", "cli"]
OUTSIDE_THE_ORDER = {"__init__", "__main__"}
JAX_FREE = ["vdmkit", "vdmkit.errors", "vdmkit.registry", "vdmkit.recipes", "vdmkit.cli", "vdmkit.multihost"]
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> Iterator[str]:
    """The parts of vdmkit that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("vdmkit."))


def test_every_room_has_its_place():
    """A new package would escape the check below."""
    assert {room_of(path) for path in FILES} - OUTSIDE_THE_ORDER <= set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    """A room would depend on one that is built on it."""
    room = room_of(path)
    allowed = ROOMS if room in OUTSIDE_THE_ORDER else ROOMS[: ROOMS.index(room) + 1]
    forbidden = {name for name in imported_rooms(path) if name in ROOMS and name not in allowed}
    assert not forbidden, f"{room} may not import {sorted(forbidden)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_respect_private_files(path):
    """A room would reach past the public names of another."""
    room = room_of(path)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vdmkit."):
            _, other, *inside = node.module.split(".")
            assert other in (room, "importers") or not inside, f"{path}:{node.lineno}: import it from vdmkit.{other}"


LIBRARY = [path for path in FILES if room_of(path) not in {"run", "cli", "__init__", "__main__"}]


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_library_prints_nothing(path):
    """A notebook would fill with lines that its author did not ask for. `progress="auto"` is what they may ask for."""
    calls = {node.func.id for node in ast.walk(ast.parse(path.read_text())) if _is_call_of_name(node)}
    assert "print" not in calls or room_of(path) == "progress"


def _is_call_of_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


@pytest.mark.parametrize("module", JAX_FREE)
def test_no_jax_at_import(module):
    """`vdmkit --help` and a recipe's syntax error would wait seconds for JAX."""
    code = f"import sys, {module}; print(*{{'jax', 'numpy', 'matplotlib', 'rich'}} & {{*sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    assert result.stdout == "\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_licence_line(path):
    """A file would not say under which licence it is."""
    assert path.read_text().startswith("# SPDX-License-Identifier: Apache-2.0\n")
