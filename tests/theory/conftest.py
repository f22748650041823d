# SPDX-License-Identifier: Apache-2.0
"""Float64, models whose denoiser is a formula, and two quadratures that replace Monte Carlo.

A denoiser that is linear in z has a loss that is quadratic in (x, eps). Its mean over x ~ N(0, s^2) and eps ~ N(0, 1)
equals its mean over the four points x = +-s, eps = +-1, so one image of four pixels gives the exact expectation.

"PAPER n.m" is a section of the project's fact sheet on Kingma et al. 2021 (arXiv 2107.00630v6), whose numbers were
computed from the formulas before this code was written.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from vdmkit.decoders import AbstractObservation, CategoricalObservation
from vdmkit.likelihood import VariationalBound
from vdmkit.likelihood.log_likelihood import pass_over
from vdmkit.losses.bound import Bound, diffusion_loss, noise_level
from vdmkit.losses.discrete_time import Steps
from vdmkit.model import DiffusionModel
from vdmkit.networks import AbstractNetwork
from vdmkit.predictions import AbstractPrediction, Eps
from vdmkit.process import AbstractPath, VarianceExploding, VariancePreserving
from vdmkit.registry import registry
from vdmkit.schedules import AbstractSchedule, FixedLinear

Formula = Callable[[Array, Array], Array]


@pytest.fixture(autouse=True, scope="module")
def float64():
    """Enables float64 for these modules only; the rest of the suite runs in float32 in the same process."""
    with jax.enable_x64(True):
        yield


class _Formula(AbstractNetwork):
    """A network that evaluates a formula on (z, gamma), where z is the latent on `path`: its input, rescaled."""

    formula: Formula
    path: AbstractPath
    outputs: int = eqx.field(static=True)

    def __call__(self, z, gamma, condition, *, key=None):
        return self.formula(z * self.path.scale(gamma), gamma).reshape(*z.shape, self.outputs)


@pytest.fixture
def quick_key() -> Array:
    """A key whose generator compiles five times faster than the default; for tests where any random numbers will do."""
    return jax.random.key(0, impl="rbg")


@pytest.fixture
def other_path() -> AbstractPath:
    """A path that is not variance preserving."""
    return VarianceExploding()


@pytest.fixture(params=sorted(registry("path").components))
def path(request) -> AbstractPath:
    """Every registered path."""
    return registry("path").get(request.param).build({})


@pytest.fixture(scope="module")
def model_of() -> Callable[..., DiffusionModel]:
    """Builds a model of 4 pixels with 2 levels (x = -1/2 and 1/2) around a formula for the network's output."""

    def build(
        formula: Formula,
        *,
        schedule: AbstractSchedule | None = None,
        path: AbstractPath | None = None,
        prediction: AbstractPrediction | None = None,
        observation: AbstractObservation | None = None,
        shape: tuple[int, int, int] = (4, 1, 1),
    ) -> DiffusionModel:
        prediction, path = prediction or Eps(), path or VariancePreserving()
        return DiffusionModel(
            schedule=schedule or FixedLinear(),
            path=path,
            prediction=prediction,
            network=_Formula(formula, path, prediction.outputs),
            observation=observation or CategoricalObservation(2),
            shape=shape,
        )

    return build


def _gaussian_eps_hat(path: AbstractPath, variance: Array, z: Array, gamma: Array) -> Array:
    alpha, sigma = path.alpha(gamma), path.sigma(gamma)
    return sigma * z / (alpha**2 * variance + sigma**2)


@pytest.fixture(scope="module")
def gaussian(model_of) -> Callable[..., DiffusionModel]:
    """Builds a model with the exact denoiser of x ~ N(0, variance) (PAPER 19.2)."""

    def build(variance: float, **parts) -> DiffusionModel:
        eps_hat = jax.tree_util.Partial(_gaussian_eps_hat, VariancePreserving(), jnp.asarray(variance))
        return model_of(eps_hat, **parts)

    return build


@pytest.fixture(scope="module")
def four_points() -> Callable[[float], tuple[Array, Array]]:
    """(x, eps) whose mean loss is the mean over Gaussian x of this variance, for a denoiser linear in z."""

    def points(variance: float) -> tuple[Array, Array]:
        signs_x, signs_eps = jnp.array([[1, 1, -1, -1], [1, -1, 1, -1.0]])[..., None, None]
        return jnp.sqrt(variance) * signs_x, signs_eps

    return points


@pytest.fixture(scope="module")
def times() -> tuple[Array, Array]:
    """Nodes and weights of an integral over t in [0, 1]: Gauss-Legendre on panels that shrink towards both ends.

    16 nodes a panel: exact to rounding for an integrand with no pole nearer to a panel than half its width. Panels
    are 1/16 wide in the middle and 1/1024 at the ends, where the cosine schedule has poles.
    """
    half = np.concatenate([[0.0], 2.0 ** np.arange(-10, -4), np.arange(1, 9) / 16])
    edges = np.unique(np.concatenate([half, 1 - half]))
    node, weight = np.polynomial.legendre.leggauss(16)
    widths = np.diff(edges)[:, None] / 2
    return jnp.asarray((edges[:-1, None] + widths * (1 + node)).ravel()), jnp.asarray((widths * weight).ravel())


@pytest.fixture(scope="module")
def noise() -> tuple[Array, Array]:
    """Nodes and weights of a mean over eps ~ N(0, 1): the trapezoid rule, exact to rounding for smooth functions.

    With step h it errs by exp(-2 pi w / h) for a function analytic within w of the real axis; beyond 9 lies 1e-19.
    """
    eps = jnp.linspace(-9, 9, 361)
    weight = jnp.exp(-(eps**2) / 2)
    return eps, weight / weight.sum()


@pytest.fixture(scope="module")
def losses() -> Callable[..., Array]:
    """Diffusion losses in nats of one (x, eps) at many times."""

    @eqx.filter_jit
    def at(model: DiffusionModel, x: Array, eps: Array, t: Array, steps: int = 0) -> Array:
        if not steps:
            return jax.vmap(lambda t: diffusion_loss(model, x, noise_level(model.schedule, t), eps, {}))(t)
        cut, key = Steps(steps), jax.random.key(0)
        return jax.vmap(lambda t: cut.loss(model, x, cut.noise_level(model.schedule, t), eps, {}, key=key))(t)

    return at


@pytest.fixture(scope="session")
def bound_of_images() -> Callable[..., Bound]:
    """Returns a function that estimates each image's bound twice, every term (2, n), with draws even over gamma."""

    def bound_of_images(model, images, *, draws, steps, batch_size, key, seconds=np.inf, index=None) -> Bound:
        estimator = VariationalBound(steps, draws=draws)
        index = np.arange(len(images)) if index is None else index
        how = {"batch_size": batch_size, "key": key, "seconds": seconds}
        return Bound(**pass_over(estimator, model, images, index, estimator.even_plan(model), **how).terms)

    return bound_of_images
