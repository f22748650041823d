# SPDX-License-Identifier: Apache-2.0
"""The sections of a run's page, each a function that yields blocks, in the order of the page."""

import itertools
import math
import operator
import os
import re
import shlex
import tomllib
import warnings
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from vdmkit.data.folder import read_image
from vdmkit.errors import DamageWarning, DataError
from vdmkit.io import check_at_most, has_sha256
from vdmkit.recipes.validation import toml_text
from vdmkit.report.blocks import Chart, Command, Number, PageBlock, Paragraph, Picture, Table, Text
from vdmkit.report.charts import COLOURS, STYLES, grid, svg_chart, without_formulas
from vdmkit.report.run_contents import Result, RunContents, Samples, best_pairs, count_values

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# The number: its errors, reasons not to trust it, its terms.


def likelihood(run: RunContents) -> Iterator[PageBlock]:
    """Yields a run's likelihood, reasons not to trust it, what it was measured on, and all measured likelihoods."""
    report, reasons = run.report, list(reasons_not_to_trust(run))
    if report is None:
        words = "No likelihood was measured yet. This measures the bound:"
        yield Command(words, run.command("evaluate", "--ckpt", "RUN"))
    else:
        errors = [
            (f"± {report['half_width_monte_carlo']:.4f}", "Monte Carlo, 95%: what more draws would change"),
            (test_set_error(report), "test set, 95%: what other images would change"),
        ]
        if report["discretisation"] is not None:
            errors.append((f"{report['discretisation']:+.5f}", "solver, by a finer solve of a few images"))
        unit = "bits/dim" if report["levels"] else "bits/dim of a density"
        yield Number(f"{report['bpd']:.4f}", unit, errors)
    yield from (Paragraph(reason, warning=True) for reason in reasons)
    if report is None:
        return
    if not reasons:
        yield Paragraph("No reason is known not to trust this number: its images are held out; no check has failed.")
    some = report["images"] < report["images_in_test_set"]
    images = f"{report['images']:,} of {report['images_in_test_set']:,}" if some else f"all {report['images']:,}"
    rows = [
        ("terms, bits/dim", " + ".join(f"{name} {value:.4f}" for name, value in report["terms"].items())),
        ("estimator", report["estimator"]),
        ("images", f"{images} of {report['dataset']}, {report['published'] or 'not a published data set'}"),
        ("SHA-256 of the images", report["sha256"]),
        ("network", f"{report['evaluations']:,} evaluations, {report['evaluations_per_image']:g} an image"),
        ("model", f"step {report['step']:,}, {report['weights']} weights, seed {report['seed']}"),
        ("arithmetic", _arithmetic(report)),
    ]
    known = {"exact": "truth on these images", "exact_bound": "bound, from infinitely many draws"}
    rows += [(words, f"{report[name]:.4f}") for name, words in known.items() if report[name] is not None]
    yield Table("What the number is of", (), rows)
    yield from _all_likelihoods(run)


def _all_likelihoods(run: RunContents) -> Iterator[PageBlock]:
    named = [("evaluation", run.json("evaluation.json")), *((one.name, one.report) for one in run.likelihoods)]
    named = [(name, report) for name, report in named if report]
    rows = []
    for name, report in named:
        label = "" if report["label"] is None else f" given label {report['label']}"
        images = f"{report['images']:,} of {report['dataset']}{label}"
        how = report["estimator"], report["weights"], f"{report['step']:,}"
        rows.append((name, plus_minus(report), test_set_error(report), images, *how))
    if len(named) > 1:
        untrusted = frozenset(number for number, (_, report) in enumerate(named) if not report["trusted"])
        columns = ("result", "bits/dim", "test set", "images", "estimator", "weights", "step")
        yield Table("All measured likelihoods; ± is the 95% error on these images", columns, rows, untrusted)


