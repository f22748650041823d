# SPDX-License-Identifier: Apache-2.0
"""Figures as inline SVG, in the colours of the page: text and lines follow its light or dark style sheet."""

import io
import re
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

from vdmkit.page._blocks import Chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours that occur nowhere else, in whose place the style sheet's variables are written.
_INK, _FAINT = "#010203", "#010204"
COLOURS = tuple(f"#0102{10 + number}" for number in range(6))
_VARIABLES = {_INK: "currentColor", _FAINT: "var(--faint)"}
_VARIABLES |= {colour: f"var(--line-{number})" for number, colour in enumerate(COLOURS)}
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))  # told apart without colour, too
_SIZE = (5.0, 3.4)  # inches: its text is readable on a page of 400 pixels
_LONGEST = 100  # characters of a name
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vdmkit",
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.5,
}


def chart(draw: Callable[["Axes"], object], *, alt: str, caption: str, x: str, y: str, height: float = 1.0) -> Chart:
    """Returns the chart that `draw` makes on one pair of axes.

    Args:
        draw: A function that plots on the axes in colours of `COLOURS`.
        alt: What a reader who cannot see the chart is told.
        caption: The text below.
        x: Label of the horizontal axis.
        y: Label of the vertical axis.
        height: Height relative to the usual one.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(_SIZE[0], height * _SIZE[1]), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.set(xlabel=literally(x), ylabel=literally(y))
        handles, labels = axes.get_legend_handles_labels()
        if len(labels) > 1:
            figure.legend(
                handles, map(literally, labels), loc="outside upper left", ncols=2 if max(map(len, labels)) < 24 else 1
            )
        file = io.StringIO()
        figure.savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Type", "Format"))
        )
    return Chart(_inline(file.getvalue(), alt), caption)


def literally(text: str) -> str:
    """Returns a name, cut if it is long, in which Matplotlib finds no formula: parsing one might not end."""
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return shown.replace("$", r"\$")


def _inline(svg: str, alt: str) -> str:
    """Returns an SVG document as an element of the page, with alternative text; nothing in it is fetched."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    told = f'role="img" aria-label="{escape(alt)}"'
    svg = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', lambda of: f'<svg viewBox="{of[1]}" {told}>', svg)
    used = {*re.findall(r'xlink:href="#([^"]+)"', svg), *re.findall(r"url\(#([^)]+)\)", svg)}
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = svg.replace("xlink:href", "href")
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return re.sub(r"\n\s*", "\n", svg)
