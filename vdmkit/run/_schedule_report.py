# SPDX-License-Identifier: Apache-2.0
"""A study of schedules and step grids: as text, as pictures, and as components that other commands take."""

from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from vdmkit.files import write_json, write_text
from vdmkit.report import line_chart
from vdmkit.run._schedule import Study
from vdmkit.run._step_study import Predicted

_LINES = 6  # of a chart
_MADE = {"closed form", "dynamic"}  # grids that were found; the others have names of their own


def text_of(study: Study) -> str:
    """Two tables."""
    return "\n".join(
        [
            f"{study.continuous:.4f} +/- {study.half_width:.4f} bits/dim in continuous time, {study.images} images",
            f"measured in {study.arithmetic}",
            "",
            "Variance of its estimate from one image, t and eps, (bits/dim)^2, 95% by the bootstrap over images;",
            "every schedule moved and stretched to the same ends, between which the bound is the same.",
            f"{'schedule':20} {'variance':>10}   95%",
            *(f"{v.schedule:20} {v.variance:10.4f}   {v.low:.4f} to {v.high:.4f}" for v in study.variances),
            "",
            "Bound of T steps, bits/dim, +/- 95% Monte Carlo on these images; grids found on training images.",
            *_step_tables(study.steps),
            *(f"left out: {reason}" for reason in study.left_out),
        ]
    )


def _step_tables(steps: tuple[Predicted, ...]) -> list[str]:
    lines = []
    for kernel in dict.fromkeys(row.kernel for row in steps):
        rows = [row for row in steps if row.kernel == kernel]
        grids = list(dict.fromkeys(row.grid for row in rows))
        lines.append(f"kernel {kernel:>13} " + " ".join(f"{grid:>18}" for grid in grids))
        for count in dict.fromkeys(row.count for row in rows):
            cells = {row.grid: f"{row.bpd:.4f} +/- {row.half_width:.4f}" for row in rows if row.count == count}
            lines.append(f"{f'T = {count}':>20} " + " ".join(f"{cells.get(grid, ''):>18}" for grid in grids))
    return lines


def leave(study: Study, folder: Path) -> list[str]:
    """Write everything into a folder. Names all files; those of a grid for several T as a shell does, with braces."""
    folder.mkdir(exist_ok=True)
    for grid in folder.glob("*_[0-9]*.toml"):  # of an earlier study, which measured otherwise
        grid.unlink()
    table, facts, kernel = (folder / name for name in ("schedule.txt", "schedule.json", "optimal_variance.toml"))
    write_json(facts, study.as_json())
    write_text(table, text_of(study) + "\n")
    write_text(kernel, _component("optimal_variance", study.optimal_variance))
    charts = [*_variance_chart(study, folder), *_step_chart(study, folder)]
    return [*map(str, (table, facts, *charts, kernel)), *_leave_grids(study, folder)]


def _leave_grids(study: Study, folder: Path) -> list[str]:
    counts: dict[str, list[str]] = {}
    for row in study.steps:
        if row.grid in _MADE:
            name = f"{row.kernel}_{row.grid.replace(' ', '_')}"
            write_text(folder / f"{name}_{row.count}.toml", _component("gammas", {"gammas": list(row.gammas)}))
            counts.setdefault(name, []).append(str(row.count))
    return [f"{folder / name}_{_one_of(of_grid)}.toml" for name, of_grid in counts.items()]


def _one_of(words: list[str]) -> str:
    return words[0] if len(words) == 1 else "{" + ",".join(words) + "}"


def _component(name: str, params: dict[str, Any]) -> str:
    return tomli_w.dumps({"name": name, **params})


def _variance_chart(study: Study, folder: Path) -> list[Path]:
    """Of the few schedules that vary least."""
    few = sorted(study.variances, key=lambda row: row.variance)[:_LINES]
    lines = {f"{row.schedule}: {row.variance:.3g}": (study.test.gamma, np.array(row.density, float)) for row in few}
    return line_chart(
        folder / "variance",
        lines,
        x="gamma = -log SNR",
        y="density of gamma for a uniform t",
        title="Where schedules draw, and the variance, (bits/dim)^2",
    )


def _step_chart(study: Study, folder: Path) -> list[Path]:
    lines = {}
    for row in study.steps:
        if row.grid != "closed form" and row.grid != "uniform in t":
            of_line = lines.setdefault(f"{row.kernel}, {row.grid}", ([], []))
            of_line[0].append(row.count)
            of_line[1].append(row.bpd - study.continuous)
    return line_chart(
        folder / "steps",
        lines,
        x="steps T",
        y="bits/dim above continuous time",
        title="What few steps cost",
        log=True,
    )
