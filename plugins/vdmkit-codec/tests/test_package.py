# SPDX-License-Identifier: Apache-2.0
"""The package depends on what vdmkit promises, and its parts on each other in one direction."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import vdmkit_codec

PACKAGE = Path(vdmkit_codec.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = ["container", "compression", "codec", "commands"]


def imported(path: Path) -> list[str]:
    """The modules and names that a file imports, dotted."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_it_imports_no_private_name_of_vdmkit(path):
    """False if a change inside of vdmkit could break the plugin."""
    assert [name for name in imported(path) if re.match(r"vdmkit\..*\b_|vdmkit\._", name)] == []
    assert re.search(r"\bvdmkit(\.\w+)*\._[a-z]", path.read_text()) is None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_those_before_them(path):
    """False if the file format depended on models, or a room on the private files of another."""
    room = path.relative_to(PACKAGE).parts[0]
    for name in imported(path):
        _, other, *inside = [*name.split("."), ""]
        if name.startswith("vdmkit_codec.") and other in ROOMS and room in ROOMS:
            assert ROOMS.index(other) <= ROOMS.index(room), f"{room} may not import {other}"
            assert other == room or not any(part.startswith("_") for part in inside), name


@pytest.mark.parametrize("module", ["vdmkit_codec", "vdmkit_codec.commands", "vdmkit_codec.container"])
def test_no_jax_at_import(module):
    """`vdmkit --help` and `vdmkit inspect` would wait seconds for JAX."""
    code = f"import sys, {module}; print(*{{'jax', 'equinox'}} & {{*sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "\n"