def reasons_not_to_trust(run: RunContents) -> Iterator[str]:
    """Yields every reason not to trust a run's number, in sentences."""
    report, audit = run.report, run.json("audit.json") or {"checks": []}
    if run.reason:
        yield f"This run could not be loaded, so its schedule and samples are missing here: {run.reason}"
    if report is not None:
        if not report["trusted"]:
            yield "NOT A LIKELIHOOD."
        yield from report["reasons"]
        if report["held_out"] is False:
            yield "NOT A TEST LIKELIHOOD: some of these images are copies or near copies of training images."
        if report["held_out"] is None:
            yield "It is not known which images this model was trained on."
        if report["images"] < report["images_in_test_set"]:
            yield f"Only {report['images']:,} of the {report['images_in_test_set']:,} test images were measured."
        if report["distinct_images"] < report["images"]:
            yield f"Of the {report['images']:,} images {report['distinct_images']:,} are distinct."
        yield from report["remarks"]
    if failed := [check["claim"] for check in audit["checks"] if check["verdict"] == "fails"]:
        yield f"The audit failed: {'; '.join(failed)}."
    if run.preview is None:
        return
    step, wanted = run.preview.step, run.recipe["training.steps"]
    if report is not None and report["step"] != step:
        yield f"The number is that of step {report['step']:,}, and the newest checkpoint that of step {step:,}."
    if step < wanted and not run.manifest["imported"]:
        yield f"Training has not ended: step {step:,} of {wanted:,}."


def plus_minus(report: dict[str, Any]) -> str:
    """Returns bits/dim with the Monte Carlo error and the solver's error."""
    return f"{report['bpd']:.4f} ± {(report['bpd_high'] - report['bpd_low']) / 2:.4f}"


def test_set_error(report: dict[str, Any]) -> str:
    """Returns the error of the finite test set."""
    width = report["half_width_test_set"]
    return "hidden by Monte Carlo" if width is None else f"± {width:.4f}"


def _arithmetic(of: dict[str, Any]) -> str:
    return f"{of['precision']}, matrix products {of['matmul_precision']}, {of['device']}"


def terms(run: RunContents) -> Iterator[PageBlock]:
    """Yields the terms of a run's number."""
    if run.report is not None:
        yield from bars_of_terms([(run.name, run.report)])


def bars_of_terms(named: Sequence[tuple[str, dict[str, Any]]]) -> Iterator[PageBlock]:
    """Yields bars of several numbers, and of published ones with the data and estimator of the first number."""
    report = named[0][1]
    rows = published(report)
    labels = [*(name for name, _ in named), *(row["model"] for row in rows)]

    def draw(axes: "Axes") -> None:
        def label(x: float, y: int, text: str) -> None:
            axes.annotate(text, (x, y), (4, 0), textcoords="offset points", va="center")

        names = dict.fromkeys(term for _, report in named for term in report["terms"])
        for number, (_, report) in enumerate(named):
            left = 0.0
            for term, colour in zip(names, COLOURS, strict=False):
                value = report["terms"].get(term, 0.0)
                words = f"{term} {value:.4f}" if len(named) == 1 else term
                axes.barh(number, value, 0.6, left=left, color=colour, label=words if number == 0 else None)
                left += value
            label(left, number, f"{report['bpd']:.4f}")
        for number, row in enumerate(rows, len(named)):
            axes.barh(number, row["bpd"], 0.6, color="none", edgecolor=COLOURS[5], hatch="///")
            label(row["bpd"], number, f"{row['bpd']:.2f}")
        axes.set_yticks(range(len(labels)), map(without_formulas, labels))
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
        axes.grid(visible=False, axis="y")

    bars = [f"{name}: {' + '.join(f'{term} {value:.4f}' for term, value in of['terms'].items())}" for name, of in named]
    bars += [f"{row['model']}: {row['bpd']:.2f}, published" for row in rows]
    errors = ", ".join(f"{name} {test_set_error(of)}" if len(named) > 1 else test_set_error(of) for name, of in named)
    alt = f"Bars of bits per dimension. {'; '.join(bars)}."
    caption = f"Terms of the bound, bits/dim; error of the test set: {errors}." + " Hatched: published." * bool(rows)
    yield Chart(svg_chart(draw, alt=alt, x="bits/dim", y="", height=0.5 + 0.1 * len(labels)), caption)
    same = f"{report['published'] or report['dataset']} by the same estimator ({report['estimator']})"
    if rows:
        cells = [(row["model"], f"{row['bpd']:.2f}", row["source"]) for row in rows]
        yield Table(f"Published for {same}", ("model", "bits/dim", "source"), cells)
    else:
        yield Paragraph(f"vdmkit has no published figure for {same}; others do not compare.")


