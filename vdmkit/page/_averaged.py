# SPDX-License-Identifier: Apache-2.0
"""The averaged parameters of a run against the raw ones: during training, and as `vdmkit compare` measured them."""

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vdmkit.page._blocks import Block, Chart, Command, Words
from vdmkit.page._figures import COLOURS, chart
from vdmkit.page._pairs import best_measured
from vdmkit.page._shown import Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AVERAGED, HALF_WIDTH = "test/ema_minus_raw", "test/ema_minus_raw_half_width"


def averaged(shown: Shown) -> Iterator[Block]:
    """Yields the curve that training logged, and the difference of what was measured, or how to measure it."""
    if {AVERAGED, HALF_WIDTH} <= shown.files.metrics.keys():
        yield _curve(shown)
    results = itertools.permutations(shown.files.likelihoods, 2)
    of_weights = [
        pair
        for pair in results
        if [one.facts["weights"] for one in pair] == ["ema", "raw"] and pair[0].facts["step"] == pair[1].facts["step"]
    ]
    found = best_measured(of_weights, shown.files.dimensions)
    for one, _, difference in found:
        on_these = difference.half_width_monte_carlo + difference.half_width_solver
        yield Words(
            f"Averaged minus raw parameters at step {one.facts['step']:,}: {difference.value:+.4f} ± {on_these:.4f} "
            f"bits/dim on these {one.facts['images']:,} images, ± {difference.half_width:.4f} on others "
            f"({one.facts['estimator']})."
        )
    if not found:
        yield Command(
            "This measures the averaged parameters against the raw ones, on the same images with the same draws:",
            shown.command("compare", "RUN", "RUN", "--second-set", "likelihood.weights=raw"),
        )


def _curve(shown: Shown) -> Chart | Words:
    (steps, values), (_, errors) = (shown.files.metrics[name] for name in (AVERAGED, HALF_WIDTH))

    def draw(axes: "Axes") -> None:
        axes.axhline(0, color=COLOURS[5], linewidth=0.8)
        axes.errorbar(steps, values, errors, color=COLOURS[0], marker="o", markersize=3, capsize=2)

    end = f"{values[-1]:+.4f} ± {errors[-1]:.4f} at step {steps[-1]:,}"
    caption = f"Averaged minus raw parameters on some test images, below 0 the average is better; {end}."
    if len(steps) == 1:
        return Words(caption)
    return chart(
        draw,
        alt=f"Averaged minus raw parameters over training steps, bits per dimension: from {values[0]:+.4f} to {end}.",
        caption=caption,
        x="step",
        y="bits/dim",
    )
