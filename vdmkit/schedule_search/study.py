# SPDX-License-Identifier: Apache-2.0
"""A study of schedules and step grids, from a trained model's errors along gamma.

Formats a study of schedules and step grids as two tables, and as the lines of two charts.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray, Real

from vdmkit.arguments import table
from vdmkit.devices import Arithmetic, arithmetic, precisely
from vdmkit.errors import VdmkitError
from vdmkit.likelihood.intervals import interval
from vdmkit.likelihood.log_likelihood import Parts
from vdmkit.losses.bound import bits_per_dim
from vdmkit.model import DiffusionModel
from vdmkit.progress import Progress
from vdmkit.recipes.build import shapes_of_estimate
from vdmkit.registry import Choice, registry
from vdmkit.reverse import AbstractKernel, OptimalVariance
from vdmkit.schedule_search.measurement import Curve, Measurement
from vdmkit.schedule_search.steps import Predicted, of_gaussian, of_optimal_variance, of_pairs
from vdmkit.schedule_search.variance import best_rate, fine, rate_of, variances_with_errors
from vdmkit.schedules import AbstractSchedule, check_increasing, ends_of

NODES = 61  # gammas to measure at
THIS_RUNS, BEST = "this run's", "the best there is"
Some = Real[np.ndarray, "_ h w c"]


@dataclass(frozen=True)
class Variance:
    """Variance of the bound's estimate from one image, one t and one eps, (bits/dim)^2, with its 95% interval.

    `density` is the density of gamma for uniform t at the gammas of the curve; None where gamma is constant.
    """

    schedule: str
    variance: float
    low: float
    high: float
    density: tuple[float | None, ...]


@dataclass(frozen=True)
class Study:
    """The result of a study.

    Attributes:
        continuous: Bound of the test images in continuous time, bits/dim.
        half_width: Its 95% Monte Carlo half-width.
        images: Number of test images.
        train: Errors along gamma on training images.
        test: Errors along gamma on test images.
        variances: Variance of the bound's estimate under every schedule.
        steps: Predicted bounds of T steps.
        left_out: Reasons why steps of some kernels were not measured.
        optimal_variance: Settings of the `optimal_variance` kernel, measured on training images.
        arithmetic: Precision and devices of the measurement.
    """

    continuous: float
    half_width: float
    images: int
    train: Curve
    test: Curve
    variances: tuple[Variance, ...]
    steps: tuple[Predicted, ...]
    left_out: tuple[str, ...]
    optimal_variance: dict[str, tuple[float, ...]]
    arithmetic: Arithmetic

    @property
    def headline(self) -> str:
        """A sentence with the bound in continuous time."""
        return (
            f"{self.continuous:.4f} +/- {self.half_width:.4f} bits/dim in continuous time, {self.images:,} test images"
        )

    @property
    def measured(self) -> str:
        """A sentence on what was measured, and on errors that the half-widths do not include."""
        gammas, train = len(self.test.gamma), self.train.error.shape[2]
        few = f"; fewer than {NODES} gammas: the +/- of T steps understates the error" if gammas < NODES else ""
        return f"errors at {gammas} gammas on {self.images:,} test and {train:,} training images{few}"

    def _repr_html_(self) -> str:
        variances = [(v.schedule, f"{v.variance:.4f}", f"{v.low:.4f} to {v.high:.4f}") for v in self.variances]
        steps = [
            (row.kernel, row.grid, str(row.count), f"{row.bpd:.4f} +/- {row.half_width:.4f}") for row in self.steps
        ]
        of_steps = table("Bounds of T steps", steps, ("kernel", "grid", "T", "bits/dim"))
        return table(self.headline, variances, ("schedule", "variance, (bits/dim)^2", "95%")) + of_steps

    def as_json(self) -> dict[str, Any]:
        """Returns everything as JSON values, with the curves' means over test images instead of those of each image."""
        curve = {
            "gamma": self.test.gamma.tolist(),
            "squared_error": self.test.error.mean((0, 2)).tolist(),
            "fourth_moment": (self.test.error**2).mean((0, 2)).tolist(),
            **_standard_errors(self.test),
        }
        values = {name: getattr(self, name) for name in ("continuous", "half_width", "images", "left_out")}
        rows = {name: [asdict(row) for row in getattr(self, name)] for name in ("variances", "steps")}
        measured = {"curve": curve, "optimal_variance": self.optimal_variance}
        return {**values, **rows, **measured, **asdict(self.arithmetic)}


def plan_study(model: DiffusionModel, train: Some, test: Some, *, nodes: int = NODES, key: PRNGKeyArray) -> Measurement:
    """Returns the plan of a study: the errors of a model are measured at `nodes` gammas on these images.

    Raises:
        RecipeError: the schedule is not increasing.
    """
    check_increasing(model.schedule)
    kernels, left_out = _kernels(model)
    gamma = np.linspace(*ends_of(model.schedule), nodes)
    return Measurement(model, {"train": train, "test": test}, gamma, kernels, tuple(left_out), key)


