# SPDX-License-Identifier: Apache-2.0
"""Docstrings and documentation are whole sentences: a few patterns that are not are found here."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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


def _docstrings(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text


def _code() -> list[Path]:
    return [*(ROOT / "vdmkit").rglob("*.py"), *(ROOT / "plugins").glob("*/src/**/*.py")]


def _pages() -> list[Path]:
    return [
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "plugins").glob("*/README.md"),
        ROOT / "CONTRIBUTING.md",
        ROOT / "README.md",
    ]


def _found(text: str) -> list[str]:
    plain = " ".join(text.split())
    return [match[0] for pattern in _NOT_ENGLISH for match in re.finditer(pattern, plain)]


def test_docstrings_stand_alone():
    """False if a docstring hung from the name of its function, such as "Of each step"."""
    lines = [f"{path.relative_to(ROOT)}:{line}: {text[:60]}" for path in _code() for line, text in _docstrings(path)
             if text.startswith(_OPENINGS) or text.split()[0] in _WITHOUT_VERB]  # fmt: skip
    assert not lines, "\n".join(lines)


def test_docstrings_and_pages_are_english():
    """False if "is none" and its like came back, which readers of English stumble over."""
    texts = [(f"{path.relative_to(ROOT)}:{line}", text) for path in _code() for line, text in _docstrings(path)]
    texts += [(str(path.relative_to(ROOT)), path.read_text()) for path in _pages()]
    found = [f"{where}: {words}" for where, text in texts for words in _found(text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text", ["A bound with it would be one that is none.", "It is no likelihood.", "those of levels not"]
)
def test_the_patterns_find_what_they_are_for(text):
    """False if the patterns matched nothing, so that the tests above could not fail."""
    assert _found(text)
