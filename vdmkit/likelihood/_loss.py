# SPDX-License-Identifier: Apache-2.0
r"""Draws of the terms L of the diffusion loss sum_c rate_c E[L].

continuous:  L = |eps - eps_hat|^2
T steps:     L = KL / rate,  rate = expm1(gamma_t - gamma_s) / 2,  which is the same for the paper's kernel
"""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.kernel import AbstractKernel
from vdmkit.model import DiffusionModel
from vdmkit.objective import eps_error, step_loss
from vdmkit.typing import Image, Scalar


class AbstractLoss(eqx.Module):
    """A draw of L at gamma for one image."""

    @abc.abstractmethod
    def __call__(
        self,
        model: DiffusionModel,
        x: Image,
        gamma: Scalar,
        eps: Image,
        *,
        key: PRNGKeyArray,
    ) -> Scalar:
        """Returns the loss in nats, divided by the rate."""


class ContinuousLoss(AbstractLoss):
    """The squared error of eps_hat."""

    def __call__(
        self,
        model: DiffusionModel,
        x: Image,
        gamma: Scalar,
        eps: Image,
        *,
        key: PRNGKeyArray,
    ) -> Scalar:
        return eps_error(model, x, gamma, eps, {})


class StepLoss(AbstractLoss):
    """The KL of the kernel's step that starts at gamma, one of the rising `gammas`, divided by its rate."""

    kernel: AbstractKernel
    gammas: Float[Array, " steps_plus_1"]

    def __call__(
        self,
        model: DiffusionModel,
        x: Image,
        gamma: Scalar,
        eps: Image,
        *,
        key: PRNGKeyArray,
    ) -> Scalar:
        i = jnp.maximum(jnp.argmin(jnp.abs(self.gammas - gamma)), 1)
        gamma_t, gamma_s = self.gammas[i], self.gammas[i - 1]
        loss = step_loss(model, self.kernel, x, eps, gamma_t, gamma_s, {}, key=key)
        return loss / (jnp.expm1(gamma_t - gamma_s) / 2)
