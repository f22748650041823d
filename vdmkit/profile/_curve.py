# SPDX-License-Identifier: Apache-2.0
"""The error of eps_hat along gamma, measured: every bound between the same ends follows from it, and its variance."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Real
from scipy.interpolate import CubicSpline, PchipInterpolator

from vdmkit.errors import NonFiniteError
from vdmkit.model import DiffusionModel
from vdmkit.objective import eps_error, prior_loss, reconstruction_loss
from vdmkit.randomness import fold_purpose

_LEAST = 1e-30  # of a mean, far below the rounding of an error


class Curve(eqx.Module):
    """|eps - eps_hat(z; gamma)|^2 of n images at g rising gammas, and the bound's other two terms, each drawn twice.

    In nats of an image.
    """

    gamma: Float[np.ndarray, " g"]
    error: Float[np.ndarray, "2 g n"]
    ends: Float[np.ndarray, "2 n"]

    def mean(self, at: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """M = E |eps - eps_hat|^2 at other gammas."""
        return _between(self.gamma, self.error.mean((0, 2)), at)

    def second_moment(self, at: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """M_2 = E |eps - eps_hat|^4 at other gammas."""
        return _between(self.gamma, (self.error**2).mean((0, 2)), at)

    def bound(self, at: Float[np.ndarray, " t"], rate: Float[np.ndarray, " t"]) -> Float[np.ndarray, "2 n"]:
        """The bound whose diffusion loss is sum_i rate_i |eps - eps_hat|^2 at `at`_i, two estimates of each image."""
        weights = CubicSpline(self.gamma, np.eye(len(self.gamma)))(at)
        return self.ends + np.einsum("t,tg,rgn->rn", rate, weights, self.error)

    def of_images(self, index: np.ndarray) -> "Curve":
        """That of some images, which may be named twice."""
        return Curve(self.gamma, self.error[:, :, index], self.ends[:, index])


def _between(
    gamma: Float[np.ndarray, " g"], moment: Float[np.ndarray, " g"], at: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    """A moment at other gammas, which is nowhere 0."""
    return np.exp(PchipInterpolator(gamma, np.log(np.maximum(moment, _LEAST)))(at))


def measure_curve(
    model: DiffusionModel,
    images: Real[np.ndarray, "n h w c"],
    gamma: Float[np.ndarray, " g"],
    *,
    key: PRNGKeyArray,
    on_gamma: Callable[[], object] = lambda: None,
) -> Curve:
    """2 g n evaluations of the network. The draws belong to an image's place among `images`.

    Raises:
        NonFiniteError: the network's estimate is not finite.
    """
    batch = jnp.asarray(images)
    error, ends = np.empty((2, len(gamma), len(images))), np.empty((2, len(images)))
    for replicate in (0, 1):
        of_replicate = jax.random.fold_in(fold_purpose(key, "curve"), replicate)
        ends[replicate] = _ends(model, batch, of_replicate)
        for g, level in enumerate(gamma):
            error[replicate, g] = _errors(model, batch, jnp.asarray(level, float), jax.random.fold_in(of_replicate, g))
            if not np.isfinite(error[replicate, g]).all():
                raise NonFiniteError(
                    f"the error of eps_hat at gamma = {level:.4g} is not finite: nothing follows from it."
                )
            on_gamma()
    return Curve(np.asarray(gamma, np.float64), error, ends)


@eqx.filter_jit
def _errors(model: DiffusionModel, images: Array, gamma: Array, key: PRNGKeyArray) -> Float[Array, " n"]:
    def one(image: Array, key: PRNGKeyArray) -> Float[Array, ""]:
        x = model.observation.encode(image)
        return eps_error(model, x, gamma, jax.random.normal(key, x.shape, x.dtype), {})

    return jax.vmap(one)(images, jax.random.split(key, len(images)))


@eqx.filter_jit
def _ends(model: DiffusionModel, images: Array, key: PRNGKeyArray) -> Float[Array, " n"]:
    def one(image: Array, key: PRNGKeyArray) -> Float[Array, ""]:
        x = model.observation.encode(image)
        noise = jax.random.normal(fold_purpose(key, "ends"), x.shape, x.dtype)
        return prior_loss(model, x) + reconstruction_loss(model, image, noise)

    return jax.vmap(one)(images, jax.random.split(key, len(images)))
