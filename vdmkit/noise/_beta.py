# SPDX-License-Identifier: Apache-2.0
"""The schedule of the variance preserving SDE, whose beta is linear in time."""

import math
from typing import Annotated, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Lt
from jaxtyping import Array

from vdmkit.limits import Beta
from vdmkit.noise._schedule import AbstractSchedule
from vdmkit.registry import register
from vdmkit.typing import Scalar

Start = Annotated[float, Ge(1e-8), Lt(1)]
Time = TypeVar("Time", float, Array)


@register("schedule", "linear_beta")
class LinearBeta(AbstractSchedule):
    r"""gamma of dz = -beta(s)/2 z ds + sqrt(beta(s)) dw, beta linear in s (Song et al. 2021, arXiv 2011.13456, App. C).

    With beta(s) = beta_min + s (beta_max - beta_min), started from the data at s = 0:

        B(s) = int_0^s beta = beta_min s + (beta_max - beta_min) s^2 / 2
        alpha^2 = exp(-B),   sigma^2 = 1 - exp(-B),   gamma = log(exp(B) - 1)

    gamma is -inf at s = 0, so t in [0, 1] maps to s from `epsilon` to 1; gamma goes from -13.8 to 10.1 by default.
    The authors' code has epsilon = 1e-5 for likelihoods and 1e-3 for samples. It starts the flow at the image itself,
    vdmkit at a point in the image's bin times alpha(0).
    """

    beta_min: float = eqx.field(static=True)
    beta_max: float = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)
    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(
        self,
        *,
        beta_min: Beta = 0.1,
        beta_max: Beta = 20.0,
        epsilon: Start = 1e-5,
    ):
        self.beta_min, self.beta_max, self.epsilon = beta_min, beta_max, epsilon
        start, end = self._integral(epsilon), self._integral(1.0)
        self.gamma_min = start + math.log(-math.expm1(-start))
        self.gamma_max = end + math.log(-math.expm1(-end))

    def __call__(self, t: Scalar) -> Scalar:
        integral = self._integral(self.epsilon + (1 - self.epsilon) * t)
        return integral + jnp.log(-jnp.expm1(-integral))  # log(expm1(B)), which neither overflows nor cancels

    def _integral(self, s: Time) -> Time:
        return s * (self.beta_min + (self.beta_max - self.beta_min) * s / 2)


@register("schedule", "sub_vp_linear_beta")
class SubVpLinearBeta(AbstractSchedule):
    """gamma of the sub-VP SDE with the same beta: sigma = 1 - exp(-B) (Song et al. 2021, arXiv 2011.13456, eq. 14).

    With alpha = exp(-B / 2) and gamma_vp as in `linear_beta`, gamma = 2 gamma_vp - B, where B = softplus(gamma_vp).
    """

    vp: LinearBeta
    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(
        self,
        *,
        beta_min: Beta = 0.1,
        beta_max: Beta = 20.0,
        epsilon: Start = 1e-5,
    ):
        self.vp = LinearBeta(beta_min=beta_min, beta_max=beta_max, epsilon=epsilon)
        ends = self.vp.gamma_min, self.vp.gamma_max
        self.gamma_min, self.gamma_max = (2 * gamma - float(np.logaddexp(0, gamma)) for gamma in ends)

    def __call__(self, t: Scalar) -> Scalar:
        gamma = self.vp(t)
        return 2 * gamma - jax.nn.softplus(gamma)
