# SPDX-License-Identifier: Apache-2.0
"""The interface of likelihood estimators: for every image, a random number whose mean bounds -log P(image).

The module also defines what several estimators share:

- side information on the measured images, such as their labels (`check_condition`, `rows_of`, `as_arguments`);
- the choice of kernel and grid of a T-step bound: the given ones, else those of training, else the paper's;
- dequantization: z_0 is drawn in the bin of the image's levels, and log q(z_0 | x) is returned in nats.

The bins, of width alpha_0 w around alpha_0 x, tile the axis; w is the spacing of levels, 2 / V. So
P(x) = int p(z_0) dz_0 over the image's bin, and log P(x) >= E_q[log p(z_0) - log q(z_0 | x)] for any q on the bin.
Continuous data are not dequantized.
"""

import abc
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Real

from vdmkit.data.sources import Pixels
from vdmkit.devices import in_flight
from vdmkit.errors import DataError, RecipeError
from vdmkit.model import DiffusionModel
from vdmkit.networks.network import Conditions
from vdmkit.process import AbstractGrid, Image
from vdmkit.registry import Choice, define_kind
from vdmkit.reverse import AbstractKernel
from vdmkit.schedules import Scalar

Plan = TypeVar("Plan")
NOTHING: Conditions = {}


class Estimates(eqx.Module):
    """One unbiased estimate for each image.

    Attributes:
        terms: Terms in nats whose sum bounds -log P.
        evaluations: Number of calls of the network on one latent.
        failed: Whether a solver did not reach its end; the terms are then not a likelihood.
    """

    terms: dict[str, Float[Array | np.ndarray, "*batch"]]
    evaluations: Int[Array | np.ndarray, "*batch"]
    failed: Bool[Array | np.ndarray, "*batch"]

    @property
    def nats(self) -> Float[Array | np.ndarray, "*batch"]:
        """Returns the sum of the terms, the bound on -log P in nats per image."""
        return sum(self.terms.values())  # type: ignore[return-value]


class AbstractEstimator(eqx.Module, Generic[Plan]):
    """An estimator of -log P; subclasses implement the abstract methods below.

    Calls with different `replicate` must be independent. All draws must depend on the image's index in the test set,
    so that estimates do not depend on the division into batches. Methods may lack the parameter `condition`; the
    estimator then cannot measure images given their labels.

    A constructor may take as positional parameters `trained_steps`, T of the training objective (0 if continuous), and
    its `trained_kernel` and `trained_grid`, not yet built. They need defaults, for use without a recipe.
    """

    @abc.abstractmethod
    def describe(self, levels: int) -> str:
        """Describes the estimator, with its steps or tolerances, for images with `levels` (0 is continuous)."""

    def check_levels(self, levels: int) -> None:
        """Raises RecipeError if the estimator does not support images with `levels`; 0 is continuous data."""

    @abc.abstractmethod
    def plan(
        self,
        model: DiffusionModel,
        images: Pixels,
        *,
        precision: float,
        key: PRNGKeyArray,
        condition: Conditions = NOTHING,
    ) -> Plan:
        """Prepares the estimates, for example by an allocation of draws found in a pilot.

        Args:
            model: The model.
            images: The whole test set.
            precision: Requested half-width of the 95% Monte Carlo interval of the mean, nats; 0 for the recipe's draws.
            key: Random key.
            condition: Side information on the images, such as their labels.

        Raises:
            RecipeError: the estimator cannot plan for a precision.
        """

    def plan_pair(
        self,
        models: tuple[DiffusionModel, DiffusionModel],
        images: Pixels,
        *,
        precision: float,
        key: PRNGKeyArray,
        conditions: tuple[Conditions, Conditions] = (NOTHING, NOTHING),
    ) -> tuple[Plan, Plan]:
        """Prepares the estimates of two models on the same images for a comparison; the arguments are those of `plan`.

        Each plan must remain valid for its own model alone. By default each model gets the plan it has without the
        other.
        """
        first, second = (
            self.plan(model, images, precision=precision, key=key, **({"condition": condition} if condition else {}))
            for model, condition in zip(models, conditions, strict=True)
        )
        return first, second

    @abc.abstractmethod
    def rounds(self, plan: Plan) -> int:
        """Returns how many times a call invokes `on_round`, for a progress bar."""

    def evaluations_of(self, plan: Plan) -> int:
        """Returns the number of network evaluations spent on the plan, by default 0."""
        return 0

    @property
    def images_solved_again(self) -> int:
        """Returns the number of images on which `discretisation_error` is measured."""
        return 4

    def discretisation_error(
        self,
        model: DiffusionModel,
        images: Real[Array, "b h w c"],
        index: Int[Array, " b"],
        *,
        key: PRNGKeyArray,
        condition: Conditions = NOTHING,
    ) -> tuple[Float[np.ndarray, " b"], int] | None:
        """Returns a solver's discretisation error for a few images in nats, and the network evaluations spent on it.

        The error is NaN for a failed solve. The default is None, for estimators without a solver. The error widens the
        interval, and a number with a large error is not trusted.
        """
        return None

    @abc.abstractmethod
    def __call__(
        self,
        model: DiffusionModel,
        images: Real[Array, "b h w c"],
        index: Int[Array, " b"],
        plan: Plan,
        *,
        replicate: int,
        key: PRNGKeyArray,
        condition: Conditions = NOTHING,
        on_round: Callable[[], object] = lambda: None,
    ) -> Estimates:
        """Returns estimates for images with these indices in the test set. `replicate` is 0 or 1.

        With side information on the images it estimates log P(image | condition), by `model.given` for each image. The
        draws must not depend on the side information.
        """


