# SPDX-License-Identifier: Apache-2.0
"""Warnings and curves of training: terms of the loss, test bound, gradient, throughput, and what else was logged."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vdmkit.page._averaged import AVERAGED, HALF_WIDTH, averaged
from vdmkit.page._blocks import Block, Chart, Command, Section, Table, Words, section
from vdmkit.page._figures import COLOURS, STYLES, chart
from vdmkit.page._shown import Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = tuple[str, np.ndarray, np.ndarray]
Metrics = dict[str, tuple[np.ndarray, np.ndarray]]
_INTERVAL = ("test/bpd_low", "test/bpd_high")  # of the last evaluation, one point
_UNTRAINED = "train/untrained"  # one point, too
_OF_DRAWS = "test/bpd_of_"
_WORDS = {
    "train/gradient": "norm of the gradient",
    "steps_per_second": "steps per second",
    "learning_rate": "learning rate",
}
_TOTALS = ("train/bpd", "train/loss")
_TERMS = ("train/prior", "train/reconstruction", "train/diffusion")
_FEW, _FAR = 20, 30
_MOST = 40  # curves; vdmkit logs about 15, and each takes a tenth of a second


def training(shown: Shown) -> list[Section]:
    """Returns the section on training; of an imported model that was not trained here it says how to train on."""
    if not shown.files.metrics:
        recipe = str(shown.files.path / "resolved.toml")
        asked = Command(
            "No step of training is logged here. This trains on:", shown.command("run", recipe, "--out", "RUN")
        )
        return section("Training", [asked])
    once, often = _by_number(_logged(shown))
    drawn, rest = dict(list(often.items())[:_MOST]), list(often)[_MOST:]
    more = [Words(f"{len(rest)} more metrics are not drawn. Their values are below.")] if rest else []
    return section("Training", [*_warnings(shown), *_charts(shown, drawn), *more, *_table(once), *averaged(shown)])


def _warnings(shown: Shown) -> Iterator[Block]:
    found = shown.files.json("health.json")
    if found is None:  # nobody watched
        return
    for one in found["findings"]:
        yield Words(f"Warning at step {one['step']:,}: {one['message']}", marked=True)
    if not found["findings"]:
        yield Words("The training was watched, and no sign of trouble was found.")


def _logged(shown: Shown) -> Metrics:
    hidden = *_INTERVAL, AVERAGED, HALF_WIDTH, _UNTRAINED
    found = shown.files.metrics
    return {name: found[name] for name in found if name not in hidden and not name.startswith("health/")}


def _by_number(metrics: Metrics) -> tuple[Metrics, Metrics]:
    """Returns metrics of which all points are at one step, and the others; the test bound belongs to the loss."""
    steps = {name: len(of_name) for name, (of_name, _) in metrics.items()}
    trained = any(steps.get(name, 0) > 1 for name in _TOTALS)
    once = {name: metrics[name] for name in metrics if steps[name] == 1 and not (trained and name.startswith("test/"))}
    return once, {name: metrics[name] for name in metrics if name not in once}


def _table(once: Metrics) -> list[Table]:
    rows = [(name, f"{steps[0]:,}", f"{values[0]:.4g}") for name, (steps, values) in once.items()]
    return [Table("Logged at one step", ("metric", "step", "value"), rows)] if rows else []


def _charts(shown: Shown, metrics: Metrics) -> Iterator[Chart]:
    groups = {
        "Training loss and test bound": [name for name in metrics if name in _TOTALS or name.startswith("test/")],
        "Terms of the training loss": [name for name in metrics if name in _TERMS],
        "Ends of the schedule": [name for name in metrics if name.startswith("schedule/gamma_")],
    }
    units, notes = ("bits/dim", "bits/dim", "gamma"), (_about_losses(shown), "", "")
    for (title, names), unit, note in zip(groups.items(), units, notes, strict=True):
        if names:
            yield curves([(name, *metrics[name]) for name in names], title, unit, note)
    grouped = {name for names in groups.values() for name in names}
    for name in (name for name in metrics if name not in grouped):
        words = _WORDS.get(name, name)
        yield curves([(words, *metrics[name])], words[0].upper() + words[1:], words)


def _about_losses(shown: Shown) -> str:
    metrics, words = shown.files.metrics, ""
    if _UNTRAINED in metrics:
        words += f" Before the first update the loss was {metrics[_UNTRAINED][1][0]:.4g}."
    if few := [name for name in metrics if name.startswith(_OF_DRAWS)]:
        words += f" {few[0]} has the same few draws of noise at every step: trust its course more than its level."
    return words


def curves(found: Sequence[Curve], title: str, y: str, note: str = "") -> Chart:
    """Returns a chart of curves over the steps of training, with a note below; curves of few points have markers.

    The vertical axis is logarithmic if the values are positive and their means differ by a factor of 30 or more.
    """

    def draw(axes: "Axes") -> None:
        for number, (name, steps, values) in enumerate(found):
            style = {"color": COLOURS[number % len(COLOURS)], "linestyle": STYLES[number % len(STYLES)]}
            axes.plot(steps, values, label=name, marker="o" if len(steps) < _FEW else "", markersize=3, **style)
        means = [values.mean() for _, _, values in found]
        if min(values.min() for _, _, values in found) > 0 and max(means) > _FAR * min(means):
            axes.set_yscale("log")

    told = [
        f"{name} from {values[0]:.4g} at step {steps[0]:,} to {values[-1]:.4g} at step {steps[-1]:,}"
        for name, steps, values in found
    ]
    ends = ", ".join(f"{name} {values[-1]:.4g}" if len(found) > 1 else f"{values[-1]:.4g}" for name, _, values in found)
    alt, caption = f"Curves over training steps: {'; '.join(told)}.", f"{title}; at the end {ends}.{note}"
    return chart(draw, alt=alt, caption=caption, x="step", y=y)
