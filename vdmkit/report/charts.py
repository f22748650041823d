# SPDX-License-Identifier: Apache-2.0
"""Charts and grids of images: line charts as SVG and PNG files, charts for the report page, pictures of samples."""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Real, UInt8
from PIL import Image

from vdmkit.io import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Line = tuple[Sequence[float] | Any, Sequence[float] | Any]
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))  # keep nearly coinciding lines distinguishable
_SAME = 1e-3  # relative to the largest value, or on a log axis to each value: less than the width of a line


def line_chart(name: Path, lines: Mapping[str, Line], *, x: str, y: str, title: str, log: bool = False) -> list[Path]:
    """Writes a line chart to `name`.svg and `name`.png and returns the two paths.

    Lines that coincide are drawn once, labelled with all their names. The legend is outside the axes. With `log`, both
    axes are logarithmic, and values that are not positive are omitted.
    """
    from matplotlib import rc_context

    figure = line_figure(merge_coinciding(lines, log), log)
    figure.axes[0].set(xlabel=x, ylabel=y, title=title)
    paths = [name.with_suffix(suffix) for suffix in (".svg", ".png")]
    for path in paths:
        with whole_file(path) as part:
            metadata = {"Date": None} if path.suffix == ".svg" else None
            with rc_context({"svg.hashsalt": "vdmkit"}):  # makes the file a function of the numbers
                figure.savefig(part, format=path.suffix[1:], dpi=120, metadata=metadata)
    return paths


def line_figure(lines: Mapping[str, Line], log: bool) -> "Figure":
    """Returns the figure of a line chart, without labels of the axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (label, (xs, ys)) in enumerate(lines.items()):
        marker, style = "o" if len(xs) < 30 else "", STYLES[number % len(STYLES)]
        axes.plot(xs, ys, marker=marker, markersize=4, linewidth=1.5, linestyle=style, label=label)
    if log:
        axes.set_xscale("log")
        axes.set_yscale("log", nonpositive="mask")
    axes.grid(visible=True, alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


def merge_coinciding(lines: Mapping[str, Line], log: bool) -> dict[str, Line]:
    """Merges lines that coincide; the label of a merged line has the names of all, one per row."""
    groups: list[tuple[list[str], Line]] = []
    for label, line in lines.items():
        for labels, other in groups:
            if _coincide(line, other, log):
                labels.append(label)
                break
        else:
            groups.append(([label], line))
    return {"\n".join(labels): line for labels, line in groups}


def _coincide(a: Line, b: Line, log: bool) -> bool:
    (xs_a, ys_a), (xs_b, ys_b) = (tuple(np.asarray(values, float) for values in line) for line in (a, b))
    if xs_a.shape != xs_b.shape or not np.array_equal(xs_a, xs_b):
        return False
    largest = np.nanmax(abs(ys_a), initial=0.0)
    tolerance = {"rtol": _SAME, "atol": 0.0} if log else {"rtol": 0.0, "atol": _SAME * largest}
    return np.allclose(ys_a, ys_b, **tolerance, equal_nan=True)


# Colours that occur nowhere else; the SVG of the page has variables of the style sheet instead, which differ between
# light and dark.
_INK, _FAINT = "#010203", "#010204"
COLOURS = tuple(f"#0102{10 + number}" for number in range(6))
_VARIABLES = {_INK: "currentColor", _FAINT: "var(--faint)"}
_VARIABLES |= {colour: f"var(--line-{number})" for number, colour in enumerate(COLOURS)}
_LONGEST_NAME = 100
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


def svg_chart(draw: Callable[["Axes"], object], *, alt: str, x: str, y: str, height: float = 1.0) -> str:
    """Returns the chart that `draw` makes on one pair of axes as an SVG element for an HTML page.

    Args:
        draw: A function that plots on the axes in colours of `COLOURS`.
        alt: Alternative text for readers who cannot see the chart.
        x: Label of the horizontal axis.
        y: Label of the vertical axis.
        height: Height relative to the default.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(5.0, 3.4 * height), layout="constrained")  # readable on a page of 400 pixels
        axes = figure.subplots()
        draw(axes)
        axes.set(xlabel=without_formulas(x), ylabel=without_formulas(y))
        handles, labels = axes.get_legend_handles_labels()
        if len(labels) > 1:
            columns = 2 if max(map(len, labels)) < 24 else 1
            figure.legend(handles, map(without_formulas, labels), loc="outside upper left", ncols=columns)
        file = io.StringIO()
        metadata = dict.fromkeys(("Date", "Creator", "Type", "Format"))
        figure.savefig(file, format="svg", transparent=True, metadata=metadata)
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    label = f'role="img" aria-label="{escape(alt)}"'
    svg = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', lambda found: f'<svg viewBox="{found[1]}" {label}>', svg)
    used = {*re.findall(r'xlink:href="#([^"]+)"', svg), *re.findall(r"url\(#([^)]+)\)", svg)}
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = svg.replace("xlink:href", "href")
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return re.sub(r"\n\s*", "\n", svg)


def without_formulas(text: str) -> str:
    """Shortens a name and escapes formulas in it, because Matplotlib might take forever to parse one."""
    shown = text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."
    return shown.replace("$", r"\$")


_SMALLEST_TILE = 32  # pixels; smaller images are enlarged by an integer factor
_WHITE = 255


def grid(images: Real[np.ndarray, "n h w c"], levels: int) -> UInt8[np.ndarray, "H W c"]:
    """Arranges images of levels 0..V-1, or of [-1, 1] if levels = 0, in a nearly square grid on white."""
    values = images.astype(np.float64)
    brightness = values / (levels - 1) if levels else np.clip((values + 1) / 2, 0, 1)
    images = (255 * brightness).round().astype(np.uint8)
    n, height, width, channels = images.shape
    factor = max(1, math.ceil(_SMALLEST_TILE / max(height, width)))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    gap = 2
    picture = np.full(
        (rows * (height * factor + gap) - gap, columns * (width * factor + gap) - gap, channels), _WHITE, np.uint8
    )
    for i, tile in enumerate(images):
        top, left = (i // columns) * (height * factor + gap), (i % columns) * (width * factor + gap)
        picture[top : top + height * factor, left : left + width * factor] = tile
    return picture


def side_by_side(left: UInt8[np.ndarray, "H W c"], right: UInt8[np.ndarray, "H W c"]) -> UInt8[np.ndarray, "H W2 c"]:
    """Joins two pictures of the same height, with a white strip between them."""
    strip = np.full((left.shape[0], _SMALLEST_TILE, left.shape[2]), _WHITE, np.uint8)
    return np.concatenate([left, strip, right], axis=1)


def write_png(picture: UInt8[np.ndarray, "H W c"], path: Path) -> None:
    """Writes a picture atomically: one channel as grey, three as RGB."""
    with whole_file(path) as part:
        as_image(picture).save(part, format="PNG")


def as_image(picture: UInt8[np.ndarray, "H W c"]) -> Image.Image:
    """Returns a picture as an image of Pillow, grey if it has one channel."""
    return Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