def mean_of_draws(
    draws: Iterable[Mapping[str, Float[Array, " b"]]], on_round: Callable[[], object]
) -> dict[str, Float[Array | np.ndarray, " b"]]:
    """Returns each term's mean over draws of a batch, summed in float64 while the device computes the next draws."""
    sums, count = dict[str, Any](), 0
    for draw in in_flight(draws):
        sums = {name: sums.get(name, 0.0) + np.asarray(term, np.float64) for name, term in draw.items()}
        count += 1
        on_round()
    return {name: total / count for name, total in sums.items()}


define_kind(
    "estimator",
    "how -log P of an image is estimated",
    AbstractEstimator,
    ("trained_steps", "trained_kernel", "trained_grid"),
)


def check_condition(condition: Mapping[str, Real[Array | np.ndarray, "..."]] | None, count: int) -> Conditions:
    """Returns side information as arrays.

    Raises:
        DataError: an array does not have one row for each of `count` images, or labels are not integers from 0.
    """
    found = {name: np.asarray(values) for name, values in (condition or {}).items()}
    for name, values in found.items():
        if values.ndim < 1 or len(values) != count:
            raise DataError(f"condition {name!r} of shape {values.shape}: expected a row for each of {count:,} images.")
    label = found.get("label")
    if label is not None and not (np.issubdtype(label.dtype, np.integer) and (not len(label) or label.min() >= 0)):
        raise DataError(f"condition 'label' of type {label.dtype}, from {label.min()}: expected integers from 0.")
    return {name: jnp.asarray(values) for name, values in found.items()}


def rows_of(condition: Conditions, index: Int[np.ndarray, " m"] | slice) -> Conditions:
    """Returns the side information on the images with these indices, on the device."""
    return {name: jnp.asarray(np.asarray(values)[index]) for name, values in condition.items()}


def as_arguments(estimator: AbstractEstimator[Any], condition: Conditions) -> dict[str, Conditions]:
    """Returns the keyword argument `condition` of an estimator's methods; empty for images without side information.

    Raises:
        RecipeError: a method of the estimator has no such parameter.
    """
    if not condition:
        return {}
    for method in (type(estimator).plan, type(estimator).discretisation_error, type(estimator).__call__):
        if "condition" not in inspect.signature(method).parameters:
            raise RecipeError(
                f"estimator {type(estimator).__name__} cannot measure images given their labels: its "
                f"{method.__name__} has no parameter `condition`. Choose another estimator, or omit the labels."
            )
    return {"condition": condition}


Kernel = Annotated[Choice | AbstractKernel, "kernel"]
Grid = Annotated[Choice | AbstractGrid, "grid"]
_ROUNDING = 1e-3  # nats per dimension
PAPERS_KERNEL, EVEN_IN_TIME = Choice("kernel", "gaussian"), Choice("grid", "uniform")


def kernel_and_grid(
    steps: int, given: tuple[Kernel | None, Grid | None], trained_steps: int, trained: tuple[Kernel, Grid]
) -> tuple[Kernel, Grid]:
    """Returns kernel and grid of T = `steps`: the given ones, else those of training with this T, else the paper's.

    A kernel with learned variances is kept for every T, because the network predicts the variances of any step.
    """
    kernel, grid = trained if steps == trained_steps > 0 else (PAPERS_KERNEL, EVEN_IN_TIME)
    if trained_steps and getattr(Choice.of("kernel", trained[0]).component.target, "reads_variances", False):
        kernel = trained[0]
    return given[0] or kernel, given[1] or grid


