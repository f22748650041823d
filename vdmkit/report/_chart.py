# SPDX-License-Identifier: Apache-2.0
"""Line charts, as SVG and PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vdmkit.files import whole_file


def line_chart(
    name: Path,
    lines: Mapping[str, tuple[Sequence[float] | Any, Sequence[float] | Any]],
    *,
    x: str,
    y: str,
    title: str,
    log: bool = False,
) -> list[Path]:
    """Write `name`.svg and `name`.png; `log` is of both axes. Values that a log cannot show are left out."""
    from matplotlib.figure import Figure  # two seconds of import

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for label, (xs, ys) in lines.items():
        axes.plot(xs, ys, marker="o" if len(xs) < 30 else "", markersize=4, linewidth=1.5, label=label)
    if log:
        axes.set_xscale("log")
        axes.set_yscale("log", nonpositive="mask")
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    paths = [name.with_suffix(suffix) for suffix in (".svg", ".png")]
    for path in paths:
        with whole_file(path) as part:
            metadata = {"Date": None} if path.suffix == ".svg" else None  # the same numbers, the same file
            figure.savefig(part, format=path.suffix[1:], dpi=120, metadata=metadata)
    return paths
