# SPDX-License-Identifier: Apache-2.0
"""The estimate of a denoiser, which reverse kernels, observations and samplers read."""

import equinox as eqx
from jaxtyping import Array, Float

from vdmkit.errors import RecipeError
from vdmkit.typing import Image


class Estimate(eqx.Module):
    """A denoiser's estimates of x and eps for one latent z = alpha x + sigma eps.

    `log_probs` holds log p(x = level k | z) for predictions that give a distribution over levels, else None.
    `variance_share` holds the v of Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 15, for predictions that learn the
    variances of steps, else None: the share of the log of the largest variance, 1 - v being that of the least.
    """

    x_hat: Image
    eps_hat: Image
    log_probs: Float[Array, "h w c v"] | None = None
    variance_share: Image | None = None


def require_variance_share(estimate: Estimate, component: str) -> Image:
    """Returns v. Raises RecipeError if the estimate has none, which `component` needs."""
    if estimate.variance_share is None:
        raise RecipeError(f"{component}: the prediction learns no variances. Use prediction eps_and_range.")
    return estimate.variance_share
