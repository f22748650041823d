# SPDX-License-Identifier: Apache-2.0
"""The loss as a function of gamma, and bounds of T steps, of the last study of schedules."""

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vdmkit.errors import DamageWarning
from vdmkit.io import check_at_most, has_sha256
from vdmkit.page._blocks import Chart, Command, Section, Table, section
from vdmkit.page._figures import COLOURS, STYLES, chart
from vdmkit.page._shown import Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FILE = "schedule/schedule.json"
_MOST = 200  # lines of kernels and grids; vdmkit has about 20
_HIGHEST = 2.5  # times the bound in continuous time, on the linear axis


def study(shown: Shown) -> list[Section]:
    """Returns the sections on the loss along gamma and on steps, or one that says how to measure them."""
    found = shown.files.json(_FILE)
    if found is None:
        asked = Command(
            "Not measured yet: the loss along gamma, and bounds of few steps. This measures them:",
            shown.command("study", "--ckpt", "RUN"),
        )
        return section("Loss along gamma, and bounds of few steps", [asked])
    folder = shown.files.path / "schedule"
    for name in _changed(folder, found.get("files", {})):
        warnings.warn(f"{folder / name}: changed or missing. Run the study again.", DamageWarning, stacklevel=2)
    return [
        *section("Loss along gamma", _along_gamma(shown, found)),
        *section("Bounds of few steps", [*_steps(found), _table(found)]),
    ]


def _changed(folder: Path, hashes: dict[str, str]) -> list[str]:
    """Returns the names of files that are not as the study wrote them."""
    return [name for name, sha256 in hashes.items() if not has_sha256(folder / name, sha256)]


def _along_gamma(shown: Shown, found: dict[str, Any]) -> list[Chart | Table]:
    own = next(row for row in found["variances"] if row["schedule"] == "this run's")
    return [_chart_of_loss(shown, found), _chart_of_density(found["curve"]["gamma"], own), _variances(found, own)]


def _chart_of_loss(shown: Shown, found: dict[str, Any]) -> Chart:
    gamma, error, width = _loss(shown, found["curve"])

    def draw(axes: "Axes") -> None:
        axes.errorbar(gamma, error, width, color=COLOURS[0], linewidth=1, marker="o", markersize=2.5)
        axes.set_ylim(bottom=0)

    top = gamma[np.argmax(error)]
    ends = f"from gamma = {gamma[0]:.2f} to {gamma[-1]:.2f}"
    return chart(
        draw,
        alt=f"Diffusion loss for each unit of gamma {ends}, with 95% errors; at most {error.max():.4f}, at {top:.2f}.",
        caption=f"The diffusion loss at each noise level, with its 95% error over {found['images']:,} test images. "
        "The area below it is the diffusion term.",
        x="gamma = -log SNR",
        y="bits/dim for a unit of gamma",
    )


def _chart_of_density(gamma: list[float], own: dict[str, Any]) -> Chart:
    density = np.array(own["density"], float)

    def draw(axes: "Axes") -> None:
        axes.fill_between(gamma, density, color=COLOURS[2], alpha=0.4)
        axes.plot(gamma, density, color=COLOURS[2])
        axes.set_ylim(0, 1.15 * np.nanmax(density))

    return chart(
        draw,
        alt=f"Density of the noise levels that are drawn, from {np.nanmin(density):.4f} to {np.nanmax(density):.4f}.",
        caption="Where the schedule draws: the density of gamma for uniform t. The variance is least if it follows "
        "the root of the loss's second moment.",
        x="gamma = -log SNR",
        y="density",
    )


def _variances(found: dict[str, Any], own: dict[str, Any]) -> Table:
    rows = [
        (row["schedule"], f"{row['variance']:.4f}", f"{row['low']:.4f} to {row['high']:.4f}")
        for row in found["variances"]
    ]
    caption = "Variance of the bound's estimate from one image, t and eps, (bits/dim)², for schedules with these ends"
    return Table(caption, ("schedule", "variance", "95% interval"), rows, frozenset({found["variances"].index(own)}))