def published(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the published figures of the same version of the data, split and estimator as a report."""
    rows = tomllib.loads((files("vdmkit.report") / "published.toml").read_text())["figures"]
    of_data = [row for row in rows if all(report[key] == row[key] for key in ("published", "dataset"))]
    return [row for row in of_data if re.fullmatch(row["estimator"], report["estimator"])]


# Training: warnings, curves, and averaged against raw parameters.

AVERAGED, AVERAGED_ERROR = "test/ema_minus_raw", "test/ema_minus_raw_half_width"
MOST_CURVES = 40  # vdmkit logs about 15, and each takes a tenth of a second
_UNTRAINED, _OF_DRAWS, TOTALS = "train/untrained", "test/bpd_of_", ("train/bpd", "train/loss")
_HIDDEN = ("test/bpd_low", "test/bpd_high", AVERAGED, AVERAGED_ERROR, _UNTRAINED)
_TERMS = ("train/prior", "train/reconstruction", "train/diffusion")
_WORDS = {
    "train/gradient": "norm of the gradient",
    "steps_per_second": "steps per second",
    "learning_rate": "learning rate",
}
_FEW_POINTS, _FAR_APART = 20, 30


def training(run: RunContents) -> Iterator[PageBlock]:
    """Yields warnings and curves of training; of an imported model that was not trained, how to train it."""
    if not run.metrics:
        words, recipe = "No step of training is logged here. This trains on:", str(run.path / "resolved.toml")
        yield Command(words, run.command("run", recipe, "--out", "RUN"))
        return
    if (health := run.json("health.json")) is not None:
        for one in health["findings"]:
            yield Paragraph(f"Warning at step {one['step']:,}: {one['message']}", warning=True)
        if not health["findings"]:
            yield Paragraph("The training was watched, and no sign of trouble was found.")
    metrics = {name: of for name, of in run.metrics.items() if name not in _HIDDEN and not name.startswith("health/")}
    trained = any(len(metrics[name][0]) > 1 for name in TOTALS if name in metrics)  # its chart has the test bound
    once = [name for name in metrics if len(metrics[name][0]) == 1 and not (trained and name.startswith("test/"))]
    often = [name for name in metrics if name not in once]
    drawn, rest = often[:MOST_CURVES], often[MOST_CURVES:]
    note = ""
    if _UNTRAINED in run.metrics:
        note += f" Before the first update the loss was {run.metrics[_UNTRAINED][1][0]:.4g}."
    if few := [name for name in run.metrics if name.startswith(_OF_DRAWS)]:
        note += f" {few[0]} has the same few draws of noise at every step: trust its course more than its level."
    groups = {
        ("Training loss and test bound", "bits/dim", note): lambda name: name in TOTALS or name.startswith("test/"),
        ("Terms of the training loss", "bits/dim", ""): lambda name: name in _TERMS,
        ("Ends of the schedule", "gamma", ""): lambda name: name.startswith("schedule/gamma_"),
    }
    for (title, unit, below), belongs in groups.items():
        if names := [name for name in drawn if belongs(name)]:
            yield training_curves([(name, *metrics[name]) for name in names], title, unit, below)
            drawn = [name for name in drawn if name not in names]
    for name in drawn:
        words = _WORDS.get(name, name)
        yield training_curves([(words, *metrics[name])], words[0].upper() + words[1:], words)
    if rest:
        yield Paragraph(f"{len(rest)} more metrics are not drawn. Their values are below.")
    if once:
        rows = [(name, f"{metrics[name][0][0]:,}", f"{metrics[name][1][0]:.4g}") for name in once]
        yield Table("Logged at one step", ("metric", "step", "value"), rows)
    yield from _averaged(run)


def training_curves(found: Sequence[tuple[str, np.ndarray, np.ndarray]], title: str, y: str, note: str = "") -> Chart:
    """Returns a chart of (name, steps, values), with a note below; curves of few points have markers.

    The vertical axis is logarithmic if the values are positive and their means differ by a factor of 30 or more.
    """

    def draw(axes: "Axes") -> None:
        for number, (name, steps, values) in enumerate(found):
            style = {"color": COLOURS[number % len(COLOURS)], "linestyle": STYLES[number % len(STYLES)]}
            marker = "o" if len(steps) < _FEW_POINTS else ""
            axes.plot(steps, values, label=name, marker=marker, markersize=3, **style)
        means = [values.mean() for _, _, values in found]
        if min(values.min() for _, _, values in found) > 0 and max(means) > _FAR_APART * min(means):
            axes.set_yscale("log")

    courses = "; ".join(
        f"{name} from {values[0]:.4g} at step {steps[0]:,} to {values[-1]:.4g} at step {steps[-1]:,}"
        for name, steps, values in found
    )
    ends = ", ".join(f"{name} {values[-1]:.4g}" if len(found) > 1 else f"{values[-1]:.4g}" for name, _, values in found)
    svg = svg_chart(draw, alt=f"Curves over training steps: {courses}.", x="step", y=y)
    return Chart(svg, f"{title}; at the end {ends}.{note}")


def _averaged(run: RunContents) -> Iterator[PageBlock]:
    """Yields the bits/dim of averaged minus raw parameters, as logged and as measured, or how to measure it."""
    if {AVERAGED, AVERAGED_ERROR} <= run.metrics.keys():
        (steps, values), (_, errors) = run.metrics[AVERAGED], run.metrics[AVERAGED_ERROR]

        def draw(axes: "Axes") -> None:
            axes.axhline(0, color=COLOURS[5], linewidth=0.8)
            axes.errorbar(steps, values, errors, color=COLOURS[0], marker="o", markersize=3, capsize=2)

        end = f"{values[-1]:+.4f} ± {errors[-1]:.4f} at step {steps[-1]:,}"
        caption = f"Averaged minus raw parameters on some test images, below 0 the average is better; {end}."
        alt = f"Averaged minus raw parameters over training steps, bits per dimension: from {values[0]:+.4f} to {end}."
        yield Chart(svg_chart(draw, alt=alt, x="step", y="bits/dim"), caption) if len(steps) > 1 else Paragraph(caption)

    def at_same_step(pair: tuple[Result, Result]) -> bool:
        one, other = (result.report for result in pair)
        return (one["weights"], other["weights"]) == ("ema", "raw") and one["step"] == other["step"]

    found = best_pairs(filter(at_same_step, itertools.permutations(run.likelihoods, 2)), run.dimensions)
    for one, _, difference in found:
        on_these = difference.half_width_monte_carlo + difference.half_width_solver
        yield Paragraph(
            f"Averaged minus raw parameters at step {one.report['step']:,}: {difference.value:+.4f} ± {on_these:.4f} "
            f"bits/dim on these {one.report['images']:,} images, ± {difference.half_width:.4f} on others "
            f"({one.report['estimator']})."
        )
    if not found:
        words = "This measures the averaged parameters against the raw ones, on the same images with the same draws:"
        yield Command(words, run.command("compare", "RUN", "RUN", "--second-set", "likelihood.weights=raw"))


# The schedule, and the last study of schedules and steps.

_STUDY = "schedule/schedule.json"
_MOST_LINES = 200  # of kernels and grids; vdmkit has about 20


def schedule(run: RunContents) -> Iterator[PageBlock]:
    """Yields the noise schedule and its derivative."""
    if run.preview is None:
        return
    t, gamma, slope = run.preview.schedule
    about = f"gamma from {gamma[0]:.4f} at t = 0 to {gamma[-1]:.4f} at t = 1"

    def draw_slope(axes: "Axes") -> None:
        axes.plot(t, slope, color=COLOURS[1])
        axes.set_ylim(0, 1.1 * slope.max())

    svg = svg_chart(lambda axes: axes.plot(t, gamma, color=COLOURS[0]), alt=f"Curve of {about}.", x="t", y="gamma(t)")
    yield Chart(svg, f"The schedule: {about}; gamma is minus the log-SNR.")
    alt = f"Curve of the derivative of gamma, from {slope.min():.4g} to {slope.max():.4g}."
    caption = "Its derivative. Noise levels are drawn with density 1 / gamma'(t) in gamma."
    yield Chart(svg_chart(draw_slope, alt=alt, x="t", y="d gamma / dt"), caption)


def loss_along_gamma(run: RunContents) -> Iterator[PageBlock]:
    """Yields the loss and the density of noise levels along gamma, and the variances of schedules."""
    study = run.json(_STUDY)
    if study is None:
        words = "Not measured yet: the loss along gamma, and bounds of few steps. This measures them:"
        yield Command(words, run.command("study", "--ckpt", "RUN"))
        return
    for name, sha256 in study.get("files", {}).items():
        path = run.path / "schedule" / name
        if not has_sha256(path, sha256):
            warnings.warn(f"{path}: changed or missing. Run the study again.", DamageWarning, stacklevel=2)
    names = ("gamma", "squared_error", "squared_error_standard_error")
    gamma, error, standard_error = (np.array(study["curve"][name]) for name in names)
    scale = 1 / (2 * math.log(2) * run.dimensions)  # dL / d gamma = E |eps - eps_hat|^2 / 2, in bits/dim
    loss = scale * error
    own = next(row for row in study["variances"] if row["schedule"] == "this run's")
    density = np.array(own["density"], float)

    def draw_loss(axes: "Axes") -> None:
        axes.errorbar(
            gamma, loss, 1.96 * scale * standard_error, color=COLOURS[0], linewidth=1, marker="o", markersize=2.5
        )
        axes.set_ylim(bottom=0)

    def draw_density(axes: "Axes") -> None:
        axes.fill_between(gamma, density, color=COLOURS[2], alpha=0.4)
        axes.plot(gamma, density, color=COLOURS[2])
        axes.set_ylim(0, 1.15 * np.nanmax(density))

    ends, top = f"from gamma = {gamma[0]:.2f} to {gamma[-1]:.2f}", gamma[np.argmax(error)]
    alt = f"Diffusion loss for each unit of gamma {ends}, with 95% errors; at most {loss.max():.4f}, at {top:.2f}."
    caption = (
        f"The diffusion loss at each noise level, with its 95% error over {study['images']:,} test images. "
        "The area below it is the diffusion term."
    )
    yield Chart(svg_chart(draw_loss, alt=alt, x="gamma = -log SNR", y="bits/dim for a unit of gamma"), caption)
    alt = f"Density of the noise levels that are drawn, from {np.nanmin(density):.4f} to {np.nanmax(density):.4f}."
    caption = (
        "Where the schedule draws: the density of gamma for uniform t. The variance is least if it follows "
        "the root of the loss's second moment."
    )
    yield Chart(svg_chart(draw_density, alt=alt, x="gamma = -log SNR", y="density"), caption)
    caption = "Variance of the bound's estimate from one image, t and eps, (bits/dim)², for schedules with these ends"
    rows = [
        (row["schedule"], f"{row['variance']:.4f}", f"{row['low']:.4f} to {row['high']:.4f}")
        for row in study["variances"]
    ]
    marked = frozenset({study["variances"].index(own)})
    yield Table(caption, ("schedule", "variance", "95% interval"), rows, marked)


def bounds_of_steps(run: RunContents) -> Iterator[PageBlock]:
    """Yields the T-step bounds of the last study, by kernel and grid, minus the bound in continuous time."""
    study = run.json(_STUDY)
    if study is None:
        return
    continuous = study["continuous"]
    lines: dict[tuple[str, str], dict[int, tuple[float, float]]] = {}
    for row in study["steps"]:
        line = lines.setdefault((row["kernel"], row["grid"]), {})
        line[len(row["gammas"]) - 1] = row["bpd"], row["half_width"]
    check_at_most(_MOST_LINES, len(lines), "lines in a chart")
    kernels, grids = (list(dict.fromkeys(line[i] for line in lines)) for i in (0, 1))

    def draw(axes: "Axes") -> None:
        for (kernel, steps), line in lines.items():
            bounds, widths = np.array(list(line.values())).T
            style = {"color": COLOURS[kernels.index(kernel) % 6], "linestyle": STYLES[grids.index(steps) % 6]}
            style |= {"linewidth": 1.2, "marker": "o", "markersize": 2.5}
            axes.errorbar(list(line), bounds - continuous, widths, label=f"{kernel}, {steps}", **style)
        above = [bound - continuous for line in lines.values() for bound, _ in line.values() if bound > continuous]
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(bottom=min(above, default=1.0) / 3)

    ends = "; ".join(
        f"{', '.join(names)}: {list(line.values())[-1][0]:.4f} at T = {list(line)[-1]}" for names, line in lines.items()
    )
    about = f"the bound in continuous time, {continuous:.4f} ± {study['half_width']:.4f}"
    alt = f"Bounds against T minus {about}, on logarithmic axes. {ends}."
    caption = f"Bounds of T steps by kernel and grid, minus {about}. What is not above it is in the table only."
    y = "bits/dim above continuous time"
    yield Chart(svg_chart(draw, alt=alt, x="steps T", y=y, height=1.5), caption)
    counts = sorted({count for line in lines.values() for count in line})
    cells = [
        ["{:.4f} ± {:.4f}".format(*line[count]) if count in line else "" for count in counts] for line in lines.values()
    ]
    rows = [(*names, *of_line) for names, of_line in zip(lines, cells, strict=True)]
    columns = ("kernel", "grid", *(f"T = {count}" for count in counts))
    yield Table("Bounds of T steps, bits/dim with the 95% Monte Carlo error", columns, rows)


# Images: test images by their bits/dim, and samples.

_EXTREMES = 16
_WIDTH, _HEIGHT = 520, 140  # largest size of rows of images, in CSS pixels; few steps make a short row


def images(run: RunContents) -> Iterator[PageBlock]:
    """Yields the histogram of bits/dim, and the test images with the most and the fewest bits/dim."""
    result = next((one for one in run.likelihoods if "nats" in one.arrays), None)
    if result is None:
        words = "Not kept yet for each image. This measures them:"
        yield Command(words, run.command("likelihood", "--ckpt", "RUN"))
        return
    from matplotlib.ticker import MaxNLocator

    bits = result.arrays["nats"] / (math.log(2) * run.dimensions)

    def draw(axes: "Axes") -> None:
        axes.hist(bits, bins=min(40, max(5, len(bits) // 8)), color=COLOURS[0])
        axes.axvline(bits.mean(), color=COLOURS[1], linestyle="--")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))

    low, middle, high = np.quantile(bits, (0.05, 0.5, 0.95))
    about = (
        f"{len(bits):,} images from {bits.min():.4f} to {bits.max():.4f}, median {middle:.4f}, mean {bits.mean():.4f}"
    )
    caption = f"{about} (dashed); nine in ten from {low:.4f} to {high:.4f}. By {result.report['estimator']}."
    svg = svg_chart(draw, alt=f"Histogram of bits per dimension of {about}.", x="bits/dim", y="images")
    yield Chart(svg, caption)
    test = run.preview and run.preview.test
    if test is None:
        return
    if test.identity.sha256 != result.report["sha256"]:
        yield Paragraph("The images of this result are not those of the recipe, so none of them are shown.")
        return
    order, few = np.argsort(bits), min(_EXTREMES, len(bits) // 2)
    extremes = {"fewest": order[:few], "most": order[: -few - 1 : -1]} if few else {}
    for words, some in extremes.items():
        picture = grid(test.pixels[result.arrays["index"][some]], test.levels)
        ends = f"from {bits[some[0]]:.4f} to {bits[some[-1]]:.4f}"
        about = f"The {few} images with the {words} bits/dim, row by row {ends}."
        yield Picture(picture, about, about, max(1, 280 // picture.shape[1]))


def samples(run: RunContents) -> Iterator[PageBlock]:
    """Yields samples above the nearest training images, one chain from noise to an image, and samples.png."""
    if run.preview and (found := run.preview.samples):
        yield from _samples(found, run.preview.levels)
        yield Paragraph(f"The first {len(found.images)} samples of the recipe's seed, by {found.how}.")
        again = ("-n", str(len(found.images)), "--steps", str(found.steps))
        yield Command("They are drawn again by", run.command("sample", "--ckpt", "RUN", *again))
    for reason in run.preview.reasons if run.preview else ():
        yield Paragraph(f"Not everything could be shown: {reason}", warning=True)
    path = run.path / "samples.png"
    if os.path.lexists(path):
        words = "Samples of the end of training, on the left, and real images, on the right (samples.png)."
        try:
            yield Picture(read_image(path), words, words)
        except DataError as error:
            yield Paragraph(f"Not shown: {error}", warning=True)


def _samples(found: Samples, levels: int) -> Iterator[Picture]:
    count = len(found.images)
    if found.nearest is None or found.distance is None:
        yield _rows([(found.images, levels)], f"{count} samples in a row.", "Samples.")
    else:
        unit, distances = "levels" if levels else "units of data", ", ".join(f"{one:.3g}" for one in found.distance)
        among = "training image" if found.every == 1 else f"of one in {found.every} training images"
        yield _rows(
            [(found.images, levels), (found.nearest, levels)],
            f"{count} samples in a row, and below each the nearest {among}.",
            f"Samples, and below each the nearest {among}; root mean square differences in {unit}: {distances}.",
        )
    gammas, latents, estimates = zip(*found.chain, strict=True)
    at = ", ".join(f"{gamma:.2f}" for gamma in gammas)
    yield _rows(
        [(np.clip(np.stack(part), -1, 1), 0) for part in (latents, estimates)],
        "Latents of one chain from noise to an image in a row, and below each the model's estimate of the image.",
        f"The chain of the first sample: z above, x_hat(z) below, both clipped to [-1, 1], at gamma = {at}.",
    )


def _rows(rows: Sequence[tuple[np.ndarray, int]], alt: str, caption: str) -> Picture:
    """Returns rows of images with white gaps; each row has its number of levels, 0 for images in [-1, 1]."""
    parts = []
    for images, levels in rows:
        tiles = [np.pad(grid(one[None], levels), ((0, 4), (0, 2), (0, 0)), constant_values=255) for one in images]
        parts.append(np.concatenate(tiles, axis=1)[:, :-2])
    picture = np.concatenate(parts)[:-4]
    return Picture(picture, alt, caption, min(_WIDTH / picture.shape[1], _HEIGHT / picture.shape[0]))


# The last audit, and compressed files.


def audit(run: RunContents) -> Iterator[PageBlock]:
    """Yields the table of the last audit, or how to run one."""
    found = run.json("audit.json")
    if found is None:
        words = "Not audited yet. This runs all estimators on the same images, and checks their relations:"
        yield Command(words, run.command("likelihood", "--ckpt", "RUN", "--audit"))
        return

    def number(value: float | None, sign: str = "") -> str:
        return "not finite" if value is None else f"{value + 0:{sign}.5f}"

    rows, checks = [], found["checks"]
    for check in checks:
        low, high = check["low"], check["high"]
        if low is None or high is None:  # infinite
            allowed = f"above {low:g}" if high is None else f"below {high:g}"
        else:
            allowed = f"{low + 0:g} to {high:g}"
        width = number(check["half_width"]) if check["half_width"] != 0 else "exact"
        rows.append((check["claim"], check["verdict"], number(check["difference"], "+"), width, allowed))
    verdicts = [check["verdict"] for check in checks]
    failed = frozenset(number for number, verdict in enumerate(verdicts) if verdict == "fails")
    passed = verdicts.count("passes")
    rest = "; of the others too little is known" if passed + len(failed) < len(checks) else ""
    words = f"{passed} of {len(checks)} checks pass and {len(failed)} fail{rest}. Measured in {_arithmetic(found)}."
    yield Paragraph(words, warning=bool(failed))
    columns = ("claim", "verdict", "difference", "95%", "allowed")
    yield Table("Differences in bits/dim, unless stated", columns, rows, failed)


def coding(run: RunContents) -> Iterator[PageBlock]:
    """Yields bytes of compressed files and the bound, from inspections of .vdmz files that are in the run folder."""
    found, report, rows = map(run.json, run.texts), run.report, []
    for one in found:
        if isinstance(one, dict) and one.keys() >= {"file", "images", "chunks", "header", "bytes"} and one["images"]:
            size, header = sum(one["bytes"].values()), one["header"]
            rate = 8 * size / (operator.index(one["images"]) * count_values(header["shape"]))
            how = f"T = {len(header['gammas']) - 1}, {header['kernel']}"
            bound = f"{report['bpd']:.4f}, {report['estimator']}" if report else ""
            rows.append([one["file"], f"{one['images']:,}", how, f"{size:,}", f"{rate:.4f}", bound])
    if rows:
        columns = ("file", "images", "steps and kernel", "bytes", "bits/dim", "bound, bits/dim")
        yield Table("Sizes of compressed files, and the run's bound", columns, rows)


# Inputs of the run, and how to reproduce it.


def recipe(run: RunContents) -> Iterator[PageBlock]:
    """Yields the resolved recipe, in which keys that differ from the defaults are marked, and the given recipe."""
    if run.preview:
        yield Paragraph("Marked: keys that differ from vdmkit's defaults, or have none.")
    else:
        yield Paragraph("Which keys are defaults is not known without the model.")
    changed = run.preview.changed if run.preview else ()
    marked = frozenset(number for number, key in enumerate(run.recipe) if key in changed)
    rows = [(key, toml_text(value)) for key, value in run.recipe.items()]
    yield Table("The resolved recipe (resolved.toml)", ("key", "value"), rows, marked)
    if given := run.given_recipe:
        yield Text("recipe.toml, as it was given", given)


def manifest(run: RunContents) -> Iterator[PageBlock]:
    """Yields data, plugins, versions and sessions."""
    found, newest = run.manifest, run.manifest["newest_checkpoint"]
    rows = [("images", f"{' x '.join(map(str, found['shape']))}, {found['levels'] or 'no'} levels")]
    for split, data in (found["data"] or {}).items():
        known = data["published"] or "not a published data set"
        about = f"{data['name']}, {data['count']:,} images, {known}, SHA-256 {data['sha256']}"
        rows.append((f"{split} images", about))
    if found["imported"]:
        rows.append(("imported file", f"SHA-256 {found['imported']}"))
    rows += [(f"plugin file {name}", f"SHA-256 {sha256}") for name, sha256 in found["plugins"].items()]
    rows.append(("newest checkpoint", "none" if newest is None else f"step {newest:,}"))
    yield Table("The run", (), rows)
    sessions = [
        (
            f"{one['from_step']:,} to {one['goal_step']:,}",
            f"vdmkit {one['vdmkit']}, git {one['git'] or 'unknown'}, Python {one['python']}, {one['device']}",
            ", ".join(f"{name} {version}" for name, version in one["packages"].items()),
            shlex.join(one["command"]),
        )
        for one in found["sessions"]
    ]
    if sessions:
        yield Table("Sessions", ("steps", "software and device", "packages", "command"), sessions)


def commands(run: RunContents) -> Iterator[Command]:
    """Yields the commands that reproduce the numbers of a page."""

    def measure(command: str, report: dict[str, Any]) -> list[str]:
        return run.command(command, "--ckpt", "RUN", "--checkpoint-step", str(report["step"]))

    if run.metrics:
        words = "Training, in another folder, with the same numbers on the same machine and versions:"
        again = run.command("run", str(run.path / "resolved.toml"), "--out", f"{run.path}-again")
        plugins = [("--plugin", str(run.path / "plugins" / name)) for name in run.manifest["plugins"]]
        yield Command(words, [*again, *itertools.chain(*plugins)])
    if report := run.json("evaluation.json"):
        draws = round(report["evaluations_per_image"])
        settings = {"seed": report["seed"], "evaluation.draws": draws, "evaluation.weights": report["weights"]}
        changed = [("--set", f"{key}={value}") for key, value in settings.items() if run.recipe[key] != value]
        words = f"{plus_minus(report)} bits/dim (evaluation.json):"
        yield Command(words, [*measure("evaluate", report), *itertools.chain(*changed)])
    for one in run.likelihoods:
        if compared_by := one.report.get("compared_by"):  # the draws were planned for the difference from a second run
            command = shlex.split(compared_by)
        else:
            overrides = [("--set", str(text)) for text in one.arrays.get("overrides", ())]
            command = [*measure("likelihood", one.report), *itertools.chain(*overrides)]
        yield Command(f"{plus_minus(one.report)} bits/dim ({one.name}):", command)
    if run.json(_STUDY):
        yield Command("The study of schedules and steps:", run.command("study", "--ckpt", "RUN"))
    if run.json("audit.json"):
        yield Command("The audit:", run.command("likelihood", "--ckpt", "RUN", "--audit"))
    yield Command("This page:", run.command("report", "RUN", "-o", "report.html"))


def numbers(run: RunContents) -> Iterator[PageBlock]:
    """Yields every file of the run folder that holds numbers, verbatim."""
    found = []
    for name, text in run.texts.items():
        if any(match[1] for match in re.finditer(r'"(?:[^"\\]|\\.)*"|(-?\d)', text)):  # a digit outside of strings
            # A list of plain values on one line; strings hold no line breaks that this could change.
            compact = re.sub(r"\[[^][{}]*\]", lambda found: re.sub(r"\n\s*", " ", found[0]), text.strip())
            found.append(Text(name, compact))
    if metrics := run.metrics_text:
        found.append(Text("metrics.jsonl", metrics))
    if found:
        yield Paragraph("The files of the run folder from which this page was made. Numbers above are rounded.")
        yield from found