def describe_steps(steps: int, kernel: Kernel, grid: Grid) -> str:
    """Describes T, the kernel and the grid; T = 0 is continuous time, which has no kernel and no grid."""
    if not steps:
        return "continuous time"
    return f"T = {steps} steps, kernel {Choice.of('kernel', kernel)}, grid {Choice.of('grid', grid)}"


def describe_bound(steps: int, kernel: Kernel, grid: Grid) -> str:
    """Describes the variational bound of these steps, identically in all reports."""
    return f"variational bound, {describe_steps(steps, kernel, grid)}"


def check_rounding(gamma: Float[np.ndarray, " steps_plus_1"]) -> None:
    """Raises RecipeError if rounding errors of eps - eps_hat, times expm1(gamma_t - gamma_s), change a T-step bound."""
    nats = np.expm1(np.diff(gamma)).sum() / 2 * float(jnp.finfo(jnp.zeros(()).dtype).eps) ** 2  # of each dimension
    if not nats < _ROUNDING:
        raise RecipeError(
            f"T = {len(gamma) - 1} steps from gamma = {gamma[0]:g} to {gamma[-1]:g} are too few for the rounding of "
            f"{jnp.zeros(()).dtype}. Take more steps, or JAX_ENABLE_X64=1."
        )


def uniform(model: DiffusionModel, image: Real[Array, "h w c"], key: PRNGKeyArray) -> tuple[Image, Scalar]:
    """Draws z_0 uniformly in the bin: log q = -d log(alpha_0 w) (Theis et al. 2016, arXiv 1511.01844)."""
    x, width = model.observation.encode(image), model.observation.spacing
    log_alpha = model.path.log_alpha(model.schedule(jnp.zeros(())))
    u = jax.random.uniform(key, x.shape, x.dtype)
    return jnp.exp(log_alpha) * (x + width * (u - 0.5)), -x.size * (jnp.log(width) + log_alpha)


def truncated_normal(model: DiffusionModel, image: Real[Array, "h w c"], key: PRNGKeyArray) -> tuple[Image, Scalar]:
    """Draws z_0 = alpha_0 x + sigma_0 eps, as in training, with eps ~ N(0, 1) truncated at the edges +-tau of the bin.

    tau = alpha_0 w / (2 sigma_0) = exp(-gamma_0 / 2) w / 2; with Z = erf(tau / sqrt 2),
    log q = -sum eps^2 / 2 - d log(sqrt(2 pi) sigma_0 Z) (Zheng et al. 2023, arXiv 2305.03935).
    """
    x = model.observation.encode(image)
    gamma_0 = model.schedule(jnp.zeros(()))
    tau = jnp.exp(-gamma_0 / 2) * model.observation.spacing / 2
    eps, log_density = _truncated_normal(tau, x, key)
    log_sigma = model.path.log_alpha(gamma_0) + gamma_0 / 2
    return model.path.alpha(gamma_0) * x + jnp.exp(log_sigma) * eps, log_density - x.size * log_sigma


def _truncated_normal(tau: Array, like: Array, key: PRNGKeyArray) -> tuple[Array, Array]:
    """Draws eps = sqrt(2) erfinv(u Z), u ~ U(-1, 1), and returns it with its log density summed over pixels.

    Centring at 0 keeps the precision of u Z in a narrow bin. u = -1 is excluded, because in a wide bin, where Z rounds
    to 1, eps would be infinite.
    """
    mass = jax.lax.erf(tau / jnp.sqrt(2.0))
    lowest = jnp.nextafter(jnp.asarray(-1, like.dtype), jnp.asarray(0, like.dtype))
    u = jax.random.uniform(key, like.shape, like.dtype, minval=lowest, maxval=1)
    eps = jnp.clip(jnp.sqrt(2.0) * jax.lax.erf_inv(u * mass), -tau, tau)
    return eps, -(eps**2).sum() / 2 - like.size * (jnp.log(2 * jnp.pi) / 2 + jnp.log(mass))


def none(model: DiffusionModel, image: Real[Array, "h w c"], key: PRNGKeyArray) -> tuple[Image, Scalar]:
    """Returns z_0 = alpha_0 x for continuous data of density p(z_0) alpha_0^d (Song et al. 2021, arXiv 2011.13456)."""
    x = model.observation.encode(image)
    log_alpha = model.path.log_alpha(model.schedule(jnp.zeros(())))
    return jnp.exp(log_alpha) * x, -x.size * log_alpha


DEQUANTISATIONS = {"uniform": uniform, "truncated_normal": truncated_normal, "none": none}
