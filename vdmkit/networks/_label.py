# SPDX-License-Identifier: Apache-2.0
"""The network that says which label it was told."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.errors import RecipeError
from vdmkit.networks._network import AbstractNetwork, Condition
from vdmkit.process import Image
from vdmkit.registry import register
from vdmkit.schedules import Scalar


@register("network", "label")
class LabelNetwork(AbstractNetwork):
    """Returns 1 + the label of the image, and 0 without one, in every pixel, for prediction `exact_given_label`."""

    outputs: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        if not self.classes:
            raise RecipeError("the data have no labels: choose others, such as mixture, or another network.")

    def __call__(
        self,
        z: Image,
        gamma: Scalar,
        condition: Condition,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "h w c k"]:
        said = jnp.asarray(condition.get("label", -1)) + 1
        said = jnp.where(said > self.classes, jnp.nan, said)
        return jnp.broadcast_to(said.astype(z.dtype), (*z.shape, self.outputs))
