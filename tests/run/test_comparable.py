# SPDX-License-Identifier: Apache-2.0
"""Images that fit a model in shape and levels but differ in kind from its training images."""

import numpy as np
import pytest

from vdmkit.data import Images
from vdmkit.data.identity import TrainedOn, check_comparable, statistics_of
from vdmkit.data.sources import identified
from vdmkit.errors import DataError


def images(name: str, highest: int) -> Images:
    return identified(np.array([0, highest], np.uint8).reshape(2, 1, 1, 1), 256, name=name, split="test")


TRAINED = {"name": "imagenet32_old", "low": 0.0, "high": 255.0}


@pytest.mark.parametrize(
    ("trained", "name", "highest"),
    [(TRAINED, "imagenet32_old", 255), (TRAINED, "cifar10", 200), (None, "imagenet32_new", 1), (TRAINED, "x_new", 40)],
)
def test_other_images_of_the_same_kind_are_measured(trained, name, highest) -> None:
    """Images of a different data set with the same scale are accepted."""
    check_comparable(TrainedOn(trained), images(name, highest))


def test_the_other_imagenet_is_refused() -> None:
    """The new release of ImageNet, which is easier, is refused for models of the old release."""
    with pytest.raises(DataError, match="trained on imagenet32_old, and these images are imagenet32_new"):
        check_comparable(TrainedOn(TRAINED), images("imagenet32_new", 255))


@pytest.mark.parametrize(("trained", "highest"), [(255.0, 1), (1.0, 255), (100.0, 151)])
def test_another_scale_is_refused(trained, highest) -> None:
    """Images whose range of values differs from the training images are refused."""
    message = f"from 0 to {highest}, and those that the model was trained on from 0 to {trained:g}: they are of another"
    with pytest.raises(DataError, match=message):
        check_comparable(TrainedOn({"name": "a", "low": 0.0, "high": trained}), images("a", highest))


def test_copies_are_no_more_evidence_than_one_image() -> None:
    """Copies of an image do not count as further evidence that the test images differ."""
    rng = np.random.default_rng(0)
    trained = rng.integers(0, 17, (300, 8, 8, 1)).astype(np.uint8)
    few = rng.integers(0, 17, (20, 8, 8, 1)).astype(np.uint8)
    few[:7] = few[:7] // 2 + 4  # a third of the images is of less contrast: no evidence at 20, much at 300
    identity = identified(trained, 17, name="mine", split="train").identity
    facts = {"name": identity.name, "low": identity.low, "high": identity.high}
    many = identified(np.repeat(few, 15, axis=0), 17, name="mine", split="test")
    assert check_comparable(TrainedOn(facts, statistics=statistics_of(trained)), many) == ()
