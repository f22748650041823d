# SPDX-License-Identifier: Apache-2.0
"""Wrappers around a network, which supply or embed side information."""

from collections.abc import Callable
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import Array, Float, PRNGKeyArray, Real

from vdmkit.arguments import PartialShare
from vdmkit.errors import RecipeError
from vdmkit.networks.network import AbstractNetwork, Condition
from vdmkit.process import Image
from vdmkit.registry import Choice, register
from vdmkit.schedules import Scalar


@register("network", "label_conditioned")
class LabelConditioned(AbstractNetwork):
    """Concatenates z with a learned embedding, an image, of `condition["label"]`, and calls an inner network.

    Images without a label have a separate embedding. Training drops a fraction of the labels, because likelihoods and
    guidance use the unconditional model (Ho & Salimans 2022, arXiv 2207.12598).

    Args:
        network: The network to condition.
        channels: Number of channels of the embedding.
        label_dropout: Fraction of the labels that training drops.
    """

    inner: AbstractNetwork
    embeddings: Float[Array, "classes_plus_1 h w e"]
    label_dropout: float = eqx.field(static=True)

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
        label_dropout: PartialShare = 0.1,
    ):
        if not classes:
            raise RecipeError("the data have no labels: choose others, such as digits or cifar10, or another network.")
        height, width, depth = shape
        context = {"outputs": outputs, "gamma_range": gamma_range, "classes": classes, "key": key}
        self.inner = network.build(shape=(height, width, depth + channels), **context)
        self.embeddings = jnp.zeros((classes + 1, height, width, channels))
        self.label_dropout = label_dropout

    def __call__(
        self,
        z: Image,
        gamma: Scalar,
        condition: Condition,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "h w c k"]:
        unknown = len(self.embeddings) - 1
        label = jnp.asarray(condition.get("label", unknown))
        if key is not None:
            key, key_label = jax.random.split(key)
            label = jnp.where(jax.random.bernoulli(key_label, self.label_dropout), unknown, label)
        # A label out of range gives NaN, which is detected later, instead of the last embedding.
        embedding = self.embeddings.at[label].get(mode="fill", fill_value=jnp.nan)
        joined = jnp.concatenate([z, embedding.astype(z.dtype)], axis=-1)
        return self.inner(joined, gamma, condition, key=key)[..., : z.shape[-1], :]


class Conditioned(AbstractNetwork):
    """A network with fixed side information on one image. Side information passed in a call takes precedence."""

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
