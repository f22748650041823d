# SPDX-License-Identifier: Apache-2.0
"""The plugin depends on public names of vdmkit, and its modules on each other in one direction."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import vdmkit_codec

PACKAGE = Path(vdmkit_codec.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
LAYERS = (
    ["payload", "rans"],
    ["container", "distributions"],
    ["inspection", "mixture"],
    ["layers"],
    ["network"],
    ["chain"],
    ["codec"],
    ["coding"],
    ["encoding", "decoding"],
    ["forecast", "api"],
    ["commands"],
)


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
    """The plugin uses public names of vdmkit only."""
    assert [name for name in imported(path) if re.match(r"vdmkit\..*\b_|vdmkit\._", name)] == []
    assert re.search(r"\bvdmkit(\.\w+)*\._[a-z]", path.read_text()) is None


def test_modules_import_only_lower_layers():
    """A module imports only modules of the layers before its own."""
    layer = {name: number for number, names in enumerate(LAYERS) for name in names}
    for path in FILES:
        for name in imported(path) if path.stem != "__init__" else ():
            if name.startswith("vdmkit_codec."):
                assert layer[name.split(".")[1]] < layer[path.stem], f"{path.stem} imports {name}"


@pytest.mark.parametrize(
    "module", ["vdmkit_codec", "vdmkit_codec.commands", "vdmkit_codec.container", "vdmkit_codec.inspection"]
)
def test_no_jax_at_import(module):
    """`vdmkit --help` and `vdmkit inspect` start without JAX, which takes seconds to load."""
    code = f"import sys, {module}; print(*{{'jax', 'equinox'}} & {{*sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "\n"
