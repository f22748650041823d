# SPDX-License-Identifier: Apache-2.0
"""Network evaluations that a test likelihood costs: `uv run python benchmarks/likelihood.py [--ckpt runs/digits]`.

The bound of all test images in continuous time, on a run of `uv run vdmkit run digits`. Every row is one
way of estimating it. Its variance is measured, by the spread of each image's estimates under different keys: the
test set is fixed, so that differences between images do not count. The second row is how google-research/vdm
evaluates: one batch behind one uniform time. A row's

    variance     is that of the mean over images from one evaluation, (bits/dim)^2: from N evaluations it is that / N
    evaluations  are those for a 95% Monte Carlo half-width of 0.005 bits/dim, beside them those of the pilot
    planned      is the variance that the estimator's plan predicted
    us           is the CPU time of one evaluation, control variates included

and ratios, without and with the pilot, are against the first row. `--check` repeats small estimates from one plan, and
compares their spread with the one predicted, and with the intervals they report.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import chi2

from vdmkit.experiments import load_run
from vdmkit.likelihood import VariationalBound
from vdmkit.likelihood.control_variates import Controls, fit_controls
from vdmkit.likelihood.intervals import interval
from vdmkit.likelihood.log_likelihood import pass_over
from vdmkit.losses import AbstractTimeSampler, Elbo, LowDiscrepancy, Objective, Uniform, bits_per_dim
from vdmkit.model import DiffusionModel

HALF_WIDTH = 0.005
STRATA = 32  # about as many as the estimator needs for that
REPEATS = 200  # of a single evaluation
REPEATS_STRATIFIED = 6
CHECKS, CHECK_IMAGES = 200, 48
CHECK_DRAWS = (4, 16)
COLUMNS = "{:<38}{:>10}{:>8}{:>10}{:>13}{:>8}{:>8}{:>8}{:>8}"
HEADER = ("estimator", "variance", "+/- %", "planned", "evaluations", "pilot", "ratio", "with it", "us")


class SomeControls(Controls):
    """The control variates numbered `kept`; the others are nothing, and cost nothing."""

    kept: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, *args: Any, **kwargs: Any) -> jax.Array:
        values = super().__call__(*args, **kwargs)
        return jnp.stack([values[j] if j in self.kept else jnp.zeros(()) for j in range(len(values))])


@dataclass(frozen=True)
class Way:
    """A way of estimating the bound: two estimates (2, n) from a key, nats, each of `draws` evaluations an image."""

    name: str
    estimate: Callable[[jax.Array], np.ndarray]
    draws: int
    repeats: int
    of_each_image: bool = True  # whether estimates of different images are independent
    planned: float = float("nan")
    pilot: int = 0


def main() -> None:
    """Print the table, or the check."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ckpt", type=Path, default=Path("runs/digits"))
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    run = load_run(arguments.ckpt)
    model, pixels = run.weighted(run.recipe.likelihood.weights), run.recipe.data.build().load("test").pixels
    (check if arguments.check else table)(model, pixels)


def table(model: DiffusionModel, pixels: np.ndarray) -> None:
    """Measure every way."""
    print(COLUMNS.format(*HEADER))
    baseline = None
    for way in ways(model, pixels):
        variance, error, seconds = measure(way, model.dimensions)
        evaluations = variance * (1.96 / HALF_WIDTH) ** 2
        baseline = baseline or evaluations
        planned = bits_per_dim(bits_per_dim(way.planned, model.dimensions), model.dimensions)
        print(
            COLUMNS.format(
                way.name,
                f"{variance:.4f}",
                f"{100 * error / variance:.1f}",
                "" if np.isnan(planned) else f"{planned:.4f}",
                f"{evaluations:,.0f}",
                f"{way.pilot:,}" if way.pilot else "",
                f"{baseline / evaluations:.2f}",
                f"{baseline / (evaluations + way.pilot):.2f}" if way.pilot else "",
                f"{1e6 * seconds:.0f}",
            ),
            flush=True,
        )


def ways(model: DiffusionModel, pixels: np.ndarray) -> Iterator[Way]:
    """From the plainest to the estimator as it is."""
    yield single("i.i.d. times", Uniform(), model, pixels)
    yield single("times even over the images", LowDiscrepancy(), model, pixels)

    even = VariationalBound(draws=2 * STRATA)

    def stratified(key: jax.Array) -> np.ndarray:
        plan, index = even.even_plan(model), np.arange(len(pixels))
        return np.asarray(pass_over(even, model, pixels, index, plan, batch_size=len(pixels), key=key).nats)

    yield Way("times even in each image", stratified, STRATA, REPEATS_STRATIFIED)
    yield planned("  + Neyman allocation", model, pixels, ())
    yield planned("    + control |eps|^2", model, pixels, (0,))
    yield planned("    + control Gaussian", model, pixels, (1,))
    yield planned("    + control independent pixels", model, pixels, (2,))
    yield planned("    + all three: the estimator `bound`", model, pixels, (0, 1, 2))


