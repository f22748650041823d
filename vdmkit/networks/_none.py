# SPDX-License-Identifier: Apache-2.0
"""The trivial network."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.networks._network import AbstractNetwork, Condition
from vdmkit.process import Image
from vdmkit.registry import register
from vdmkit.schedules import Scalar


@register("network", "none")
class NoNetwork(AbstractNetwork):
    """Returns zeros, without parameters, for predictions such as `exact` and the order-0 `categorical`."""

    outputs: int = eqx.field(static=True)

    def __call__(
        self,
        z: Image,
        gamma: Scalar,
        condition: Condition,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "h w c k"]:
        return jnp.zeros((*z.shape, self.outputs), z.dtype)