def _loss(shown: Shown, curve: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns gammas, dL / d gamma = E |eps - eps_hat|^2 / 2 in bits/dim, and its 95% half-widths."""
    scale = 1 / (2 * math.log(2) * shown.files.dimensions)
    gamma, error, standard = (
        np.array(curve[name]) for name in ("gamma", "squared_error", "squared_error_standard_error")
    )
    return gamma, scale * error, 1.96 * scale * standard


def _steps(found: dict[str, Any]) -> list[Chart]:
    continuous, lines = found["continuous"], _by_line(found)
    kernels, grids = (list(dict.fromkeys(row[name] for row in found["steps"])) for name in ("kernel", "grid"))

    def plot(axes: "Axes", zero: float, *, named: bool) -> None:
        for (kernel, grid), rows in lines.items():
            counts, bounds, widths = (np.array(column) for column in zip(*rows, strict=True))
            style = {"color": COLOURS[kernels.index(kernel) % 6], "linestyle": STYLES[grids.index(grid) % 6]}
            name = f"{kernel}, {grid}" if named else None
            axes.errorbar(counts, bounds - zero, widths, label=name, linewidth=1.2, marker="o", markersize=2.5, **style)
        axes.set_xscale("log")

    def draw_bounds(axes: "Axes") -> None:
        plot(axes, 0.0, named=True)
        axes.axhline(continuous, linewidth=0.8, color=COLOURS[5], label="continuous time")
        axes.set_ylim(0.95 * continuous, _HIGHEST * continuous)

    def draw_excess(axes: "Axes") -> None:
        plot(axes, continuous, named=False)
        above = [bpd - continuous for rows in lines.values() for _, bpd, _ in rows if bpd > continuous]
        axes.set_yscale("log")
        axes.set_ylim(bottom=min(above, default=1.0) / 3)

    told = "; ".join(f"{', '.join(line)}: {rows[-1][1]:.4f} at T = {rows[-1][0]}" for line, rows in lines.items())
    about = f"continuous time {continuous:.4f} ± {found['half_width']:.4f}"
    return [
        chart(
            draw_bounds,
            alt=f"Bounds against T, {about}. {told}.",
            caption=f"Bounds of T steps by kernel and grid; {about}. Bounds more than {_HIGHEST:g} times as high "
            "are in the table only.",
            x="steps T",
            y="bits/dim",
            height=1.5,
        ),
        chart(
            draw_excess,
            alt=f"The same minus the bound in continuous time, on logarithmic axes. {told}.",
            caption="The same lines minus the bound in continuous time. What is not above it is in the table only.",
            x="steps T",
            y="bits/dim above continuous time",
            height=1.1,
        ),
    ]


def _by_line(found: dict[str, Any]) -> dict[tuple[str, str], list[tuple[int, float, float]]]:
    lines: dict[tuple[str, str], list[tuple[int, float, float]]] = {}
    for row in found["steps"]:
        point = len(row["gammas"]) - 1, row["bpd"], row["half_width"]
        lines.setdefault((row["kernel"], row["grid"]), []).append(point)
    check_at_most(_MOST, len(lines), "lines in a chart")
    return lines


def _table(found: dict[str, Any]) -> Table:
    lines = _by_line(found)
    counts = sorted({count for rows in lines.values() for count, _, _ in rows})
    cells = {line: {count: f"{bpd:.4f} ± {width:.4f}" for count, bpd, width in rows} for line, rows in lines.items()}
    rows = [(*line, *(of_line.get(count, "") for count in counts)) for line, of_line in cells.items()]
    columns = ("kernel", "grid", *(f"T = {count}" for count in counts))
    return Table("Bounds of T steps, bits/dim with the 95% Monte Carlo error", columns, rows)
