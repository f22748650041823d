# SPDX-License-Identifier: Apache-2.0
"""Predictions of a distribution over the levels x_k of each pixel; x_hat is its mean.

Both add the exact log-likelihood of the latent, log N(z; alpha x_k, sigma^2), so that the network only has to supply
the information of the neighbouring pixels.
"""

from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import Array, Float, Int

from vdmkit.denoiser._prediction import AbstractPrediction
from vdmkit.estimate import Estimate
from vdmkit.noise import AbstractPath
from vdmkit.observation import level_values, require_levels
from vdmkit.registry import register
from vdmkit.typing import Image, Scalar


@register("prediction", "categorical")
class Categorical(AbstractPrediction):
    """Logits per level, plus the log of each pixel's training histogram, plus the exact evidence.

    With a network that returns zeros this is the exact denoiser of independent pixels, and the bound is the code
    length of the smoothed histograms (the order-0 code). `smoothing` is added to every count.
    """

    level_counts: Int[Array, "h w c v"]
    outputs: int = eqx.field(static=True)
    smoothing: float = eqx.field(static=True)

    def __init__(self, level_counts: Int[Array, "h w c v"], *, smoothing: Annotated[float, Ge(1e-6), Le(1e6)] = 0.5):
        require_levels(level_counts.shape[-1], "the categorical prediction")
        self.level_counts = level_counts
        self.outputs = level_counts.shape[-1]
        self.smoothing = smoothing

    def log_histogram(self) -> Float[Array, "h w c v"]:
        """Returns the log of the smoothed share of each level at each pixel."""
        counts = self.level_counts + self.smoothing
        return jnp.log(counts / counts.sum(-1, keepdims=True))

    def __call__(self, output: Float[Array, "h w c v"], z: Image, gamma: Scalar, path: AbstractPath) -> Estimate:
        x = level_values(self.outputs)
        evidence = -0.5 * jnp.exp(-gamma) * (z[..., None] / path.alpha(gamma) - x) ** 2
        return estimate_from_logits(output + self.log_histogram() + evidence, x, z, gamma, path)


@register("prediction", "lattice")
class Lattice(AbstractPrediction):
    """eps and a log-precision r per value: p(x_k | z) ~ exp(-(SNR + e^r) (x_k - x_net)^2 / 2).

    x_net = (z - sigma (z + net)) / alpha. Untrained, r = 7, a standard deviation of 0.03; if levels are closer than
    that (V above 100), it starts as the eps prediction with eps_hat = z. At low noise levels it rounds to levels. It
    has two outputs per value for any number of levels.
    """

    levels: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True, default=2, init=False)

    def __check_init__(self) -> None:
        require_levels(self.levels, "the lattice prediction")

    def __call__(self, output: Float[Array, "h w c 2"], z: Image, gamma: Scalar, path: AbstractPath) -> Estimate:
        x_net = (z - path.sigma(gamma) * (z + output[..., 0])) / path.alpha(gamma)
        precision = jnp.exp(-gamma) + jnp.exp(jnp.clip(7 + output[..., 1], 0, 14))
        x = level_values(self.levels)
        logits = -0.5 * precision[..., None] * (x_net[..., None] - x) ** 2
        return estimate_from_logits(logits, x, z, gamma, path)


def estimate_from_logits(
    logits: Float[Array, "h w c v"],
    x: Float[Array, " v"],
    z: Image,
    gamma: Scalar,
    path: AbstractPath,
) -> Estimate:
    """Returns the estimate whose distribution over the levels x is softmax(logits)."""
    log_probs = jax.nn.log_softmax(logits)
    x_hat = (jnp.exp(log_probs) * x).sum(-1)  # not a product of matrices: bfloat16 there costs 0.1 bpd at 256 levels
    return Estimate(x_hat, (z - path.alpha(gamma) * x_hat) / path.sigma(gamma), log_probs)
