# SPDX-License-Identifier: Apache-2.0
"""Formats a study of schedules and step grids as two tables, and as the lines of two charts."""

import numpy as np
from jaxtyping import Float

from vdmkit.study._predicted import Predicted
from vdmkit.study._study import Study

_LINES = 6  # lines in a chart
Lines = dict[str, tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]]


def text_of_study(study: Study) -> str:
    """Returns the tables of variances and of bounds."""
    return "\n".join(
        [
            study.headline,
            study.measured,
            f"measured in {study.arithmetic}",
            "",
            "Variance of its estimate from one image, t and eps, (bits/dim)^2, 95% by the bootstrap over images;",
            "every schedule mapped linearly to the same ends, between which the bound is the same.",
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


def lines_of_variances(study: Study) -> Lines:
    """Returns the density of gamma for uniform t of the schedules with least variance; keys give name and variance."""
    few = sorted(study.variances, key=lambda row: row.variance)[:_LINES]
    return {f"{row.schedule}: {row.variance:.3g}": (study.test.gamma, np.array(row.density, float)) for row in few}


def lines_of_steps(study: Study) -> Lines:
    """Returns the bounds of T steps minus that in continuous time, bits/dim, by kernel and grid."""
    points: dict[str, list[tuple[int, float]]] = {}
    for row in study.steps:
        if row.grid not in ("closed form", "uniform in t"):
            points.setdefault(f"{row.kernel}, {row.grid}", []).append((row.count, row.bpd - study.continuous))
    columns = {name: np.array(rows, float).T for name, rows in points.items()}
    return {name: (counts, excess) for name, (counts, excess) in columns.items()}
