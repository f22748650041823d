# SPDX-License-Identifier: Apache-2.0
r"""Axes and scalings in which an Euler step of the probability-flow ODE is linear.

With w = a(gamma) y and u(gamma), dw/du = [dlog a/dgamma w + a s/2 eps_hat] / (du/dgamma),  s = sigma / alpha.
"""

import abc
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from vdmkit.denoiser import Estimate
from vdmkit.typing import Image, Scalar

AxisName = Literal["sigma", "variance", "vp_time"]


class AbstractAxis(eqx.Module):
    """An axis u with a scaling a; an implementer supplies u and log a, both finite at gamma = -inf."""

    @abc.abstractmethod
    def position(self, gamma: Scalar) -> Scalar:
        """Returns u."""

    @abc.abstractmethod
    def log_scale(self, gamma: Scalar) -> Scalar:
        """Returns log a."""

    def slope(self, y: Image, gamma: Scalar, estimate: Estimate) -> Image:
        """Returns dw/du at y."""
        rate, log_rate = jax.grad(self.position)(gamma), jax.grad(self.log_scale)(gamma)
        return jnp.exp(self.log_scale(gamma)) * (log_rate * y + jnp.exp(gamma / 2) / 2 * estimate.eps_hat) / rate

    def move(
        self,
        y: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
        slope: Image,
    ) -> Image:
        """Returns y after a linear step from gamma_t to gamma_s."""
        w = jnp.exp(self.log_scale(gamma_t)) * y + (self.position(gamma_s) - self.position(gamma_t)) * slope
        return jnp.exp(-self.log_scale(gamma_s)) * w


class Sigma(AbstractAxis):
    """u = s, the axis of EDM, where the slope is eps_hat itself."""

    def position(self, gamma: Scalar) -> Scalar:
        return jnp.exp(gamma / 2)

    def log_scale(self, gamma: Scalar) -> Scalar:
        return jnp.zeros_like(gamma)

    def slope(self, y: Image, gamma: Scalar, estimate: Estimate) -> Image:
        return estimate.eps_hat


class SquaredSigma(AbstractAxis):
    """u = s^2, the time of the variance exploding SDE as in EDM (Karras et al. 2022, Table 1)."""

    def position(self, gamma: Scalar) -> Scalar:
        return jnp.exp(gamma)

    def log_scale(self, gamma: Scalar) -> Scalar:
        return jnp.zeros_like(gamma)


class VpTime(AbstractAxis):
    """u = time and a = alpha of the variance preserving SDE, beta from 0.1 to 20 (Song et al. 2021, App. C)."""

    beta_min: float = eqx.field(static=True, default=0.1)
    beta_rise: float = eqx.field(static=True, default=19.9)

    def position(self, gamma: Scalar) -> Scalar:
        # beta_min t + beta_rise t^2 / 2 = B = softplus(gamma), solved without cancellation
        integral = jax.nn.softplus(gamma)
        return 2 * integral / (jnp.sqrt(self.beta_min**2 + 2 * self.beta_rise * integral) + self.beta_min)

    def log_scale(self, gamma: Scalar) -> Scalar:
        return -jax.nn.softplus(gamma) / 2


AXES: dict[AxisName, AbstractAxis] = {"sigma": Sigma(), "variance": SquaredSigma(), "vp_time": VpTime()}
