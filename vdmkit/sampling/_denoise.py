# SPDX-License-Identifier: Apache-2.0
"""The denoisers that samplers call: a model's estimate at y = z / alpha, with or without a label."""

from collections.abc import Callable
from types import MappingProxyType

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int

from vdmkit.denoiser import Estimate
from vdmkit.model import DiffusionModel
from vdmkit.networks import Condition
from vdmkit.typing import Image, Scalar

Denoise = Callable[[Image, Scalar], Estimate]
_NOTHING: Condition = MappingProxyType({})


def denoiser_of(model: DiffusionModel, condition: Condition = _NOTHING) -> Denoise:
    """Returns the model's estimate as a function of y and gamma, given the side information on the image."""
    return lambda y, gamma: model.denoise(model.path.alpha(gamma) * y, gamma, condition)


def guided(without: Denoise, given: Denoise, scale: float) -> Denoise:
    """Returns the denoiser eps_hat = eps_hat without the label + scale (eps_hat given it - eps_hat without it).

    Ho & Salimans 2022, arXiv 2207.12598, eq. 6, where scale is 1 + w. It does not give probabilities of levels;
    learned variances are those given the label.
    """

    def denoise(y: Image, gamma: Scalar) -> Estimate:
        base, of_label = without(y, gamma).eps_hat, given(y, gamma)
        eps_hat = base + scale * (of_label.eps_hat - base)
        return Estimate(y - jnp.exp(gamma / 2) * eps_hat, eps_hat, variance_share=of_label.variance_share)

    return denoise


class Guidance(eqx.Module):
    """Labels of samples: image i has `label`, or label i modulo `classes`.

    `scale` is that of `guided`; 1 is the model's own estimate given the label.
    """

    scale: float = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    label: int | None = eqx.field(static=True, default=None)

    def denoiser(self, model: DiffusionModel, number: Int[Array, ""]) -> Denoise:
        """Returns the denoiser of the image with this number."""
        label = number % self.classes if self.label is None else jnp.asarray(self.label)
        given = denoiser_of(model, {"label": label})
        return given if self.scale == 1 else guided(denoiser_of(model), given, self.scale)
