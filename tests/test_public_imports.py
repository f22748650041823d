# SPDX-License-Identifier: Apache-2.0
"""What is written from outside uses public names only: plugins, examples, and the code in README and tutorial."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    [*ROOT.glob("plugins/*/src/**/*.py"), *ROOT.glob("plugins/*/tests/**/*.py"), *ROOT.glob("examples/*.py")]
)
OWN = {path: path.relative_to(ROOT).parts[1].replace("-", "_") for path in FILES if "plugins" in path.parts}
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]


def private_names(text: str) -> list[str]:
    """Private modules and names that code imports, from any package, and private attributes of vdmkit."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if "._" in f".{alias.name}"]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names if "._" in f".{node.module}.{alias.name}"]
        elif isinstance(node, ast.Attribute) and re.fullmatch(r"vdmkit(\.\w+)*\._[a-z]\w*", ast.unparse(node)):
            found.append(ast.unparse(node))
    return [name for name in found if not name.startswith("__future__")]


def snippets() -> Iterator[tuple[str, str]]:
    """The Python of all pages, each with the name of its page."""
    for page in PAGES:
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)):
            yield f"{page.name}-{number}", code


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_use_public_names(path):
    """An author who starts from a plugin or an example would depend on what may change without notice."""
    own = OWN.get(path, "no package")
    assert [name for name in private_names(path.read_text()) if name.partition(".")[0] != own] == []


@pytest.mark.parametrize("code", [pytest.param(code, id=name) for name, code in snippets()])
def test_snippets_use_public_names(code):
    """A reader who copies code from a page would depend on what may change without notice."""
    assert private_names(code) == []


def test_private_names_are_found():
    """The tests above would pass whatever is imported."""
    text = (
        "from __future__ import annotations\n"
        "import vdmkit, vdmkit._a.b\n"
        "from vdmkit._b import c\n"
        "from vdmkit.d import (\n    E,\n    _f,\n)\n"
        "vdmkit.process.alpha()\n"
        "vdmkit.__version__\n"
    )
    assert private_names(text) == ["vdmkit._a.b", "vdmkit._b.c", "vdmkit.d._f", "vdmkit.process"]
