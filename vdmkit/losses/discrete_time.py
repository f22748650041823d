# SPDX-License-Identifier: Apache-2.0
"""The diffusion loss of T steps for any kernel and grid, T E_i KL(q(z_s | z_t, x) || p(z_s | z_t)).

For the paper's kernel it is T / 2 E_i [expm1(gamma_t - gamma_s) |eps - eps_hat|^2] (Kingma et al. 2021, eq. 13).
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from vdmkit.losses.bound import NoiseLevel
from vdmkit.losses.weightings import AbstractWeighting, Elbo
from vdmkit.model import DiffusionModel
from vdmkit.networks.network import Condition
from vdmkit.process import AbstractGrid, Image, UniformInTime, diffuse
from vdmkit.reverse import AbstractKernel, GaussianKernel
from vdmkit.schedules import AbstractSchedule, Scalar

ELBO = Elbo()


class Steps(eqx.Module):
    """The diffusion loss of T = `count` steps."""

    count: int = eqx.field(static=True)
    kernel: AbstractKernel = GaussianKernel()
    grid: AbstractGrid = UniformInTime()

    def noise_level(self, schedule: AbstractSchedule, t: Scalar) -> NoiseLevel:
        """Returns the noise level of the step whose upper end is t, a multiple of 1/T; see `step_end`."""
        gamma_t, gamma_s = self.grid.ends_of_step(schedule, t, self.count)
        return NoiseLevel(gamma_t, self.count * jnp.expm1(gamma_t - gamma_s), gamma_s)

    def loss(
        self,
        model: DiffusionModel,
        x: Image,
        noise: NoiseLevel,
        eps: Image,
        condition: Condition,
        *,
        key: PRNGKeyArray,
        key_dropout: PRNGKeyArray | None = None,
        weighting: AbstractWeighting = ELBO,
    ) -> Scalar:
        """Returns a draw of the loss of one step, which is T times its KL in nats if the weight is 1."""
        estimate = model.denoise(diffuse(model.path, noise.gamma, x, eps), noise.gamma, condition, key=key_dropout)
        ends = noise.gamma, noise.gamma_s
        kl = lambda estimate: self.count * self.kernel.kl(estimate, x, eps, *ends, key=key).sum()  # noqa: E731
        return weighting.diffusion(kl, estimate, eps, noise)


def step_loss(
    model: DiffusionModel,
    kernel: AbstractKernel,
    x: Image,
    eps: Image,
    gamma_t: Scalar,
    gamma_s: Scalar,
    condition: Condition,
    *,
    key: PRNGKeyArray,
) -> Scalar:
    """Returns a draw of KL(q(z_s | z_t, x) || p(z_s | z_t)) in nats, at z_t = alpha_t x + sigma_t eps.

    Raises:
        RecipeError: the prediction lacks what the kernel needs.
    """
    estimate = model.denoise(diffuse(model.path, gamma_t, x, eps), gamma_t, condition)
    return kernel.kl(estimate, x, eps, gamma_t, gamma_s, key=key).sum()
