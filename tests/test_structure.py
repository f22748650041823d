# SPDX-License-Identifier: Apache-2.0
"""The structure of the code: layers, public names, and a few patterns of English that docstrings avoid."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import vdmkit

PACKAGE = Path(vdmkit.__file__).parent
ROOT = PACKAGE.parent

# From the bottom up. A module imports from its own layer and from those above it in this list, and never in a circle.
LAYERS = [
    ("errors",),
    ("arguments", "devices", "io", "multihost", "plugins", "progress", "randomness", "registry"),
    ("integrator", "process", "schedules"),
    ("networks",),
    ("decoders", "model", "predictions", "reverse", "toy_data"),
    ("data", "losses"),
    ("likelihood", "sampling", "training"),
    ("recipes",),
    ("conformance", "importers", "metrics", "report", "schedule_search"),
    ("experiments",),
    ("cli",),
]
LAYER_OF = {package: number for number, layer in enumerate(LAYERS) for package in layer}
JAX_FREE = ["vdmkit", "vdmkit.errors", "vdmkit.registry", "vdmkit.recipes", "vdmkit.cli", "vdmkit.multihost"]
FILES = sorted(PACKAGE.rglob("*.py"))
OUTSIDE = sorted(
    [*ROOT.glob("plugins/*/src/**/*.py"), *ROOT.glob("plugins/*/tests/**/*.py"), *ROOT.glob("examples/*.py")]
)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
PAGES += sorted(ROOT.glob("plugins/*/README.md"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def package_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yields (module, name) of each import from vdmkit, at the top of a file or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            if (node.module or "").split(".")[0] == "vdmkit":
                yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "vdmkit")


def dependencies() -> dict[str, set[str]]:
    """Returns the modules of vdmkit that each one imports."""
    found: dict[str, set[str]] = defaultdict(set)
    for module, path in MODULES.items():
        for source, name in imports_of(path):
            found[module].add(f"{source}.{name}" if f"{source}.{name}" in MODULES else source)
    return {module: needed - {module, "vdmkit"} for module, needed in found.items()}


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """Returns the nodes that lie on circles or lead only to circles."""
    left = {node: set(needed) for node, needed in graph.items()}
    while done := {node for node, needed in left.items() if not needed & left.keys()}:
        left = {node: needed for node, needed in left.items() if node not in done}
    return sorted(left)


def test_every_package_has_a_layer():
    """The table of layers names every module and package at the top of vdmkit."""
    assert {package_of(module) for module in MODULES} - {"", "__main__"} <= LAYER_OF.keys()


@pytest.mark.parametrize("module", sorted(dependencies()))
def test_imports_point_down(module):
    """A module imports only from its own layer and the layers below."""
    if package_of(module) in {"", "__main__"}:
        return
    above = [one for one in dependencies()[module] if LAYER_OF[package_of(one)] > LAYER_OF[package_of(module)]]
    assert above == []


def test_no_modules_import_each_other_in_a_circle():
    """Modules can be ordered so that each imports earlier ones only; imports inside functions count."""
    assert circle_in(dependencies()) == []


def test_no_packages_import_each_other_in_a_circle():
    """Packages can be ordered so that each imports from earlier ones only."""
    packages: dict[str, set[str]] = defaultdict(set)
    for module, needed in dependencies().items():
        packages[package_of(module)] |= {package_of(one) for one in needed} - {package_of(module)}
    packages.pop("", None)
    assert circle_in(packages) == []


def test_circles_are_found():
    """A planted circle is reported, so that the tests above can fail."""
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


@pytest.mark.parametrize("module", JAX_FREE)
def test_no_jax_at_import(module):
    """Importing the command line and the recipes loads neither JAX nor NumPy, so that `vdmkit --help` is fast."""
    code = f"import sys, {module}; print(*{{'jax', 'numpy', 'matplotlib', 'rich'}} & {{*sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "\n"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_licence_line(path):
    """Every file states its licence."""
    assert path.read_text().startswith("# SPDX-License-Identifier: Apache-2.0\n")


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_the_library_prints_nothing(path):
    """Only commands, experiments and progress displays print."""
    calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
    assert "print" not in calls or package_of(module_of(path)) in {"cli", "experiments", "progress", "__main__"}


# Public names


def public_modules() -> dict[str, list[str]]:
    """Returns the public names of each module of vdmkit that lists them."""
    found = ["vdmkit", *(one.name for one in pkgutil.walk_packages(vdmkit.__path__, "vdmkit."))]
    imported = {name: importlib.import_module(name) for name in found if name != "vdmkit.__main__"}
    return {name: list(module.__all__) for name, module in imported.items() if hasattr(module, "__all__")}


def test_the_public_names_are_few():
    """All `__all__` lists together have at most 220 entries."""
    assert sum(map(len, public_modules().values())) <= 220


def test_no_two_public_classes_share_a_name():
    """A public class has one name, and no two public classes have the same one."""
    classes = defaultdict(set)
    for module, names in public_modules().items():
        for name in names:
            found = getattr(importlib.import_module(module), name)
            if isinstance(found, type) and found.__module__.startswith("vdmkit."):
                assert found.__name__ == name
                classes[name].add(found)
    assert len(classes) > 100
    assert {name: found for name, found in classes.items() if len(found) > 1} == {}


def not_public(text: str) -> list[str]:
    """Returns what code takes from vdmkit that is not public: private names, and names missing from `__all__`."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if "._" in alias.name and alias.name.startswith("vdmkit.")]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vdmkit":
            found += [f"{node.module}.{alias.name}" for alias in node.names if not _is_public(node.module, alias.name)]
        elif isinstance(node, ast.Attribute) and re.fullmatch(r"vdmkit(\.\w+)*\._[a-z]\w*", ast.unparse(node)):
            found.append(ast.unparse(node))
    return found


