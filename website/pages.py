# SPDX-License-Identifier: Apache-2.0
"""The written pages: links that leave docs/ lead to pages of the site, and sections of the README are included once.

A page in docs/ is read on its own too, so its links are those of the repository: `../vdmkit/model.py#DiffusionModel`.
"""

import ast
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)(#[^)\s]+)?(?=\))")
INCLUDE = re.compile(r"^<!-- include (\S+)#(\S+) -->$", re.MULTILINE)
CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml", ".sh": "bash", ".sbatch": "bash", ".md": "markdown"}


class PageError(Exception):
    """A page that cannot be built: which one, and what is wrong."""


@dataclass
class Site:
    """The folder of Markdown from which the site is built, and the source files that its pages link to."""

    folder: Path
    sources: set[Path] = field(default_factory=set)

    def write(self, name: str, text: str) -> None:
        """Writes the page `name`, a path relative to the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def add(self, name: str, source: Path) -> None:
        """Adds a page of the repository under a name.

        Raises:
            PageError: a link leads nowhere, or a section that is to be included is not there.
        """
        text = INCLUDE.sub(lambda found: self._section(source, found[1], found[2]), source.read_text())
        parts = CODE.split(text)
        parts[::2] = [LINK.sub(lambda found: self._target(name, source, found), part) for part in parts[::2]]
        self.write(name, "".join(parts))

    def link_to(self, page: str, path: Path, line: int = 0) -> str:
        """Returns the link from a page to a source file or folder, at a line if one is given."""
        self.sources.add(path)
        target = f"source/{path.relative_to(ROOT)}/index.md" if path.is_dir() else f"source/{path.relative_to(ROOT)}.md"
        anchor = f"#__codelineno-0-{line}" if line else ""
        return os.path.relpath(target, Path(page).parent) + anchor

    def write_sources(self) -> None:
        """Writes a page for each source file and folder that a page links to."""
        while waiting := [path for path in sorted(self.sources) if not (self.folder / _page_of(path)).exists()]:
            for path in waiting:
                self.write(_page_of(path), self._listing(path) if path.is_dir() else _code(path))

    def _target(self, page: str, source: Path, found: re.Match[str]) -> str:
        path, anchor = (source.parent / found[1]).resolve(), found[2] or ""
        if not path.exists():
            raise PageError(f"{source.relative_to(ROOT)}: the link {found[0]} leads nowhere.")
        if path == ROOT:
            return os.path.relpath("index.md", Path(page).parent)
        name = str(path.relative_to(ROOT))
        if name in PROJECT or path.parent == ROOT / "docs":
            inside = PROJECT.get(name) or str(Path(name).relative_to("docs")).replace(".py", ".md")
            return os.path.relpath(inside, Path(page).parent) + anchor
        return self.link_to(page, path, line_of(path, anchor[1:]) if anchor else 0)

    def _section(self, source: Path, name: str, anchor: str) -> str:
        """Returns the text below a heading of another page, with links relative to this one's folder."""
        other = (source.parent / name).resolve()
        there = os.path.relpath(other.parent, source.parent)
        found = [text for heading, text in _sections(other.read_text()) if slug(heading) == anchor]
        if not found:
            raise PageError(f"{source.relative_to(ROOT)}: {name} has no section #{anchor} to include.")
        return LINK.sub(lambda link: os.path.join(there, link[0]), found[0])

    def _listing(self, folder: Path) -> str:
        readme = folder / "README.md"
        page = _page_of(folder)
        files = [path for path in sorted(folder.rglob("*")) if path.suffix in LANGUAGES and path != readme]
        links = [f"- [{path.relative_to(folder)}]({self.link_to(page, path)})" for path in files]
        title = f"# {folder.relative_to(ROOT)}\n"
        if readme.exists():
            self.add(page, readme)
            title = (self.folder / page).read_text()
        return title + "\n**Files**\n\n" + "\n".join(links) + "\n"


def slug(heading: str) -> str:
    """Returns the anchor of a heading."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def line_of(path: Path, symbol: str) -> int:
    """Returns the line at which a Python file defines `symbol`, such as `Steps.loss`.

    Raises:
        PageError: it does not define it.
    """
    nodes: list[ast.stmt] = ast.parse(path.read_text()).body
    line = 0
    for name in symbol.split("."):
        found = [node for node in nodes if name in _defined(node)]
        if not found:
            raise PageError(f"{path.relative_to(ROOT)} does not define {symbol}, to which a page links.")
        line, nodes = found[0].lineno, getattr(found[0], "body", [])
    return line


def _defined(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Yields heading and text of every section of the second level."""
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        heading, _, body = part.partition("\n")
        yield heading, body.strip()


def _page_of(path: Path) -> str:
    return f"source/{path.relative_to(ROOT)}" + ("/index.md" if path.is_dir() else ".md")


def _code(path: Path) -> str:
    language = LANGUAGES.get(path.suffix, "text")
    title = f"---\nsearch:\n  exclude: true\n---\n\n# {path.relative_to(ROOT)}\n\n"
    return f'{title}````{{ .{language} linenums="1" }}\n{path.read_text().rstrip()}\n````\n'
