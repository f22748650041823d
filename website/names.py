# SPDX-License-Identifier: Apache-2.0
"""Reference pages of the public Python names, from the source: a page for each module."""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import vdmkit
from website.docstrings import markdown
from website.pages import Site


def modules() -> list[str]:
    """Returns vdmkit, its modules and packages, and the modules inside packages that list public names."""
    found = (module.name for module in pkgutil.walk_packages(vdmkit.__path__, "vdmkit."))
    return ["vdmkit", *(name for name in found if "._" not in name and (name.count(".") == 1 or _lists_names(name)))]


def _lists_names(module: str) -> bool:
    return hasattr(importlib.import_module(module), "__all__")


def public_names(module: str) -> list[str]:
    """Returns the public names of a module: `__all__`, or, without it, what its file defines."""
    found = importlib.import_module(module)
    listed = getattr(found, "__all__", None) or [name for name in _definitions(module) if not name.startswith("_")]
    return sorted(name for name in listed if name != "__version__")


def write_names(site: Site) -> list[str]:
    """Writes the pages, and returns their paths in the order of the navigation."""
    pages = [_page_of(module) for module in modules()]
    for module, page in zip(modules(), pages, strict=True):
        site.write(page, _page(site, module, page))
    return pages


def _page_of(module: str) -> str:
    return f"reference/python/{module}.md"


def _page(site: Site, module: str, page: str) -> str:
    found = importlib.import_module(module)
    parts = [f"# {module}", markdown(inspect.getdoc(found) or "")]
    parts += [_entry(site, found, name, page) for name in public_names(module)]
    return "\n\n".join(parts) + "\n"


def _entry(site: Site, module: ModuleType, name: str, page: str) -> str:
    """Describes one name: its heading, its source, how it is called, and what its docstring says."""
    path, node = _definition(module.__name__, name)
    link = f"[source]({site.link_to(page, path, node.lineno)})"
    parts = [f"## {name}", f"```python\n{_declaration(path, node)}\n```"]
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        parts.append(markdown(inspect.getdoc(getattr(module, name)) or ""))
    if isinstance(node, ast.ClassDef):
        parts += [_method(one) for one in _methods(node)]
    return "\n\n".join([*parts, link])


def _method(node: ast.FunctionDef) -> str:
    text = markdown(inspect.cleandoc(ast.get_docstring(node) or ""))
    indented = "\n".join(f"    {line}".rstrip() for line in text.splitlines())
    return f"- `{_call(node)}`\n\n{indented}"


def _methods(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    """Yields the methods and properties that have a docstring of their own."""
    for one in node.body:
        is_public = isinstance(one, ast.FunctionDef) and (one.name[0] != "_" or one.name == "__call__")
        if isinstance(one, ast.FunctionDef) and is_public and ast.get_docstring(one):
            yield one


def _declaration(path: Path, node: ast.stmt) -> str:
    """Returns a definition as it is written, without its body: of a class its fields and constructor."""
    lines = path.read_text().splitlines()
    if not isinstance(node, ast.FunctionDef | ast.ClassDef):
        return "\n".join(lines[node.lineno - 1 : node.end_lineno])
    header = _header(lines, node)
    if isinstance(node, ast.FunctionDef):
        return header
    fields = [one for one in node.body if isinstance(one, ast.AnnAssign) and ast.unparse(one.target)[0] != "_"]
    shown = ["\n".join(lines[one.lineno - 1 : one.end_lineno]) for one in fields]
    shown += [_header(lines, one) for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
    return "\n".join([header, *shown])


def _header(lines: list[str], node: ast.FunctionDef | ast.ClassDef) -> str:
    return "\n".join(lines[node.lineno - 1 : node.body[0].lineno - 1]).rstrip().removesuffix(":")


def _call(node: ast.FunctionDef) -> str:
    if any(ast.unparse(one) in {"property", "cached_property"} for one in node.decorator_list):
        return node.name
    names = [one.arg for one in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs] if one.arg != "self"]
    return f"{'' if node.name == '__call__' else node.name}({', '.join(names)})"


def _definition(module: str, name: str) -> tuple[Path, ast.stmt]:
    """Returns the file and the statement that define a public name, following imports from the module that has it."""
    if node := _definitions(module).get(name):
        return Path(inspect.getfile(importlib.import_module(module))), node
    imports = [node for node in ast.walk(_tree(module)) if isinstance(node, ast.ImportFrom)]
    for home, alias in [(str(node.module), alias) for node in imports for alias in node.names]:
        if name == (alias.asname or alias.name):
            return _definition(home, alias.name)
    raise LookupError(f"{module}.{name}: neither defined nor imported in the module's file.")


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(importlib.import_module(module)))


@cache
def _definitions(module: str) -> dict[str, ast.stmt]:
    """Returns what a module's file defines at its top, by name."""
    found: dict[str, ast.stmt] = {}
    for node in _tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
    return found
