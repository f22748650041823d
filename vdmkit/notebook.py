# SPDX-License-Identifier: Apache-2.0
"""Tables for notebooks."""

from collections.abc import Iterable, Sequence
from html import escape


def table(headline: str, rows: Iterable[Sequence[str]], columns: Sequence[str] = ()) -> str:
    """Returns an HTML table, with its headline above it and the names of `columns`, if given, in its first row."""
    lines = [_row(columns, "th")] if columns else []
    lines += [_row(row, "td") for row in rows]
    return f"<div><strong>{escape(headline)}</strong><table>{''.join(lines)}</table></div>"


def _row(cells: Sequence[str], tag: str) -> str:
    left = ' style="text-align: left"'
    return f"<tr>{''.join(f'<{tag}{left}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