def _is_public(module: str | None, name: str) -> bool:
    if "._" in f"{module}.{name}" and name != "__version__":
        return False
    names = getattr(importlib.import_module(str(module)), "__all__", None)
    return names is None or name in names or f"{module}.{name}" in MODULES


def snippets() -> Iterator[tuple[str, str]]:
    """Yields the Python code of all pages, each with the name of its page."""
    for page in PAGES:
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)):
            yield f"{page.name}-{number}", code


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: str(path.relative_to(ROOT)))
def test_plugins_and_examples_use_public_names(path):
    """Plugins and examples import only public names of vdmkit."""
    assert not_public(path.read_text()) == []


@pytest.mark.parametrize("code", [pytest.param(code, id=name) for name, code in snippets()])
def test_snippets_use_public_names(code):
    """The code in README and docs imports only public names of vdmkit."""
    assert not_public(code) == []


def test_names_that_are_not_public_are_found():
    """Planted private names are reported, so that the tests above can fail."""
    text = "import vdmkit._a.b\nfrom vdmkit.schedules import Cosine, _cosine\nvdmkit.process._alpha()\n"
    assert not_public(text) == ["vdmkit._a.b", "vdmkit.schedules._cosine", "vdmkit.process._alpha"]


def dotted_names(text: str) -> set[str]:
    return {name.rstrip(".") for name in re.findall(r"(?<![\w/.@-])vdmkit(?:\.[A-Za-z]\w*)+", text)}


def test_dotted_names_resolve():
    """Every dotted name in a docstring, README or docs page resolves after `import vdmkit` alone."""
    texts = [page.read_text() for page in PAGES]
    texts += [text for path in FILES for _, text in docstrings(path)]
    groups = {"vdmkit.plugins", "vdmkit.commands"}  # entry-point groups
    names = sorted(set().union(*map(dotted_names, texts)) - groups)
    code = (
        "import vdmkit, sys\n"
        "for name in sys.stdin.read().split():\n"
        "    found = vdmkit\n"
        "    try:\n"
        "        for part in name.split('.')[1:]:\n"
        "            found = getattr(found, part)\n"
        "    except AttributeError:\n"
        "        fields = getattr(found, '__dataclass_fields__', {})\n"
        "        if part not in fields:\n"
        "            print(name)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], input=" ".join(names), capture_output=True, text=True, check=True
    )
    assert len(names) > 30
    assert result.stdout == ""


# English

_NOT_ENGLISH = (
    r"(?<!there )\b(is|are) none\b",  # "x is none" for "x is not one"
    r"\bso little\b",
    r"\bfor who\b",
    r"\bthose of \w+ not\b",
    r"\bin the place of\b",
    r"\bpassed over\b",
    r"\bleave \S+ out\b",
    r"\b(is|are) left out\b",
    r"(?<![Tt]here )\b(is|are) no (?!longer\b|more\b)",  # "is no number" for "is not a number"
)
_OPENINGS = ("Of ", "That of ", "Those of ", "The same", "Whoever ")
_WITHOUT_VERB = ("That", "Those", "Not", "Without", "With", "By", "From", "As", "In", "At", "After", "Into")


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text


def not_english(text: str) -> list[str]:
    plain = " ".join(text.split())
    return [match[0] for pattern in _NOT_ENGLISH for match in re.finditer(pattern, plain)]


def test_docstrings_stand_alone():
    """No docstring continues the name of its function, such as "Of each step"."""
    files = [*FILES, *ROOT.glob("plugins/*/src/**/*.py")]
    lines = [f"{path.relative_to(ROOT)}:{line}: {text[:60]}" for path in files for line, text in docstrings(path)
             if text.startswith(_OPENINGS) or text.split()[0] in _WITHOUT_VERB]  # fmt: skip
    assert not lines, "\n".join(lines)


def test_docstrings_and_pages_are_english():
    """No docstring or page has a pattern such as "is none"."""
    files = [*FILES, *ROOT.glob("plugins/*/src/**/*.py")]
    texts = [(f"{path.relative_to(ROOT)}:{line}", text) for path in files for line, text in docstrings(path)]
    texts += [(str(path.relative_to(ROOT)), path.read_text()) for path in PAGES]
    found = [f"{where}: {words}" for where, text in texts for words in not_english(text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text", ["A bound with it would be one that is none.", "It is no likelihood.", "those of levels not"]
)
def test_the_patterns_match(text):
    """Each pattern matches a planted sentence, so that the tests above can fail."""
    assert not_english(text)
