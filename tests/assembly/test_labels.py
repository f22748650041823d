# SPDX-License-Identifier: Apache-2.0
"""The labels that a network is told of the images that are measured."""

from dataclasses import replace

import numpy as np
import pytest

from vdmkit.data import Images
from vdmkit.errors import DataError, RecipeError
from vdmkit.recipes import Recipe, load_recipe
from vdmkit.recipes.build import count_labels, told_labels

LABELLED = "model.network={name='label_conditioned', network='none'}"
IMPORTED = "model.network={name='adm_unet', channels=32, labels=4}"


def recipe(*overrides: str) -> Recipe:
    return load_recipe("digits", [*overrides, "model.prediction.name=eps"])


@pytest.fixture
def images(tiny_images: Images) -> Images:
    """Twelve images with labels."""
    return replace(tiny_images, labels=np.arange(12) % 3)


def test_labels_are_the_images_own_or_the_given_one(images):
    """An image would be measured given the label of another, or without one."""
    assert told_labels(recipe(LABELLED), images) is None
    np.testing.assert_array_equal(told_labels(recipe(LABELLED, "likelihood.label='data'"), images), images.labels)
    np.testing.assert_array_equal(told_labels(recipe(LABELLED, "likelihood.label=9"), images), [9] * 12)


def test_labels_that_cannot_be_told_are_refused(images, tiny_images):
    """A likelihood would be called that of a label, of which the network was not told."""
    unlabelled = recipe("likelihood.label='data'")
    with pytest.raises(RecipeError, match=r"^--label data: network 'small_unet' does not use labels\. Train one that"):
        told_labels(unlabelled, images)
    with pytest.raises(RecipeError, match=r"^--label 10: expected data, or 0 to 9\.$"):
        told_labels(recipe(LABELLED, "likelihood.label=10"), images)
    with pytest.raises(DataError, match=r"^--label data: tiny/test has no labels\.$"):
        told_labels(recipe(LABELLED, "likelihood.label='data'"), tiny_images)
    with pytest.raises(RecipeError, match=r"likelihood\.label: expected 'data' or an integer"):
        recipe("likelihood.label='all'")


def test_an_imported_network_knows_its_own_labels():
    """Labels of a published network could not be given to images of data without any."""
    data = ("data.name=gaussian", "data.shape=[8, 8, 1]", "data.levels=17")
    assert count_labels(recipe(*data, IMPORTED), "--label 3") == 4
