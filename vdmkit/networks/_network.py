# SPDX-License-Identifier: Apache-2.0
"""The interface of a network: one latent in, some values per pixel and channel out."""

import abc
from collections.abc import Mapping
from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray, Real

from vdmkit.registry import define_kind

Condition = Mapping[str, Real[Array, ""]]
"""What is known of one image by name: "augmented" (0 or 1), "label" (from 0). A network reads what it understands."""


class AbstractNetwork(eqx.Module):
    """What the denoiser calls. What the output means is the prediction's business.

    An implementer takes `shape` (h, w, c) and `outputs` (k values per pixel and channel) as
    positional constructor parameters, and `key`, `gamma_range` and `classes`, the number of labels that images have
    (0: none), where it needs them.
    Parameters named `bias` are exempt from weight decay.

    A network that takes `classes` reads labels. One that takes them only to hand them on to a network inside it says so
    by `hands_labels_on = True`; then the one inside decides.
    """

    hands_labels_on: ClassVar[bool] = False

    @abc.abstractmethod
    def __call__(
        self,
        z: Float[Array, "h w c"],
        gamma: Float[Array, ""],
        condition: Condition,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "h w c k"]:
        """One example; batch with `jax.vmap`. `key` drives dropout; without it there is none."""


define_kind(
    "network",
    "from one latent z and gamma to k values per pixel and channel",
    AbstractNetwork,
    ("shape", "outputs", "gamma_range", "classes", "key"),
)
