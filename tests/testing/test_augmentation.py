# SPDX-License-Identifier: Apache-2.0
"""Conformance of augmentations: registered ones pass, and wrong ones are refused with a reason."""

import numpy as np
import pytest

from vdmkit.conformance import check_augmentation
from vdmkit.data import AbstractAugmentation
from vdmkit.errors import ConformanceError
from vdmkit.registry import registry

SOME = np.random.default_rng(0).integers(0, 5, (6, 4, 4, 3)).astype(np.uint8)


@pytest.mark.parametrize("name", sorted(registry("augmentation").components))
def test_augmentations(build, name):
    """Every registered augmentation passes its conformance checks."""
    check_augmentation(build("augmentation", name), SOME, 5)


class _Brighter(AbstractAugmentation):
    def moves(self, shape):
        return [lambda pixels: pixels + 1]


class _Mixing(AbstractAugmentation):
    def moves(self, shape):
        return [lambda pixels: pixels[::-1]]


WRONG = {
    _Brighter: "move 0 makes a value 5 of images of 5 levels",
    _Mixing: "moves an image otherwise by itself than among others",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_augmentations(wrong):
    """Augmentations that leave the levels of the data are refused."""
    with pytest.raises(ConformanceError, match=WRONG[wrong]):
        check_augmentation(wrong(), SOME, 5)
