# SPDX-License-Identifier: Apache-2.0
"""The noise schedule of a run and its derivative."""

from typing import TYPE_CHECKING

from vdmkit.page._blocks import Section, section
from vdmkit.page._figures import COLOURS, chart
from vdmkit.page._shown import Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def schedule(shown: Shown) -> list[Section]:
    """Returns the section on the schedule, which the model shows."""
    if shown.seen is None:
        return []
    t, gamma, slope = shown.seen.schedule
    about = f"gamma from {gamma[0]:.4f} at t = 0 to {gamma[-1]:.4f} at t = 1"

    def draw_gamma(axes: "Axes") -> None:
        axes.plot(t, gamma, color=COLOURS[0])

    def draw_slope(axes: "Axes") -> None:
        axes.plot(t, slope, color=COLOURS[1])
        axes.set_ylim(0, 1.1 * slope.max())

    alts = f"Curve of {about}.", f"Curve of the derivative of gamma, from {slope.min():.4g} to {slope.max():.4g}."
    captions = (
        f"The schedule: {about}; gamma is minus the log-SNR.",
        "Its derivative. Noise levels are drawn with density 1 / gamma'(t) in gamma.",
    )
    charts = [
        chart(draw, alt=alt, caption=caption, x="t", y=y)
        for draw, alt, caption, y in zip(
            (draw_gamma, draw_slope), alts, captions, ("gamma(t)", "d gamma / dt"), strict=True
        )
    ]
    return section("Noise schedule", charts)
