# SPDX-License-Identifier: Apache-2.0
"""Conditions any network on the label of the image."""

from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.arguments import PartialShare
from vdmkit.errors import RecipeError
from vdmkit.networks._network import AbstractNetwork, Condition
from vdmkit.process import Image
from vdmkit.registry import Choice, register
from vdmkit.schedules import Scalar


@register("network", "labelled")
class Labelled(AbstractNetwork):
    """Another network whose input z is joined with a learned picture of the label `condition["label"]`.

    Images without a label have a picture of their own. In training a share of the labels is withheld, because
    likelihoods and guidance use the unconditional model (Ho & Salimans 2022, arXiv 2207.12598).

    Args:
        network: The network to condition.
        channels: Number of channels of the pictures.
        withheld: Share of the labels that is withheld in training.
    """

    inner: AbstractNetwork
    pictures: Float[Array, "classes_plus_1 h w e"]
    withheld: float = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, int, int],
        outputs: int,
        gamma_range: tuple[float, float],
        classes: int,
        key: PRNGKeyArray,
        *,
        network: Annotated[Choice, "network"],
        channels: Annotated[int, Ge(1), Le(1024)] = 1,
        withheld: PartialShare = 0.1,
    ):
        if not classes:
            raise RecipeError("the data have no labels: choose others, such as digits or cifar10, or another network.")
        height, width, depth = shape
        context = {"outputs": outputs, "gamma_range": gamma_range, "classes": classes, "key": key}
        self.inner = network.build(shape=(height, width, depth + channels), **context)
        self.pictures = jnp.zeros((classes + 1, height, width, channels))
        self.withheld = withheld

    def __call__(
        self,
        z: Image,
        gamma: Scalar,
        condition: Condition,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "h w c k"]:
        unknown = len(self.pictures) - 1
        label = jnp.asarray(condition.get("label", unknown))
        if key is not None:
            key, key_label = jax.random.split(key)
            label = jnp.where(jax.random.bernoulli(key_label, self.withheld), unknown, label)
        # A label that does not exist gives NaN, which is refused, and not the last picture
        picture = self.pictures.at[label].get(mode="fill", fill_value=jnp.nan)
        shown = jnp.concatenate([z, picture.astype(z.dtype)], axis=-1)
        return self.inner(shown, gamma, condition, key=key)[..., : z.shape[-1], :]
