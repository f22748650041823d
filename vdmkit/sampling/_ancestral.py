# SPDX-License-Identifier: Apache-2.0
"""Ancestral sampling."""

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.model import DiffusionModel
from vdmkit.noise import reverse
from vdmkit.registry import register
from vdmkit.sampling._sampler import AbstractSampler


@register("sampler", "ancestral")
class Ancestral(AbstractSampler):
    """z_s ~ q(z_s | z_t, x = x_hat(z_t)), noise in the last step too (Kingma et al. 2021, section 3.2)."""

    def step(
        self,
        model: DiffusionModel,
        z_t: Float[Array, "h w c"],
        gamma_t: Float[Array, ""],
        gamma_s: Float[Array, ""],
        *,
        key: PRNGKeyArray,
    ) -> Float[Array, "h w c"]:
        eps_hat = model.denoise(z_t, gamma_t, {}).eps_hat
        mean, std = reverse(model.path, gamma_s, gamma_t, z_t, eps_hat)
        return mean + std * jax.random.normal(key, z_t.shape, z_t.dtype)
