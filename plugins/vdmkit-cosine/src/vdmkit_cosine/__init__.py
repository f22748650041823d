# SPDX-License-Identifier: Apache-2.0
"""The cosine schedule, added to vdmkit from outside."""

import math
from dataclasses import KW_ONLY

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

import vdmkit
from vdmkit.noise import AbstractSchedule


@vdmkit.register("schedule", "cosine")
class Cosine(AbstractSchedule):
    r"""gamma(t) = 2 log tan u, where the angle u grows linearly so that gamma meets both ends.

    With variance preserving paths, alpha = cos u and sigma = sin u. It is the cosine schedule of
    Nichol & Dhariwal 2021 (arXiv 2102.09672, eq. 17), whose offset is replaced by the ends.
    """

    _: KW_ONLY
    gamma_min: float = eqx.field(static=True, default=-13.3)
    gamma_max: float = eqx.field(static=True, default=5.0)

    def __call__(self, t: Float[Array, ""]) -> Float[Array, ""]:
        first, last = (math.atan(math.exp(gamma / 2)) for gamma in (self.gamma_min, self.gamma_max))
        return 2 * jnp.log(jnp.tan(first + (last - first) * t))
