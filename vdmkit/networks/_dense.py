# SPDX-License-Identifier: Apache-2.0
"""A linear map of the last axis, and the initialisers that all layers here share."""

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

LECUN_NORMAL = jax.nn.initializers.lecun_normal()
"""Normal of variance 1 / fan-in, truncated at two standard deviations and rescaled: Flax's default."""

ZEROS = jax.nn.initializers.zeros
"""For the last layer of a residual branch, so that an untrained network is the identity."""


class Dense(eqx.Module):
    """x @ kernel + bias. On an image this is a 1x1 convolution."""

    kernel: Float[Array, "i o"]
    bias: Float[Array, " o"] | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        key: PRNGKeyArray,
        *,
        initializer: jax.nn.initializers.Initializer = LECUN_NORMAL,
        use_bias: bool = True,
    ):
        self.kernel = initializer(key, (inputs, outputs))
        self.bias = jax.numpy.zeros(outputs) if use_bias else None

    def __call__(self, x: Float[Array, "*n i"]) -> Float[Array, "*n o"]:
        y = x @ self.kernel
        return y if self.bias is None else y + self.bias
