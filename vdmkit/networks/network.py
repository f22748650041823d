# SPDX-License-Identifier: Apache-2.0
"""The interface of networks, which map one latent to k values per pixel and channel."""

import abc
from collections.abc import Mapping
from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray, Real

from vdmkit.process import Image
from vdmkit.registry import define_kind
from vdmkit.schedules import Scalar

Condition = Mapping[str, Real[Array, "..."]]
"""Side information on one image: "augmented" (0 or 1), "label" (from 0), "augment" (the augmentation, a vector).

Networks ignore entries that they do not use.
"""
Conditions = Mapping[str, Real[Array, "..."]]
"""Side information on several images by name, each with a row for every image."""


class AbstractNetwork(eqx.Module):
    """A network; the model's prediction defines what its output means.

    Implementations take `shape` (h, w, c) and `outputs` (k values per pixel and channel) as positional constructor
    parameters, and, if they need them, `key`, `gamma_range` and `classes` (the number of labels, 0 for data without).
    Parameters named `bias` are exempt from weight decay.

    A network that takes `classes` is conditioned on labels, unless it has a recipe key `labels` (their number) that is
    0. A wrapper that takes `classes` only to pass them to an inner network sets `requires_label = False`; then the
    inner network decides.
    """

    requires_label: ClassVar[bool] = True

    @abc.abstractmethod
    def __call__(
        self,
        z: Image,
        gamma: Scalar,
        condition: Condition,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "h w c k"]:
        """Evaluates the network on one example; batch with `jax.vmap`. Without a `key`, dropout is off."""


define_kind(
    "network",
    "from one latent z and gamma to k values per pixel and channel",
    AbstractNetwork,
    ("shape", "outputs", "gamma_range", "classes", "key"),
)
