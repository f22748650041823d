# SPDX-License-Identifier: Apache-2.0
"""One step of the bound of T steps, whatever the reverse kernel."""

from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.kernel import AbstractKernel
from vdmkit.model import DiffusionModel
from vdmkit.networks import Condition
from vdmkit.noise import diffuse


def step_loss(
    model: DiffusionModel,
    kernel: AbstractKernel,
    x: Float[Array, "h w c"],
    eps: Float[Array, "h w c"],
    gamma_t: Float[Array, ""],
    gamma_s: Float[Array, ""],
    condition: Condition,
    *,
    key: PRNGKeyArray,
    key_dropout: PRNGKeyArray | None = None,
) -> Float[Array, ""]:
    """A draw of KL(q(z_s | z_t, x) || p(z_s | z_t)) at z_t = alpha_t x + sigma_t eps, nats. The loss is their sum.

    Raises:
        RecipeError: the prediction lacks what the kernel needs.
    """
    estimate = model.denoise(diffuse(model.path, gamma_t, x, eps), gamma_t, condition, key=key_dropout)
    return kernel.kl(estimate, x, eps, gamma_t, gamma_s, key=key).sum()
