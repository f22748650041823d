# SPDX-License-Identifier: Apache-2.0
"""Control variates of the loss L = |eps - eps_hat|^2: losses of simpler denoisers, whose mean over eps is known.

For any coefficients b, L - sum_j b_j C_j has the mean of L, and less variance for good b. C_j is the loss of

    zero (eps_hat = 0)                    |eps|^2                                   minus its mean d
    the Gaussian with the images' mean    |eps - S_1 (z - alpha m)|^2               minus its mean, in closed form
      and covariance S
    independent pixels with the images'   |eps - eps_hat(z)|^2                      minus the mean of a few draws
      histograms (levels only)                                                      that need no network

Given the image, each depends on eps alone, so it may be fitted to the images that are measured.

For the difference of two models there is a fourth one, `Context`: the model's own loss with the network's output frozen
at that of a different latent. A network's output changes slowly with the latent, and most of the loss's noise at low
gamma arises after the network, where its output is combined with z (for levels: p(x_j | z_j) ~ N(z_j; alpha x_j,
sigma^2) times the output). Given the image and the output, which has its own eps, the frozen loss depends on the draw's
eps alone, and estimating its mean needs no network. It costs one evaluation for all draws of an image, and it is the
only control variate that differs between two models: on digits it halves the variance of their difference.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float, Key, PRNGKeyArray, Real

from vdmkit.data.sources import Pixels
from vdmkit.likelihood.allocation import AbstractLoss, Cells
from vdmkit.model import DiffusionModel
from vdmkit.networks.network import AbstractNetwork, Condition, Conditions
from vdmkit.predictions import Categorical
from vdmkit.process import AbstractPath, Image, diffuse
from vdmkit.randomness import fold_purpose
from vdmkit.schedules import Scalar

_PLACE = 1 / 8  # of the gamma axis: low, near the many noisy draws, while the output is still useful above
_FREE_DRAWS = 16


class _Frozen(AbstractNetwork):
    """A network with constant output."""

    output: Array

    def __call__(self, z: Image, gamma: Scalar, condition: Condition, *, key: PRNGKeyArray | None = None) -> Array:
        return self.output


class Context(eqx.Module):
    """The model's loss, and the gamma at which the frozen output of its network is computed."""

    loss: AbstractLoss
    gamma: Scalar

    def output(self, model: DiffusionModel, x: Image, *, key: PRNGKeyArray) -> Array:
        """Returns the network's output for a latent drawn from q(z | x)."""
        z = diffuse(model.path, self.gamma, x, jax.random.normal(key, x.shape, x.dtype))
        return jnp.asarray(model.network(model.prediction.network_input(z, self.gamma, model.path), self.gamma, {}))

    def control(
        self, model: DiffusionModel, output: Array, x: Image, gamma: Scalar, eps: Image, *, key: PRNGKeyArray
    ) -> Scalar:
        """Returns the frozen loss at one draw minus its mean over free draws; its mean over eps and `key` is zero."""
        frozen = eqx.tree_at(lambda of: of.network, model, _Frozen(output))
        key_loss, key_free = jax.random.split(key)
        return less_its_mean(lambda eps: self.loss(frozen, x, gamma, eps, key=key_loss), eps, key=key_free)


@eqx.filter_jit
def outputs_of(
    model: DiffusionModel, context: Context, images: Array, condition: Conditions, keys: Key[Array, " b"]
) -> Array:
    """Returns, for each image, the network output that all of its draws share."""

    def one(image: Array, condition: Condition, key: PRNGKeyArray) -> Array:
        conditioned = model.given(condition)
        return context.output(conditioned, conditioned.observation.encode(image), key=key)

    return jax.vmap(one)(images, condition, keys)


def less_its_mean(loss: Callable[[Image], Scalar], eps: Image, *, key: PRNGKeyArray) -> Scalar:
    """Returns the loss at eps minus its mean over a few more draws of eps, which cost no network evaluation."""
    free = jax.random.normal(key, (_FREE_DRAWS, *eps.shape), eps.dtype)
    return loss(eps) - jax.lax.map(loss, free).mean()


def context_of(cells: Cells, loss: AbstractLoss) -> Context:
    """Returns the context with gamma at one eighth of the cells."""
    return Context(loss, jnp.asarray(cells.low[int(_PLACE * len(cells.low))], float))


_FITTED_IMAGES = 2000
_LARGEST_COVARIANCE = 4096  # dimensions; beyond, pixels are treated as uncorrelated
_VARIANCE_FLOOR = 1e-4


