# SPDX-License-Identifier: Apache-2.0
"""Estimator of the variational bound, with control variates, stratified draws and Neyman allocation along gamma."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Real

from vdmkit.arguments import EvenDraws, StepsOrZero
from vdmkit.data.sources import Pixels
from vdmkit.errors import RecipeError
from vdmkit.likelihood.allocation import AbstractLoss, Cells, ContinuousLoss, StepLoss, cells_between, cells_of_steps
from vdmkit.likelihood.control_variates import context_of, fit_controls, outputs_of
from vdmkit.likelihood.estimator import (
    EVEN_IN_TIME,
    NOTHING,
    PAPERS_KERNEL,
    AbstractEstimator,
    Estimates,
    Grid,
    Kernel,
    check_rounding,
    describe_bound,
    kernel_and_grid,
    mean_of_draws,
)
from vdmkit.likelihood.pilot import (
    MOST_EVALUATIONS,
    BoundPlan,
    Piloted,
    even_plans,
    fitted_plans,
    run_pilot,
    sd_of_difference,
)
from vdmkit.losses.bound import prior_loss, reconstruction_loss
from vdmkit.model import DiffusionModel
from vdmkit.networks.network import Condition, Conditions
from vdmkit.process import AbstractGrid, UniformInTime, steps_of_bound
from vdmkit.randomness import fold_purpose, fold_replicate
from vdmkit.registry import Choice, built, register
from vdmkit.reverse import AbstractKernel
from vdmkit.schedules import AbstractSchedule, Scalar

_LEAST_OF_PAIR = 4  # evaluations: the context's network output and one draw, in each of two replicates


@register("estimator", "bound")
class VariationalBound(AbstractEstimator[BoundPlan]):
    """The variational bound in three terms (Kingma et al. 2021, eq. 11 and 17).

    Args:
        draws: Network evaluations per image, an even number; ignored if a precision is requested.
        steps: Number T of steps, 0 for continuous time; by default that of training.
        kernel: Reverse kernel p(z_s | z_t); by default that of training if it has this T or learned variances, else the
            paper's.
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
            found = " and ".join(others)
            raise RecipeError(f"{found}: continuous time has no kernel and no grid. Give --steps of 1 or more.")
        self.words = describe_bound(self.steps, kernel, grid)

    def describe(self, levels: int) -> str:
        return self.words

    def gammas(self, schedule: AbstractSchedule) -> Float[np.ndarray, " steps_plus_1"]:
        """Returns the increasing gammas of the steps, or gamma_0 and gamma_1 in continuous time.

        Raises:
            RecipeError: as `steps_of_bound` does.
        """
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
        self._check_rounding(model)
        if self._is_cheaper_than_pilot(images, precision):
            return self.even_plan(model)
        return self.fitted_plan(model, images, precision=precision, key=key, condition=condition)

    def plan_pair(
        self,
        models: tuple[DiffusionModel, DiffusionModel],
        images: Pixels,
        *,
        precision: float,
        key: PRNGKeyArray,
        conditions: tuple[Conditions, Conditions] = (NOTHING, NOTHING),
    ) -> tuple[BoundPlan, BoundPlan]:
        for model in models:
            self._check_rounding(model)
        if self._is_cheaper_than_pilot(images, precision) or self.draws < _LEAST_OF_PAIR:
            one, other = even_plans([self._parts(model.schedule) for model in models], self.draws // 2)
            return one, other
        first, second = (
            self._piloted(m, images, c, key, with_context=True) for m, c in zip(models, conditions, strict=True)
        )
        sd, strata = sd_of_difference(first, second), self.draws // 2 - 1  # the context costs one evaluation
        one, other = fitted_plans((first, second), sd, strata, precision, len(images))
        return one, other

    def _check_rounding(self, model: DiffusionModel) -> None:
        if self.steps:
            check_rounding(self.gammas(model.schedule))

    def _is_cheaper_than_pilot(self, images: Pixels, precision: float) -> bool:
        return not precision and self.draws * len(images) < MOST_EVALUATIONS

    def even_plan(self, model: DiffusionModel) -> BoundPlan:
        """Returns a plan without a pilot, for passes that cost less than a pilot would."""
        return even_plans([self._parts(model.schedule)], self.draws // 2)[0]

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
        """Runs a pilot and returns the plan fitted to it."""
        found = self._piloted(model, images, condition, key)
        return fitted_plans((found,), found.pilot.sd, self.draws // 2, precision, len(images))[0]

    def _piloted(
        self,
        model: DiffusionModel,
        images: Pixels,
        condition: Conditions,
        key: PRNGKeyArray,
        *,
        with_context: bool = False,
    ) -> Piloted:
        cells, loss = self._parts(model.schedule)
        controls = fit_controls(model, images, context_of(cells, loss) if with_context else None)
        return Piloted(cells, loss, controls, run_pilot(model, images, condition, controls, cells, loss, key=key))

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
        output = _outputs(model, plan, images, index, condition, replicate, key)
        numbers = (np.asarray([replicate, k], np.int32) for k in range(int(plan.draws)))
        means = mean_of_draws(
            (_one_draw(model, plan, images, index, condition, output, number, key) for number in numbers), on_round
        )
        terms, n = {name: means[name] for name in ("prior", "reconstruction", "diffusion")}, len(images)
        return Estimates(terms, np.full(n, int(plan.draws) + (output is not None)), np.zeros(n, bool))


def _outputs(
    model: DiffusionModel,
    plan: BoundPlan,
    images: Array,
    index: Array,
    condition: Conditions,
    replicate: int,
    key: PRNGKeyArray,
) -> Array | None:
    """Returns the network outputs that all draws of a replicate share, or None without a context."""
    if plan.context is None:
        return None
    keys = jax.vmap(lambda i: fold_purpose(fold_replicate(key, "bound", i, replicate), "context"))(index)
    return outputs_of(model, plan.context, images, condition, keys)


@eqx.filter_jit
def _one_draw(
    model: DiffusionModel,
    plan: BoundPlan,
    images: Array,
    index: Array,
    condition: Conditions,
    outputs: Array | None,
    draw: Int[Array | np.ndarray, "2"],
    key: PRNGKeyArray,
) -> dict[str, Array]:
    replicate, k = draw

    def one(image: Array, index: Array, condition: Condition, output: Array | None) -> dict[str, Array]:
        conditioned, of_replicate = model.given(condition), fold_replicate(key, "bound", index, replicate)
        u = jax.random.uniform(fold_purpose(of_replicate, "time"), dtype=float)
        key_0, key_eps, *keys = jax.random.split(jax.random.fold_in(of_replicate, k), 4)
        x = model.observation.encode(image)
        eps_0, eps = (jax.random.normal(k, x.shape, x.dtype) for k in (key_0, key_eps))
        return {
            "prior": prior_loss(conditioned, x),
            "reconstruction": reconstruction_loss(conditioned, image, eps_0),
            "diffusion": _diffusion(conditioned, plan, x, (u + k) / plan.draws, eps, output, *keys),
        }

    return jax.vmap(one)(images, index, condition, outputs)


def _diffusion(
    model: DiffusionModel,
    plan: BoundPlan,
    x: Array,
    u: Array,
    eps: Array,
    output: Array | None,
    key_controls: PRNGKeyArray,
    key_loss: PRNGKeyArray,
) -> Scalar:
    gamma, weight, mean = plan.allocation(u)
    loss = plan.loss(model, x, gamma, eps, key=key_loss)
    if plan.explained is not None:
        loss = loss - plan.explained(model, x, gamma, eps, output, key=key_controls)
    return plan.allocation.total + weight * (loss - mean)
