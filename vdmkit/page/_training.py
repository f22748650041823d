# SPDX-License-Identifier: Apache-2.0
"""Curves of training: terms of the loss, test bound, gradient norm, throughput, and whatever else was logged."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vdmkit.page._blocks import Chart, Command, Section, section
from vdmkit.page._figures import COLOURS, STYLES, chart
from vdmkit.page._shown import Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = tuple[str, np.ndarray, np.ndarray]
_INTERVAL = ("test/bpd_low", "test/bpd_high")  # of the last evaluation, one point
_WORDS = {
    "train/gradient": "norm of the gradient",
    "steps_per_second": "steps per second",
    "learning_rate": "learning rate",
}
_TOTALS = ("train/bpd", "train/loss")


def training(shown: Shown) -> list[Section]:
    """Returns the section on training; an imported model that was not trained has none."""
    if not shown.files.metrics:
        asked = Command(
            "No step of training is logged here. This trains on:",
            shown.command("run", f"{shown.files.path}/resolved.toml", "--out", "RUN"),
        )
        return section("Training", [asked])
    return section("Training", _charts(shown))


def _charts(shown: Shown) -> Iterator[Chart]:
    metrics = {name: curve for name, curve in shown.files.metrics.items() if name not in _INTERVAL}
    totals = [name for name in metrics if name in _TOTALS or name.startswith("test/")]
    parts = [name for name in metrics if name in {"train/prior", "train/reconstruction", "train/diffusion"}]
    yield from _of(metrics, totals, "Training loss and test bound", "bits/dim")
    yield from _of(metrics, parts, "Terms of the training bound", "bits/dim", yscale="log")
    ends = [name for name in metrics if name.startswith("schedule/gamma_")]
    yield from _of(metrics, ends, "Ends of the schedule", "gamma")
    for name in metrics:
        if name not in (*totals, *parts, *ends):
            words = _WORDS.get(name, name)
            yield from _of(metrics, [name], words[0].upper() + words[1:], words)


def _of(metrics: dict, names: Sequence[str], title: str, y: str, **scales: str) -> Iterator[Chart]:
    found = [(name, *metrics[name]) for name in names]
    if found:
        yield curves(found, title, y, **scales)


def curves(found: Sequence[Curve], title: str, y: str, **scales: str) -> Chart:
    """Returns a chart of curves over the steps of training; single points have a marker."""

    def draw(axes: "Axes") -> None:
        for number, (name, steps, values) in enumerate(found):
            style = {"color": COLOURS[number % len(COLOURS)], "linestyle": STYLES[number % len(STYLES)]}
            axes.plot(steps, values, label=name, marker="o" if len(steps) < 20 else "", markersize=3, **style)

    told = [f"{name} from {values[0]:.4g} at step {steps[0]:,} to {values[-1]:.4g} at step {steps[-1]:,}"
            for name, steps, values in found]  # fmt: skip
    last = "; ".join(f"{name} ends at {values[-1]:.4g}" for name, _, values in found)
    return chart(
        draw,
        alt=f"Curves over training steps: {'; '.join(told)}.",
        caption=f"{title}. {last}.",
        x="step",
        y=y,
        **scales,
    )