@precisely
def study_schedules(
    plan: Measurement, counts: tuple[int, ...], *, kept: Parts | None = None, progress: Progress = None
) -> Study:
    """Carries out a plan, and predicts variances of schedules and bounds of grids of `counts` steps.

    Args:
        plan: What to measure.
        counts: Numbers of steps of the grids.
        kept: Store of the measurements at each gamma; stored ones are not repeated.
        progress: None, "auto" for a bar on standard error, or an object like `vdmkit.progress.Meter`.
    """
    model, gamma, d = plan.model, plan.gamma, plan.model.dimensions
    measured = plan.measure(kept, progress)
    curve, tested = measured.curves["train"], measured.curves["test"]
    optimal = {"gammas": tuple(gamma.tolist()), "errors": tuple((curve.mean(gamma) / d).tolist())}
    steps = of_gaussian(model.schedule, curve, tested, counts, d)
    steps += of_optimal_variance(OptimalVariance(**optimal), curve, tested, counts, d)
    for name, of_kernel in measured.steps.items():
        steps += of_pairs(name, gamma, of_kernel["train"], of_kernel["test"], tested.ends, counts, d)
    tables = tuple(_variances(model.schedule, tested, d)), tuple(steps), plan.left_out
    found = _continuous(tested, d)
    return Study(*found, len(plan.images["test"]), curve, tested, *tables, optimal, arithmetic())


def _kernels(model: DiffusionModel) -> tuple[dict[str, AbstractKernel], list[str]]:
    """Returns the kernels whose steps have to be measured one by one, and reasons why others cannot be measured."""
    kernels, left_out = {}, []
    for name in sorted(set(registry("kernel").components) - {"gaussian", "optimal_variance"}):
        try:
            kernel = Choice("kernel", name).build()
            _check_kernel(kernel, model)
            kernels[name] = kernel
        except VdmkitError as error:
            left_out.append(f"kernel {name}: " + str(error).removeprefix(f"kernel {name}: "))
    return kernels, left_out


def _check_kernel(kernel: AbstractKernel, model: DiffusionModel) -> None:
    """Raises VdmkitError if the model's estimates lack what the kernel needs."""
    estimate = shapes_of_estimate(model.prediction, model.shape)
    ends = jnp.ones(()), jnp.zeros(())
    eqx.filter_eval_shape(kernel.kl, estimate, estimate.x_hat, estimate.x_hat, *ends, key=jax.random.key(0))


def _continuous(curve: Curve, d: int) -> tuple[float, float]:
    gamma = fine(curve)
    weights = np.full(len(gamma), gamma[1] - gamma[0]) / 2
    weights[[0, -1]] /= 2  # the trapezoid rule
    found = interval(bits_per_dim(curve.bound(gamma, weights), d))
    return found.value, found.half_width_monte_carlo


def _variances(own: AbstractSchedule, curve: Curve, d: int) -> Iterator[Variance]:
    schedules = {THIS_RUNS: own, **dict(_registered(float(curve.gamma[0]), float(curve.gamma[-1])))}
    rates = [rate_of(schedule, fine(curve)) for schedule in schedules.values()]
    found = variances_with_errors(curve, [*rates, None]) * float(bits_per_dim(1.0, d)) ** 2
    for name, rate, row in zip([*schedules, BEST], [*rates, best_rate(curve)], found, strict=True):
        at = np.interp(curve.gamma, fine(curve), rate)
        value, low, high = map(float, row)
        yield Variance(name, value, low, high, tuple(1 / r if r > 0 else None for r in at.tolist()))


def _registered(gamma_0: float, gamma_1: float) -> Iterator[tuple[str, AbstractSchedule]]:
    """Yields the registered schedules without learned shape, with these ends if they have parameters for them."""
    for name, component in sorted(registry("schedule").components.items()):
        ends = {"gamma_min": gamma_0, "gamma_max": gamma_1}
        given = {key: value for key, value in ends.items() if key in component.parameters}
        try:
            schedule = component.build({"key": jax.random.key(0)}, **given)
        except (VdmkitError, TypeError):
            continue  # the schedule has required settings
        if not _learns(schedule):
            yield name, schedule


def _learns(schedule: AbstractSchedule) -> bool:
    return bool(jax.tree.leaves(eqx.filter(schedule, eqx.is_inexact_array)))


def _standard_errors(curve: Curve) -> dict[str, list[float]]:
    n = curve.error.shape[2]
    of = {"squared_error": curve.error.mean(0), "fourth_moment": (curve.error**2).mean(0)}
    return {f"{name}_standard_error": (a.std(1, ddof=1) / np.sqrt(n)).tolist() for name, a in of.items()}


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
