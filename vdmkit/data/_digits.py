# SPDX-License-Identifier: Apache-2.0
"""The 8x8 handwritten digits of scikit-learn: 17 grey levels, 1,797 images, no download."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8

from vdmkit.data._source import AbstractSource, Images, Split, identified, pixel_sha256
from vdmkit.registry import register

# SHA-256 of the bytes of all 1,797 images in scikit-learn's order.
_SHA256 = "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
_COUNT = 1797


@register("data", "digits")
@dataclass(frozen=True, kw_only=True)
class Digits(AbstractSource):
    """scikit-learn's 8x8 digits with 17 levels: 1,500 images for training and 297 for testing.

    The order is numpy's `RandomState(0).permutation(1797)`; the last 297 images are the test set. With
    `validation`, the last 300 of the other 1,500 replace the test set, for choices of settings.
    """

    validation: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        return (8, 8, 1)

    @property
    def levels(self) -> int:
        return 17

    @property
    def classes(self) -> int:
        return 10

    def load(self, split: Split) -> Images:
        pixels, labels = _images()
        known = pixel_sha256(pixels) == _SHA256
        order = np.random.RandomState(0).permutation(_COUNT)
        rows = order[self._range(split)]
        name = "digits-validation" if self.validation else "digits"
        # Figures on the validation part are not comparable with published ones.
        published = "scikit-learn digits" if known and not self.validation else None
        return identified(pixels[rows], self.levels, name=name, split=split, published=published, labels=labels[rows])

    def _range(self, split: Split) -> slice:
        first_test, end = (1200, 1500) if self.validation else (1500, _COUNT)
        return slice(0, first_test) if split == "train" else slice(first_test, end)


def _images() -> tuple[UInt8[np.ndarray, "n 8 8 1"], Int[np.ndarray, " n"]]:
    from sklearn.datasets import load_digits

    rows, labels = load_digits(return_X_y=True)
    return np.asarray(rows).reshape(-1, 8, 8, 1).astype(np.uint8), np.asarray(labels)
