# SPDX-License-Identifier: Apache-2.0
"""What a trained model's errors along gamma say about schedules and step grids, and the files that hold them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray, Real

from vdmkit.choice import Choice
from vdmkit.data import Images
from vdmkit.errors import VdmkitError
from vdmkit.kernel import OptimalVariance
from vdmkit.likelihood import interval
from vdmkit.model import DiffusionModel
from vdmkit.noise import AbstractSchedule, check_increasing, ends_of
from vdmkit.objective import bits_per_dim
from vdmkit.profile import Curve, best_rate, fine, measure_curve, measure_pairs, rate_of, variances_with_errors
from vdmkit.randomness import fold_purpose
from vdmkit.registry import registry
from vdmkit.report import progress
from vdmkit.run._arithmetic import Arithmetic, arithmetic
from vdmkit.run._evaluate import check_fits
from vdmkit.run._load import TrainedRun
from vdmkit.run._pass import sample_of
from vdmkit.run._step_study import Predicted, of_gaussian, of_optimal_variance, of_pairs

THIS_RUNS, BEST = "this run's", "the best there is"
Some = Real[np.ndarray, "_ h w c"]
_BATCH = 64


@dataclass(frozen=True)
class Variance:
    """Of the bound's estimate from one image, one t and one eps, (bits/dim)^2, with its 95% interval.

    `density` is that of gamma for a uniform t, at the gammas of the curve; None where gamma stands still.
    """

    schedule: str
    variance: float
    low: float
    high: float
    density: tuple[float | None, ...]


@dataclass(frozen=True)
class Study:
    """`continuous` is the bound of `images` test images in continuous time, bits/dim, +/- 95% of Monte Carlo."""

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

    def as_json(self) -> dict[str, Any]:
        """Everything but the images' own curves: their means on test images."""
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


def study_schedules(run: TrainedRun, *, images: int, nodes: int, counts: tuple[int, ...]) -> Study:
    """Measure the run's errors at `nodes` gammas, on as many training and test images, and what follows from them.

    Raises:
        DataError: the images are not the model's.
        RecipeError: the schedule does not rise.
    """
    model, source = run.model(run.recipe.likelihood.weights), run.recipe.data.build()
    test, train = source.load("test"), source.load("train")
    check_fits(model, test)
    check_increasing(model.schedule)
    chosen = _some(train, images), _some(test, images)
    gamma, d = np.linspace(*ends_of(model.schedule), nodes), model.dimensions
    key = fold_purpose(jax.random.key(run.recipe.seed), "schedule")
    curve, tested = _curves(model, chosen, gamma, key)
    measured = {"gammas": tuple(gamma.tolist()), "errors": tuple((curve.mean(gamma) / d).tolist())}
    steps = of_gaussian(model.schedule, curve, tested, counts, d)
    steps += of_optimal_variance(OptimalVariance(**measured), curve, tested, counts, d)
    left_out = []
    for name in sorted(set(registry("kernel").components) - {"gaussian", "optimal_variance"}):
        try:
            steps += _of_other(name, model, gamma, chosen, tested, counts, key)
        except VdmkitError as error:
            left_out.append(f"kernel {name}: " + str(error).removeprefix(f"kernel {name}: "))
    found = _continuous(tested, d)
    variances = tuple(_variances(model.schedule, tested, d))
    tables = variances, tuple(steps), tuple(left_out)
    return Study(*found, len(chosen[1]), curve, tested, *tables, measured, arithmetic())


def _some(images: Images, count: int) -> Some:
    return images.pixels[sample_of(len(images.pixels), min(count, len(images.pixels)))]


def _curves(
    model: DiffusionModel, chosen: tuple[Some, Some], gamma: Float[np.ndarray, " g"], key: PRNGKeyArray
) -> tuple[Curve, Curve]:
    """Of training and of test images."""
    with progress("errors along gamma", 4 * len(gamma)) as advance:
        train, test = (
            measure_curve(model, some, gamma, key=jax.random.fold_in(key, i), on_gamma=advance)
            for i, some in enumerate(chosen)
        )
    return train, test


def _of_other(
    name: str,
    model: DiffusionModel,
    gamma: Float[np.ndarray, " g"],
    chosen: tuple[Some, Some],
    tested: Curve,
    counts: tuple[int, ...],
    key: PRNGKeyArray,
) -> list[Predicted]:
    """A kernel whose steps have to be measured one by one."""
    kernel = Choice("kernel", name).build()
    with progress(f"steps of kernel {name}", 2 * len(gamma)) as advance:
        train, test = (
            measure_pairs(
                model, kernel, some, gamma, batch_size=_BATCH, key=jax.random.fold_in(key, i), on_gamma=advance
            )
            for i, some in enumerate(chosen)
        )
    return of_pairs(name, gamma, train, test, tested.ends, counts, model.dimensions)


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
    """Those that training does not shape, with these ends where their keys say so."""
    for name, component in sorted(registry("schedule").components.items()):
        ends = {"gamma_min": gamma_0, "gamma_max": gamma_1}
        given = {key: value for key, value in ends.items() if key in component.parameters}
        try:
            schedule = component.build({"key": jax.random.key(0)}, **given)
        except (VdmkitError, TypeError):
            continue  # it needs keys that only its user knows
        if not _learns(schedule):
            yield name, schedule


def _learns(schedule: AbstractSchedule) -> bool:
    return bool(jax.tree.leaves(eqx.filter(schedule, eqx.is_inexact_array)))


def _standard_errors(curve: Curve) -> dict[str, list[float]]:
    n = curve.error.shape[2]
    of = {"squared_error": curve.error.mean(0), "fourth_moment": (curve.error**2).mean(0)}
    return {f"{name}_standard_error": (a.std(1, ddof=1) / np.sqrt(n)).tolist() for name, a in of.items()}
