# SPDX-License-Identifier: Apache-2.0
"""Every imported package is declared: an undeclared one may vanish with the next version of a dependency."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path
from string import Template

import pytest

import vdmkit
from vdmkit.cli.new_plugin import MODULE, PYPROJECT

ROOT = Path(vdmkit.__file__).parents[1]
SOURCES = {"vdmkit": ROOT} | {path.name: path / "src" for path in sorted((ROOT / "plugins").iterdir()) if path.is_dir()}
DISTRIBUTIONS = packages_distributions()


def imported(text: str) -> set[str]:
    """Returns the top-level modules that a file imports, also inside functions, except for the standard library."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names - sys.stdlib_module_names


def declared(project: dict) -> set[str]:
    """Returns the distributions that a project requires, including those of its extras."""
    listed = chain(project["dependencies"], *project.get("optional-dependencies", {}).values())
    return {normal(re.split(r"[^\w.-]", one)[0]) for one in listed} | {normal(project["name"])}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def undeclared(texts: Iterable[str], pyproject: str) -> list[str]:
    """Returns modules whose distribution is not declared.

    If a distribution is not installed, its name is taken to be that of its module.
    """
    known = declared(tomllib.loads(pyproject)["project"])
    modules = set().union(*(imported(text) for text in texts))
    return sorted(m for m in modules if not known & {normal(d) for d in (m, *DISTRIBUTIONS.get(m, []))})


@pytest.mark.parametrize("name", SOURCES)
def test_every_import_is_declared(name):
    """Every third-party package that is imported is declared in pyproject.toml."""
    source = SOURCES[name]
    folder = source / "vdmkit" if name == "vdmkit" else source
    files = sorted(folder.rglob("*.py"))
    assert files
    pyproject = (ROOT if name == "vdmkit" else source.parent) / "pyproject.toml"
    assert not undeclared((file.read_text() for file in files), pyproject.read_text())


def test_a_new_plugin_declares_what_it_imports():
    """The package written by `vdmkit new-plugin` declares every package that it imports."""
    words = {"name": "vdmkit-bent", "module": "vdmkit_bent", "component": "bent", "version": "0"}
    assert not undeclared([Template(MODULE).substitute(words)], Template(PYPROJECT).substitute(words))


def test_what_is_missing_is_found():
    """`undeclared` finds undeclared imports inside functions too, and ignores the standard library."""
    pyproject = '[project]\nname = "a"\ndependencies = ["scikit-learn>=1", "b[c]"]\n'
    text = "import sklearn.datasets, b, os\ndef f():\n    from lineax import g\n    from PIL import Image\n"
    assert undeclared([text], pyproject) == ["PIL", "lineax"]