class Controls(eqx.Module):
    """The control variates of a set of images: mean, principal axes and variances, histograms, optionally a context."""

    mean: Float[Array, " d"]
    axes: Float[Array, "d d"] | None
    variances: Float[Array, " d"]
    independent: Categorical | None
    context: Context | None

    def __call__(
        self,
        model: DiffusionModel,
        x: Image,
        gamma: Scalar,
        eps: Image,
        output: Array | None,
        *,
        key: PRNGKeyArray,
    ) -> Float[Array, " controls"]:
        """Returns C_1, C_2, ... at one draw, each with mean zero over eps and `key`."""
        first, second = (eps**2).sum() - eps.size, self._gaussian(model, x, gamma, eps)
        values = jnp.stack([first, second, self._of_pixels(model, x, gamma, eps, key)])
        if self.context is None or output is None:
            return values
        own = self.context.control(model, output, x, gamma, eps, key=fold_purpose(key, "context"))
        return jnp.append(values, own)

    def _gaussian(self, model: DiffusionModel, x: Array, gamma: Array, eps: Array) -> Scalar:
        alpha, sigma = model.path.alpha(gamma), model.path.sigma(gamma)
        y, noise = (v if self.axes is None else v @ self.axes for v in (x.ravel() - self.mean, eps.ravel()))
        gain = sigma / (alpha**2 * self.variances + sigma**2)
        loss = ((noise - gain * (alpha * y + sigma * noise)) ** 2).sum()
        return loss - ((gain * alpha * y) ** 2 + (1 - sigma * gain) ** 2).sum()

    def _of_pixels(self, model: DiffusionModel, x: Array, gamma: Array, eps: Array, key: PRNGKeyArray) -> Scalar:
        independent = self.independent
        if independent is None:
            return jnp.zeros((), x.dtype)

        def loss(eps: Array) -> Scalar:
            z = diffuse(model.path, gamma, x, eps)
            return ((eps - _eps_hat(independent, z, gamma, model.path)) ** 2).sum()

        return less_its_mean(loss, eps, key=key)


def _eps_hat(independent: Categorical, z: Image, gamma: Scalar, path: AbstractPath) -> Image:
    """Estimates row by row, because the logits of whole images would dominate the memory of a pass."""

    def of_row(row: tuple[Array, Array]) -> Array:
        counts, z = (part[None] for part in row)
        of_pixels = Categorical(counts, smoothing=independent.smoothing)
        return of_pixels(jnp.zeros(counts.shape, z.dtype), z, gamma, path).eps_hat[0]

    return jax.lax.map(of_row, (independent.level_counts, z))


def fit_controls(model: DiffusionModel, pixels: Pixels, context: Context | None = None) -> Controls:
    """Fits the control variates to these images, at most 2,000 of them."""
    images = pixels[:: -(-len(pixels) // _FITTED_IMAGES)]
    mean, variances, axes = _moments(model, images)
    variances = np.maximum(variances, _VARIANCE_FLOOR * max(variances.max(), _VARIANCE_FLOOR))
    axes = None if axes is None else jnp.asarray(axes, float)
    independent = _independent(images, model.observation.levels)
    return Controls(jnp.asarray(mean, float), axes, jnp.asarray(variances, float), independent, context)


def _moments(
    model: DiffusionModel, images: Real[np.ndarray, "n h w c"]
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"], Float[np.ndarray, "d d"] | None]:
    """Returns mean, variances and principal axes, or the pixels' variances and None in many dimensions.

    It needs the memory of two covariances at most, so that a pilot does not need more than the estimates.
    """
    x = np.array(jax.vmap(model.observation.encode)(jnp.asarray(images)), np.float64).reshape(len(images), -1)
    mean = x.mean(0)
    x -= mean
    if x.shape[1] > _LARGEST_COVARIANCE:
        return mean, x.var(0), None
    covariance = (x.T @ x).T
    covariance /= len(x)
    del x
    variances, axes = scipy.linalg.eigh(covariance, driver="evr", overwrite_a=True, check_finite=False)
    return mean, variances, axes


def _independent(images: Real[np.ndarray, "n h w c"], levels: int) -> Categorical | None:
    if not levels:
        return None
    counts = np.stack([(images == k).sum(0) for k in range(levels)], axis=-1).astype(np.int32)
    return Categorical(jnp.asarray(counts))
