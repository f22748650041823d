# SPDX-License-Identifier: Apache-2.0
"""The loss as a function of gamma, and bounds of T steps, of the last study of schedules."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from vdmkit.page._blocks import Chart, Command, Section, Table, section
from vdmkit.page._figures import COLOURS, STYLES, chart
from vdmkit.page._shown import Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FILE = "schedule/schedule.json"


def study(shown: Shown) -> list[Section]:
    """Returns the sections on the loss along gamma and on steps, or one that says how to measure them."""
    found = shown.files.json(_FILE)
    if found is None:
        asked = Command(
            "Not measured yet: the loss along gamma, and bounds of few steps. This measures them:",
            shown.command("study", "--ckpt", "RUN"),
        )
        return section("Loss along gamma, and bounds of few steps", [asked])
    return [
        *section("Loss along gamma", _along_gamma(shown, found)),
        *section("Bounds of few steps", [_steps(found), *_tables(found)]),
    ]


def _along_gamma(shown: Shown, found: dict[str, Any]) -> list[Chart | Table]:
    gamma, error, width = _loss(shown, found["curve"])
    own = next(row for row in found["variances"] if row["schedule"] == "this run's")
    density = np.array(own["density"], float)

    def draw_loss(axes: "Axes") -> None:
        axes.errorbar(gamma, error, width, color=COLOURS[0], linewidth=1, marker="o", markersize=2.5)
        axes.set_ylim(bottom=0)

    def draw_density(axes: "Axes") -> None:
        axes.fill_between(gamma, density, color=COLOURS[2], alpha=0.4)
        axes.plot(gamma, density, color=COLOURS[2])
        axes.set_ylim(0, 1.15 * np.nanmax(density))

    top = gamma[np.argmax(error)]
    variances = [
        (row["schedule"], f"{row['variance']:.4f}", f"{row['low']:.4f} to {row['high']:.4f}")
        for row in found["variances"]
    ]
    return [
        chart(
            draw_loss,
            alt=f"Diffusion loss for each unit of gamma, with 95% errors, from gamma = {gamma[0]:.2f} to {gamma[-1]:.2f}; "
            f"it is largest, {error.max():.4f}, at {top:.2f}.",
            caption=f"The diffusion loss at each noise level, with its 95% error over {found['images']:,} test images. The area "
            "below it is the diffusion term.",
            x="gamma = -log SNR",
            y="bits/dim for a unit of gamma",
        ),
        chart(
            draw_density,
            alt=f"Density of the noise levels that the schedule draws, from {np.nanmin(density):.4f} to {np.nanmax(density):.4f}.",
            caption="Where the schedule draws: the density of gamma for uniform t. The variance is least if it follows the "
            "root of the second moment of the loss.",
            x="gamma = -log SNR",
            y="density",
        ),
        Table("Variance of the bound's estimate from one image, t and eps, (bits/dim)², for schedules with these ends",
              ("schedule", "variance", "95% interval"), variances, frozenset({found["variances"].index(own)})),
    ]  # fmt: skip


def _loss(shown: Shown, curve: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns gammas, dL / d gamma = E |eps - eps_hat|^2 / 2 in bits/dim, and its 95% half-widths."""
    scale = 1 / (2 * math.log(2) * math.prod(shown.files.json("manifest.json")["shape"]))
    gamma, error, standard = (
        np.array(curve[name]) for name in ("gamma", "squared_error", "squared_error_standard_error")
    )
    return gamma, scale * error, 1.96 * scale * standard


def _steps(found: dict[str, Any]) -> Chart:
    lines = _by_line(found)

    def draw(axes: "Axes") -> None:
        for number, (name, rows) in enumerate(lines.items()):
            counts, bounds, widths = (np.array(column) for column in zip(*rows, strict=True))
            style = {"color": COLOURS[number % len(COLOURS)], "linestyle": STYLES[number // 2 % len(STYLES)]}
            axes.errorbar(counts, bounds, widths, label=name, linewidth=1.2, marker="o", markersize=2.5, **style)
        axes.axhline(found["continuous"], linewidth=0.8, color=COLOURS[5], linestyle=":", label="continuous time")

    told = "; ".join(f"{name}: {rows[-1][1]:.4f} at T = {rows[-1][0]}" for name, rows in lines.items())
    caption = (
        f"Bound of T steps by kernel and grid; continuous time {found['continuous']:.4f} ± {found['half_width']:.4f}."
    )
    return chart(
        draw,
        alt=f"Bounds against T. {told}.",
        caption=caption,
        x="steps T",
        y="bits/dim",
        height=1.6,
        xscale="log",
        yscale="log",
    )


def _by_line(found: dict[str, Any]) -> dict[str, list[tuple[int, float, float]]]:
    lines: dict[str, list[tuple[int, float, float]]] = {}
    for row in found["steps"]:
        lines.setdefault(f"{row['kernel']}, {row['grid']}", []).append(
            (len(row["gammas"]) - 1, row["bpd"], row["half_width"])
        )
    return lines


def _tables(found: dict[str, Any]) -> list[Table]:
    lines = _by_line(found)
    counts = sorted({count for rows in lines.values() for count, _, _ in rows})
    cells = {name: {count: f"{bpd:.4f} ± {width:.4f}" for count, bpd, width in rows} for name, rows in lines.items()}
    rows = [(name, *(of_line.get(count, "") for count in counts)) for name, of_line in cells.items()]
    return [
        Table(
            "The same in numbers, bits/dim with the 95% Monte Carlo error",
            ("kernel, grid", *(f"T = {count}" for count in counts)),
            rows,
        )
    ]
