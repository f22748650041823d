# SPDX-License-Identifier: Apache-2.0
"""Sources that know what their images are drawn from."""

import numpy as np
import pytest

from vdmkit.data import Digits, GaussianData, MixtureData
from vdmkit.errors import RecipeError
from vdmkit.recipes import load_recipe
from vdmkit.recipes.build import state_like

SOURCES = [GaussianData, MixtureData]


@pytest.mark.parametrize("source", SOURCES)
def test_a_split_is_the_same_again_and_not_the_other(source) -> None:
    """A split is reproducible, and the two splits are independent."""
    train, test = (source(train_count=50, test_count=50).load(split) for split in ("train", "test"))
    assert source(train_count=50).load("train").identity == train.identity
    assert train.identity.sha256 != test.identity.sha256
    assert source(train_count=50, seed=1).load("train").identity.sha256 != train.identity.sha256


@pytest.mark.parametrize("source", SOURCES)
def test_images_are_what_the_source_says(source) -> None:
    """Shape, levels and distribution are those of the images."""
    made = source(shape=(3, 2, 2), levels=6, train_count=7)
    images = made.load("train")
    assert images.pixels.shape == (7, *made.shape) == (7, *made.distribution.shape) == (7, 3, 2, 2)
    assert images.levels == made.levels == made.distribution.levels == 6
    assert images.identity.published is None


def test_the_gaussians_spread_falls_geometrically() -> None:
    """Standard deviations fall geometrically from `sd_max` to `sd_min`."""
    sds = np.ravel(GaussianData(sd_max=0.8, sd_min=0.1).distribution.sds)
    np.testing.assert_allclose(sds[[0, -1]], [0.8, 0.1], rtol=1e-12)
    np.testing.assert_allclose(sds[1:] / sds[:-1], 8 ** (-1 / 15), rtol=1e-12)


def test_the_mixtures_means_alternate_like_a_chequerboard() -> None:
    """Means of neighbours differ in sign, and weights are normalised."""
    made = MixtureData(shape=(2, 3, 1), weights=(1.0, 3.0), means=(0.5, 0.25), sds=(0.1, 0.2)).distribution
    assert made.weights == (0.25, 0.75)
    np.testing.assert_array_equal(made.means[0], [0.5, -0.5, 0.5, -0.5, 0.5, -0.5])
    np.testing.assert_array_equal(made.sds[1], 6 * [0.2])


@pytest.mark.parametrize(
    ("source", "parameters", "message"),
    [
        (GaussianData, {"sd_min": 0.6}, "sd_min = 0.6, sd_max = 0.5"),
        (GaussianData, {"test_count": 0}, "at least 1 image"),
        (GaussianData, {"levels": 300}, "expected 2 to 256"),
        (MixtureData, {"weights": (1.0,)}, "1 weights, 3 means, 3 sds"),
        (MixtureData, {"weights": (1.0, -1.0, 1.0)}, "positive"),
        (MixtureData, {"weights": (0.0, 0.0, 0.0)}, "positive"),
        (MixtureData, {"weights": (), "means": (), "sds": ()}, "positive"),
        (GaussianData, {"shape": (0, 4, 1)}, "height"),
    ],
)
def test_parameters_of_no_distribution_are_refused(source, parameters: dict, message: str) -> None:
    """Parameters that define no distribution raise RecipeError."""
    with pytest.raises(RecipeError, match=message):
        source(**parameters)


def test_the_exact_prediction_needs_data_that_knows_its_distribution(digits_toml) -> None:
    """The exact prediction is refused for data without a distribution."""
    assert Digits().distribution is None
    recipe = load_recipe(digits_toml, ["model.prediction.name=exact", "model.network.name=none"])
    with pytest.raises(
        RecipeError, match="prediction exact: the data's distribution is not known; use data gaussian or"
    ):
        state_like(recipe, (8, 8, 1), 17)


def test_nothing_of_an_oracle_is_trained(digits_toml) -> None:
    """The distribution of the data has no trainable parameters."""
    fixed = ["data.name=mixture", "model.schedule.name=fixed_linear"]
    recipe = load_recipe(digits_toml, [*fixed, "model.prediction.name=exact", "model.network.name=none"])
    import jax

    state = state_like(recipe, (4, 4, 1), 9)
    assert jax.tree.leaves((state.model, state.ema)) == []
    assert state.model.prediction.distribution == MixtureData().distribution
