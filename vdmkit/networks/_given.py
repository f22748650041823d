# SPDX-License-Identifier: Apache-2.0
"""A network that is told the same side information with every latent."""

from collections.abc import Callable

from jaxtyping import Array, Float, PRNGKeyArray, Real

from vdmkit.networks._network import AbstractNetwork, Condition
from vdmkit.process import Image
from vdmkit.schedules import Scalar


class Given(AbstractNetwork):
    """A network with side information on one image. What a call tells it takes precedence."""

    inner: Callable[..., Array]
    condition: dict[str, Real[Array, "..."]]

    def __call__(
        self,
        z: Image,
        gamma: Scalar,
        condition: Condition,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "h w c k"]:
        return self.inner(z, gamma, {**self.condition, **condition}, key=key)
