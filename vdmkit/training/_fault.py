# SPDX-License-Identifier: Apache-2.0
"""Where the first number of a batch that is not finite arose."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from vdmkit.losses.bound import Bound, NoiseLevel
from vdmkit.schedules import AbstractSchedule

FAULT = ("faulty", "faulty_row", "faulty_gamma")
"""Names of the metrics of `fault`."""


def fault(bound: Bound, noise: NoiseLevel, schedule: AbstractSchedule) -> dict[str, Float[Array, ""]]:
    """Returns how many images of a batch have a bound that is not finite, the row of the first, and its gamma.

    The gamma is that of its diffusion term if this is not finite, else gamma_0 or gamma_1, by the term that is not.
    Row and gamma mean nothing if there is no such image.
    """
    terms = [jnp.asarray(term) for term in (bound.diffusion, bound.reconstruction, bound.prior)]
    faulty = ~jnp.isfinite(sum(terms))
    row = jnp.argmax(faulty)
    gammas = [noise.gamma[row], schedule(jnp.zeros(())), schedule(jnp.ones(()))]
    gamma = jnp.select([~jnp.isfinite(term[row]) for term in terms], gammas, gammas[0])
    return dict(zip(FAULT, (faulty.sum().astype(float), row.astype(float), gamma), strict=True))
