# SPDX-License-Identifier: Apache-2.0
"""The measured error of eps_hat along gamma, which determines every bound between the same ends, and its variance."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float, PRNGKeyArray, Real

from vdmkit.errors import NonFiniteError
from vdmkit.losses.bound import eps_error, prior_loss, reconstruction_loss
from vdmkit.model import DiffusionModel
from vdmkit.randomness import fold_purpose
from vdmkit.schedules import Scalar

_LEAST = 1e-30  # smallest mean, far below the rounding error of a squared error


class Curve(eqx.Module):
    """|eps - eps_hat(z; gamma)|^2 of n images at g increasing gammas, and the bound's other terms, each drawn twice.

    `ends` is the sum of the prior and reconstruction terms in nats per image.
    """

    gamma: Float[np.ndarray, " g"]
    error: Float[np.ndarray, "2 g n"]
    ends: Float[np.ndarray, "2 n"]

    def mean(self, at: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """Returns M = E |eps - eps_hat|^2 at other gammas."""
        return _between(self.gamma, self.error.mean((0, 2)), at)

    def second_moment(self, at: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """Returns M_2 = E |eps - eps_hat|^4 at other gammas."""
        return _between(self.gamma, (self.error**2).mean((0, 2)), at)

    def bound(self, at: Float[np.ndarray, " t"], rate: Float[np.ndarray, " t"]) -> Float[np.ndarray, "2 n"]:
        """Returns two estimates per image of the bound with diffusion loss sum_i rate_i |eps - eps_hat|^2 at `at`_i."""
        weights = scipy.interpolate.CubicSpline(self.gamma, np.eye(len(self.gamma)))(at)
        return self.ends + np.einsum("t,tg,rgn->rn", rate, weights, self.error)

    def of_images(self, index: np.ndarray) -> "Curve":
        """Returns the curve of the images with these indices; an index may occur twice."""
        return Curve(self.gamma, self.error[:, :, index], self.ends[:, index])


def _between(
    gamma: Float[np.ndarray, " g"], moment: Float[np.ndarray, " g"], at: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    """Interpolates a moment to other gammas; the result is positive."""
    return np.exp(scipy.interpolate.PchipInterpolator(gamma, np.log(np.maximum(moment, _LEAST)))(at))


def errors_at(
    model: DiffusionModel,
    images: Real[np.ndarray, "n h w c"],
    gamma: Float[np.ndarray, " g"],
    number: int,
    *,
    key: PRNGKeyArray,
) -> Float[np.ndarray, "2 n"]:
    """Returns two draws of |eps - eps_hat|^2 for every image at gamma[number], from 2 n evaluations of the network.

    The draws depend on `number` and on an image's index in `images`.

    Raises:
        NonFiniteError: the network's estimate is not finite.
    """
    level = jnp.asarray(gamma[number], float)
    keys = (jax.random.fold_in(_of_replicate(key, replicate), number) for replicate in (0, 1))
    error = np.stack([np.asarray(_errors(model, jnp.asarray(images), level, of_draw), np.float64) for of_draw in keys])
    if not np.isfinite(error).all():
        raise NonFiniteError(
            f"the error of eps_hat at gamma = {level:.4g} is not finite, so nothing can be derived from it."
        )
    return error


def loss_at_ends(
    model: DiffusionModel, images: Real[np.ndarray, "n h w c"], *, key: PRNGKeyArray
) -> Float[np.ndarray, "2 n"]:
    """Returns two draws of the sum of prior and reconstruction loss of every image in nats."""
    ends = (_ends(model, jnp.asarray(images), _of_replicate(key, replicate)) for replicate in (0, 1))
    return np.stack([np.asarray(values, np.float64) for values in ends])


def _of_replicate(key: PRNGKeyArray, replicate: int) -> PRNGKeyArray:
    return jax.random.fold_in(fold_purpose(key, "curve"), replicate)


@eqx.filter_jit
def _errors(model: DiffusionModel, images: Array, gamma: Array, key: PRNGKeyArray) -> Float[Array, " n"]:
    def one(image: Array, key: PRNGKeyArray) -> Scalar:
        x = model.observation.encode(image)
        return eps_error(model, x, gamma, jax.random.normal(key, x.shape, x.dtype), {})

    return jax.vmap(one)(images, jax.random.split(key, len(images)))


@eqx.filter_jit
def _ends(model: DiffusionModel, images: Array, key: PRNGKeyArray) -> Float[Array, " n"]:
    def one(image: Array, key: PRNGKeyArray) -> Scalar:
        x = model.observation.encode(image)
        noise = jax.random.normal(fold_purpose(key, "ends"), x.shape, x.dtype)
        return prior_loss(model, x) + reconstruction_loss(model, image, noise)

    return jax.vmap(one)(images, jax.random.split(key, len(images)))
