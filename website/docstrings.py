# SPDX-License-Identifier: Apache-2.0
"""Docstrings as Markdown."""

import re

SECTION = re.compile(r"(Args|Raises|Returns|Yields):$")
_MARKUP = re.compile(r"[*_<|\[\]$\\]")
ENTRY = re.compile(r"    (\w+): (.*)")


def markdown(docstring: str) -> str:
    """Converts a docstring of Google's style: sections become lists, indented formulas stay as they are."""
    lines, section = [], False
    for line in docstring.splitlines():
        if found := SECTION.match(line):
            section = True
            lines += ["", f"**{found[1]}**", ""]
        elif section and line.startswith("    "):
            lines.append(_entry(line))
        else:
            section = section and not line
            lines.append(line if line.startswith("    ") else escaped(line))
    return "\n".join(lines)


def _entry(line: str) -> str:
    """Converts one line below `Args:`: the first of an item, or its continuation."""
    if found := ENTRY.match(line):
        return f"- `{found[1]}`: {escaped(found[2])}"
    return "    " + escaped(line.strip()) if line.startswith("        ") else escaped(line.strip())


def escaped(text: str) -> str:
    """Writes what Markdown would read as markup as HTML's entities, except code between backticks."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if part.startswith("`") else _MARKUP.sub(_entity, part) for part in parts)


def _entity(found: re.Match[str]) -> str:
    return f"&#{ord(found[0])};"
