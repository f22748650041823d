# SPDX-License-Identifier: Apache-2.0
"""A study of schedules and step grids as two tables."""

from vdmkit.study._predicted import Predicted
from vdmkit.study._study import Study


def text_of_study(study: Study) -> str:
    """Returns both tables."""
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
