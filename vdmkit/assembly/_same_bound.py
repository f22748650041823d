# SPDX-License-Identifier: Apache-2.0
"""Checks that a conversion did not change a model's bound."""

from dataclasses import dataclass

from jaxtyping import PRNGKeyArray

from vdmkit.data import Pixels
from vdmkit.errors import UntrustedError
from vdmkit.likelihood import VariationalBound, log_likelihood, sample_of
from vdmkit.model import DiffusionModel
from vdmkit.progress import Progress

_IMAGES, _DRAWS = 64, 32
_ROUNDING = 1e-3  # bits/dim, the largest effect of float32 rounding with any prediction


@dataclass(frozen=True)
class Conversion:
    """Bits/dim of the same images with the same draws, before and after."""

    before: float
    after: float
    images: int

    def __str__(self) -> str:
        return (
            f"bound before {self.before:.5f}, after {self.after:.5f} bits/dim "
            f"(the same {self.images} test images and draws; difference {self.after - self.before:+.1e})"
        )


def check_same_bound(
    before: DiffusionModel,
    after: DiffusionModel,
    pixels: Pixels,
    *,
    steps: int,
    key: PRNGKeyArray,
    progress: Progress = None,
) -> Conversion:
    """Measures both models' bounds of `steps` steps on the same few images with the same draws.

    Raises UntrustedError if they differ by more than rounding.
    """
    images = pixels[sample_of(len(pixels), _IMAGES)]

    def bound(model: DiffusionModel) -> float:
        found = log_likelihood(
            model, images, estimator=VariationalBound(steps, draws=_DRAWS), key=key, progress=progress
        )
        return found.bits_per_dim.value

    first, second = bound(before), bound(after)
    if not abs(first - second) < _ROUNDING:
        raise UntrustedError(f"the bound was {first:.4f} and is {second:.4f} bits/dim: not the same model.")
    return Conversion(first, second, len(images))