def single(name: str, times: AbstractTimeSampler, model: DiffusionModel, pixels: np.ndarray) -> Way:
    """One evaluation an image, as in training."""
    objective, images = Objective(times, Elbo(), steps=0), jnp.asarray(pixels)

    @eqx.filter_jit
    def pair(model: DiffusionModel, key: jax.Array) -> jax.Array:
        draws = [objective.draw(images.shape, key=k) for k in jax.random.split(key)]
        return jnp.stack([objective(model, images, {}, d).total for d in draws])

    return Way(name, lambda key: pair(model, key), 1, REPEATS, of_each_image=isinstance(times, Uniform))


def planned(name: str, model: DiffusionModel, pixels: np.ndarray, kept: tuple[int, ...]) -> Way:
    """The estimator with some of its control variates, planned for these."""
    estimator = VariationalBound(draws=2 * STRATA)
    with controls(kept):
        plan = estimator.fitted_plan(model, pixels, precision=0.0, key=jax.random.key(0))
    variance = STRATA * float(plan.variance)
    estimate = estimates(estimator, model, pixels, plan)
    return Way(name, estimate, STRATA, REPEATS_STRATIFIED, planned=variance, pilot=plan.evaluations)


@contextmanager
def controls(kept: tuple[int, ...]) -> Iterator[None]:
    """Plans made in here have these control variates."""

    def fit_some(model: DiffusionModel, images: np.ndarray, context: Any) -> SomeControls:
        c = fit_controls(model, images, context)
        return SomeControls(c.mean, c.axes, c.variances, c.independent, c.context, kept)

    with patch("vdmkit.likelihood.control_variates.fit_controls", fit_some):
        yield


def estimates(
    estimator: VariationalBound, model: DiffusionModel, pixels: np.ndarray, plan: Any
) -> Callable[[jax.Array], np.ndarray]:
    """Both estimates of each image from a key."""
    images, index = jnp.asarray(pixels), jnp.arange(len(pixels))
    return lambda key: np.stack([estimator(model, images, index, plan, replicate=r, key=key).nats for r in (0, 1)])


def measure(way: Way, dimensions: int) -> tuple[float, float, float]:
    """Variance of the mean from one evaluation, its standard error, and CPU seconds an evaluation."""
    way.estimate(jax.random.key(0))  # compiles
    values, start = [], time.process_time()
    for i in range(way.repeats):
        values.extend(np.asarray(way.estimate(jax.random.key(1000 + i)), np.float64))
        show(f"{way.name.strip()}: {i + 1} of {way.repeats}")
    show("")
    estimates = bits_per_dim(np.stack(values), dimensions)
    seconds = (time.process_time() - start) / (estimates.size * way.draws)

    def variance(estimates: np.ndarray) -> float:
        if way.of_each_image:
            return way.draws * float(estimates.var(0, ddof=1).mean())
        return way.draws * estimates.shape[1] * float(estimates.mean(1).var(ddof=1))

    m = len(estimates)
    without = [variance(np.delete(estimates, i, axis=0)) for i in range(m)]
    return variance(estimates), float(np.std(without) * np.sqrt(m - 1)), seconds


def check(model: DiffusionModel, pixels: np.ndarray) -> None:
    """Whether the spread of the mean is the one predicted, and intervals cover as often as they say."""
    pixels = pixels[:CHECK_IMAGES]
    low, high = (CHECKS - 1) / chi2.ppf([0.975, 0.025], CHECKS - 1)
    for draws in CHECK_DRAWS:
        estimator = VariationalBound(draws=draws)
        plan = estimator.fitted_plan(model, pixels, precision=0.0, key=jax.random.key(0))
        estimate = estimates(estimator, model, pixels, plan)
        intervals = []
        for i in range(CHECKS):
            intervals.append(interval(bits_per_dim(estimate(jax.random.key(1000 + i)), model.dimensions)))
            show(f"{i + 1} of {CHECKS}")
        show("")
        values, half_widths = np.transpose([(i.value, i.half_width_monte_carlo) for i in intervals])
        predicted = bits_per_dim(np.sqrt(float(plan.variance) / (2 * len(pixels))), model.dimensions)
        ratio = values.var(ddof=1) / predicted**2
        reported = (half_widths**2).mean() / values.var(ddof=1) / 1.96**2
        covered = int((abs(values - values.mean()) < half_widths).sum())
        print(f"{CHECKS} estimates of {len(pixels)} images, {draws} draws an image, mean {values.mean():.5f} bits/dim")
        print(f"  standard deviation  {values.std(ddof=1):.6f}, predicted {predicted:.6f} bits/dim")
        print(
            f"  variance            {ratio:.3f} of the predicted, 95% interval {ratio * low:.3f} to {ratio * high:.3f}"
        )
        print(f"  reported variance   {reported:.3f} of the measured, by the mean squared half-width")
        print(f"  covered             {covered} of {CHECKS} = {100 * covered / CHECKS:.1f}% of the 95% intervals")


def show(text: str) -> None:
    """Progress, on one line of a terminal."""
    print(f"\r{text:<100}", end="" if text else "\r", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
