# SPDX-License-Identifier: Apache-2.0
"""Images that fit a model in shape and levels, and are of another kind all the same."""

import numpy as np
import pytest

from vdmkit.data import Images, identified
from vdmkit.errors import DataError
from vdmkit.run import check_comparable


def images(name: str, highest: int) -> Images:
    return identified(np.array([0, highest], np.uint8).reshape(2, 1, 1, 1), 256, name=name, split="test")


TRAINED = {"name": "imagenet32_old", "span": 255.0}


@pytest.mark.parametrize(
    ("trained", "name", "highest"),
    [(TRAINED, "imagenet32_old", 255), (TRAINED, "cifar10", 200), (None, "imagenet32_new", 1), (TRAINED, "x_new", 40)],
)
def test_other_images_of_the_same_kind_are_measured(trained, name, highest) -> None:
    """False if a model could not be asked about data that it was not trained on."""
    check_comparable(trained, images(name, highest))


def test_the_other_imagenet_is_refused() -> None:
    """False if a model of the old release could report a figure on the new one, which is easier."""
    with pytest.raises(DataError, match="trained on imagenet32_old, and these images are imagenet32_new"):
        check_comparable(TRAINED, images("imagenet32_new", 255))


@pytest.mark.parametrize(("span", "highest"), [(255.0, 1), (1.0, 255)])
def test_another_scale_is_refused(span, highest) -> None:
    """False if images of 0 and 1 could be measured by a model of 0..255, or the other way round."""
    message = f"values of the test images span {highest}, and those that the model was trained on {span:g}"
    with pytest.raises(DataError, match=message):
        check_comparable({"name": "a", "span": span}, images("a", highest))
