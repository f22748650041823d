# SPDX-License-Identifier: Apache-2.0
"""The variational bound of each image, with variance reduction by control variates, strata and allocation."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Real

from vdmkit.data import Pixels
from vdmkit.devices import in_flight
from vdmkit.errors import RecipeError
from vdmkit.kernel import AbstractKernel
from vdmkit.likelihood._allocation import (
    Allocation,
    Cells,
    cells_between,
    cells_of_steps,
    neyman,
    variance_of_curves,
)
from vdmkit.likelihood._controls import Controls, fit_controls
from vdmkit.likelihood._estimator import NOTHING, AbstractEstimator, Estimates
from vdmkit.likelihood._interval import quantile_of
from vdmkit.likelihood._loss import AbstractLoss, ContinuousLoss, StepLoss
from vdmkit.likelihood._pilot import MOST_EVALUATIONS, run_pilot
from vdmkit.likelihood._steps import (
    EVEN_IN_TIME,
    PAPERS_KERNEL,
    Grid,
    Kernel,
    check_rounding,
    describe_bound,
    kernel_and_grid,
)
from vdmkit.limits import EvenDraws, StepsOrZero
from vdmkit.model import DiffusionModel
from vdmkit.networks import Condition, Conditions
from vdmkit.noise import AbstractGrid, AbstractSchedule, UniformInTime, steps_of_bound
from vdmkit.objective import prior_loss, reconstruction_loss
from vdmkit.randomness import fold_purpose
from vdmkit.registry import Choice, built, register
from vdmkit.typing import Image, Scalar

_MOST = 2**20  # draws per estimate
_MARGIN = 1.3  # the errors of the variance are about 10% in the pilot, and as much in a pass of many images


class Explained(eqx.Module):
    """The part of the loss explained by control variates, with coefficients that depend on gamma."""

    controls: Controls
    gamma: Float[Array, " g"]
    coefficients: Float[Array, "g 3"]

    def __call__(
        self,
        model: DiffusionModel,
        x: Image,
        gamma: Scalar,
        eps: Image,
        *,
        key: PRNGKeyArray,
    ) -> Scalar:
        """Returns the explained part at one draw, with mean zero over eps and `key`."""
        coefficients = jax.vmap(lambda column: jnp.interp(gamma, self.gamma, column), in_axes=1)(self.coefficients)
        return coefficients @ self.controls(model, x, gamma, eps, key=key)


class BoundPlan(eqx.Module):
    """The loss, and the results of the pilot: allocation, explained part, draws per replicate.

    `variance` (nats^2) is the predicted variance of one estimate of one image; NaN without a pilot.
    """

    loss: AbstractLoss
    allocation: Allocation
    explained: Explained | None
    draws: Int[np.ndarray, ""]
    variance: Float[np.ndarray, ""]
    evaluations: int = eqx.field(static=True)


@register("estimator", "bound")
class VariationalBound(AbstractEstimator[BoundPlan]):
    """The variational bound in three terms (Kingma et al. 2021, eq. 11 and 17).

    Args:
        draws: Network evaluations per image, an even number; ignored with a wanted precision.
        steps: Number T of steps, 0 for continuous time; by default that of training.
        kernel: Reverse kernel p(z_s | z_t); by default that of training if it has this T, else the paper's.
        grid: Gammas of the steps; by default those of training if it has this T, else the paper's.
    """

    draws: int = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    kernel: AbstractKernel
    grid: AbstractGrid
    words: str = eqx.field(static=True)

    def __init__(
        self,
        trained_steps: int = 0,
        trained_kernel: Kernel = PAPERS_KERNEL,
        trained_grid: Grid = EVEN_IN_TIME,
        *,
        draws: EvenDraws = 16,
        steps: StepsOrZero | None = None,
        kernel: Kernel | None = None,
        grid: Grid | None = None,
    ):
        self.draws = draws
        self.steps = trained_steps if steps is None else steps
        kernel, grid = kernel_and_grid(self.steps, (kernel, grid), trained_steps, (trained_kernel, trained_grid))
        self.kernel, self.grid = built(kernel), built(grid)
        parts = Choice.of("kernel", kernel), Choice.of("grid", grid)
        others = [f"{one.kind} {one}" for one in parts if str(one) not in ("gaussian", "uniform")]
        if others and not self.steps:
            raise RecipeError(f"{' and '.join(others)}: continuous time has no kernel and no grid. Give --steps.")
        self.words = describe_bound(self.steps, kernel, grid)

    def describe(self, levels: int) -> str:
        return self.words

    def gammas(self, schedule: AbstractSchedule) -> Float[np.ndarray, " steps_plus_1"]:
        """Returns the rising gammas of the steps, or the two ends. Raises RecipeError as `steps_of_bound` does."""
        return steps_of_bound(self.grid if self.steps else UniformInTime(), schedule, self.steps or 1)

    def plan(
        self,
        model: DiffusionModel,
        images: Pixels,
        *,
        precision: float,
        key: PRNGKeyArray,
        condition: Conditions = NOTHING,
    ) -> BoundPlan:
        if self.steps:
            check_rounding(self.gammas(model.schedule))
        if not precision and self.draws * len(images) < MOST_EVALUATIONS:
            return self.even_plan(model)
        return self.fitted_plan(model, images, precision=precision, key=key, condition=condition)

    def even_plan(self, model: DiffusionModel) -> BoundPlan:
        """Returns a plan without a pilot, for passes that are cheaper than a pilot."""
        cells, loss = self._parts(model.schedule)
        allocation, _ = neyman(cells, np.zeros_like(cells.rate), np.zeros_like(cells.rate))
        return BoundPlan(loss, allocation, None, np.asarray(self.draws // 2), np.asarray(np.nan), 0)

    def _parts(self, schedule: AbstractSchedule) -> tuple[Cells, AbstractLoss]:
        gammas = self.gammas(schedule)
        if not self.steps:
            return cells_between(*gammas), ContinuousLoss()
        return cells_of_steps(gammas), StepLoss(self.kernel, jnp.asarray(gammas, float))

    def fitted_plan(
        self,
        model: DiffusionModel,
        images: Pixels,
        *,
        precision: float,
        key: PRNGKeyArray,
        condition: Conditions = NOTHING,
    ) -> BoundPlan:
        """Returns a plan from a pilot."""
        (cells, loss), controls = self._parts(model.schedule), fit_controls(model, images)
        pilot = run_pilot(model, images, condition, controls, cells, loss, key=key)
        middles = cells.low + cells.width / 2
        mean, sd = (np.interp(middles, pilot.gamma, values) for values in (pilot.mean, pilot.sd))
        allocation, variance = neyman(cells, mean, sd)
        variance += pilot.reconstruction_variance

        def of_estimate(strata: int) -> float:
            return variance / strata + variance_of_curves(allocation, pilot.gamma, pilot.curves, strata)

        strata = self.draws // 2
        if precision:
            wanted = 2 * len(images) * (precision / quantile_of(len(images))) ** 2  # two replicates of each image
            strata = _fewest(lambda strata: _MARGIN * of_estimate(strata) <= wanted)
        explained = Explained(controls, *(jnp.asarray(a, float) for a in (pilot.gamma, pilot.coefficients)))
        expected = np.asarray(of_estimate(strata))
        return BoundPlan(loss, allocation, explained, np.asarray(strata), expected, pilot.evaluations)

    def rounds(self, plan: BoundPlan) -> int:
        return int(plan.draws)

    def evaluations_of(self, plan: BoundPlan) -> int:
        return plan.evaluations

    def __call__(
        self,
        model: DiffusionModel,
        images: Real[Array, "b h w c"],
        index: Int[Array, " b"],
        plan: BoundPlan,
        *,
        replicate: int,
        key: PRNGKeyArray,
        condition: Conditions = NOTHING,
        on_round: Callable[[], object] = lambda: None,
    ) -> Estimates:
        sums = {"prior": 0.0, "reconstruction": 0.0, "diffusion": 0.0}
        numbers = (np.asarray([replicate, k], np.int32) for k in range(int(plan.draws)))
        for of_draw in in_flight(_one_draw(model, plan, images, index, condition, number, key) for number in numbers):
            sums = {name: total + np.asarray(of_draw[name], np.float64) for name, total in sums.items()}
            on_round()
        terms = {name: total / plan.draws for name, total in sums.items()}
        n = len(images)
        return Estimates(terms, np.full(n, int(plan.draws)), np.zeros(n, bool))


def _fewest(enough: Callable[[int], bool]) -> int:
    """Returns the smallest number that is enough, by bisection. Raises RecipeError if it exceeds the maximum."""
    high = 1
    while not enough(high):
        high *= 2
        if high > _MOST:
            raise RecipeError(f"that precision would take more than {2 * _MOST:,} evaluations an image. Ask for less.")
    low = high // 2  # not enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


@eqx.filter_jit
def _one_draw(
    model: DiffusionModel,
    plan: BoundPlan,
    images: Array,
    index: Array,
    condition: Conditions,
    draw: Int[Array | np.ndarray, "2"],
    key: PRNGKeyArray,
) -> dict[str, Array]:
    replicate, k = draw

    def one(image: Array, index: Array, condition: Condition) -> dict[str, Array]:
        told = model.given(condition)
        of_replicate = jax.random.fold_in(jax.random.fold_in(fold_purpose(key, "bound"), index), replicate)
        u = jax.random.uniform(fold_purpose(of_replicate, "time"), dtype=float)
        key_0, key_eps, *keys = jax.random.split(jax.random.fold_in(of_replicate, k), 4)
        x = model.observation.encode(image)
        eps_0, eps = (jax.random.normal(k, x.shape, x.dtype) for k in (key_0, key_eps))
        return {
            "prior": prior_loss(told, x),
            "reconstruction": reconstruction_loss(told, image, eps_0),
            "diffusion": _diffusion(told, plan, x, (u + k) / plan.draws, eps, *keys),
        }

    return jax.vmap(one)(images, index, condition)


def _diffusion(
    model: DiffusionModel,
    plan: BoundPlan,
    x: Array,
    u: Array,
    eps: Array,
    key_controls: PRNGKeyArray,
    key_loss: PRNGKeyArray,
) -> Scalar:
    gamma, weight, mean = plan.allocation(u)
    loss = plan.loss(model, x, gamma, eps, key=key_loss)
    if plan.explained is not None:
        loss = loss - plan.explained(model, x, gamma, eps, key=key_controls)
    return plan.allocation.total + weight * (loss - mean)
