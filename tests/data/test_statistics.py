# SPDX-License-Identifier: Apache-2.0
"""Images of other levels are noticed, and images of the same source are not called different."""

import numpy as np
import pytest

from vdmkit.data import Digits, GaussianData, MixtureData
from vdmkit.data.identity import differences, statistics_of


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    return Digits().load("train").pixels, Digits().load("test").pixels


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda levels: levels // 2, "spread of levels"),
        (lambda levels: levels // 3, "mean level"),
        (lambda levels: 16 - levels, "mean level"),
    ],
)
@pytest.mark.parametrize("count", [297, 6])
def test_other_levels_are_a_large_difference(digits, change, name: str, count: int) -> None:
    """Digits with levels halved, divided by three or inverted are refused, even if they are few."""
    train, test = digits
    (worst, *_) = differences(statistics_of(train), statistics_of(change(test[:count])))
    assert worst.large
    assert worst.distance > 0.9
    assert count < 297 or worst.name == name


def test_a_little_darker_is_a_small_difference(digits) -> None:
    """A slight change of brightness is reported, and is not a change of scale."""
    train, test = digits
    found = differences(statistics_of(train), statistics_of((0.95 * test).astype(np.uint8)))
    assert found
    assert not any(one.large for one in found)


def test_the_order_of_channels_is_noticed() -> None:
    """Exchanged channels are noticed, though the levels of all channels together are the same."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 200, (300, 4, 4, 3)) + np.array([55, 20, 0])
    (found,) = differences(statistics_of(pixels), statistics_of(pixels[:200, ..., ::-1]))
    assert found.name == "first channel less the last"


@pytest.mark.parametrize(
    "source",
    [
        Digits(),
        Digits(validation=True),
        GaussianData(),
        MixtureData(),
        GaussianData(levels=0, basis="cosine"),
        MixtureData(levels=0),
    ],
)
def test_genuine_test_sets_do_not_differ(source) -> None:
    """The test set of a shipped source is neither refused nor marked."""
    train, test = (source.load(split).pixels for split in ("train", "test"))
    assert differences(statistics_of(train), statistics_of(test)) == []


def test_few_images_keep_the_false_alarm(digits) -> None:
    """2 images never differ: no order of 2 among 1,500 is as rare as a millionth. 3 can."""
    train = statistics_of(digits[0])
    black = statistics_of(np.zeros((3, 8, 8, 1), np.uint8))
    assert differences(train, black[:2]) == []
    assert differences(train, black)[0].large


def test_at_most_2000_images_are_looked_at() -> None:
    """Statistics are computed of at most 2,000 images."""
    assert statistics_of(np.zeros((5000, 1, 1, 1), np.uint8)).shape == (2000, 4)
