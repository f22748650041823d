# SPDX-License-Identifier: Apache-2.0
"""Line charts, as SVG and PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vdmkit.io import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Line = tuple[Sequence[float] | Any, Sequence[float] | Any]
_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))  # lines that nearly coincide stay distinguishable
_SAME = 1e-3  # relative to the largest value, or on a log axis to each value: less than the width of a line


def line_chart(name: Path, lines: Mapping[str, Line], *, x: str, y: str, title: str, log: bool = False) -> list[Path]:
    """Writes a line chart to `name`.svg and `name`.png and returns the two paths.

    Lines that coincide are drawn once, labelled with all their names. The legend is beside the axes. With `log`, both
    axes are logarithmic, and values that are not positive are omitted.
    """
    from matplotlib import rc_context

    figure = _figure(_distinct(lines, log), log)
    figure.axes[0].set(xlabel=x, ylabel=y, title=title)
    paths = [name.with_suffix(suffix) for suffix in (".svg", ".png")]
    for path in paths:
        with whole_file(path) as part:
            metadata = {"Date": None} if path.suffix == ".svg" else None
            with rc_context({"svg.hashsalt": "vdmkit"}):  # the same numbers, the same file
                figure.savefig(part, format=path.suffix[1:], dpi=120, metadata=metadata)
    return paths


def _figure(lines: Mapping[str, Line], log: bool) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (label, (xs, ys)) in enumerate(lines.items()):
        marker, style = "o" if len(xs) < 30 else "", _STYLES[number % len(_STYLES)]
        axes.plot(xs, ys, marker=marker, markersize=4, linewidth=1.5, linestyle=style, label=label)
    if log:
        axes.set_xscale("log")
        axes.set_yscale("log", nonpositive="mask")
    axes.grid(visible=True, alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _distinct(lines: Mapping[str, Line], log: bool) -> dict[str, Line]:
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
