# SPDX-License-Identifier: Apache-2.0
"""The recipe of a run that is converted."""

import equinox as eqx
import jax.numpy as jnp
import pytest

from vdmkit.errors import RecipeError
from vdmkit.experiments.conversion import converted_recipe
from vdmkit.recipes import Recipe, load_recipe
from vdmkit.recipes.build import build_prediction, build_state
from vdmkit.registry import Choice

TINY = ["channels=32", "multipliers=[1.0]", "blocks=1", "attention=[]"]
FLOW = Choice("prediction", "velocity")
COUNTS = jnp.zeros((4, 4, 3, 256), jnp.int32)


@pytest.fixture
def converted() -> Recipe:
    """An iDDPM as flow matching."""
    trained = load_recipe("cifar10/iddpm", [f"model.network.{one}" for one in TINY])
    return converted_recipe(trained, load_recipe("digits/flow_matching"))


def test_learned_variances_stay_beside_the_new_prediction(converted):
    """An iDDPM could be converted to no other prediction, as its decoder and its kernel read variances."""
    assert converted.model.prediction == Choice("prediction", "with_range", {"of": FLOW})
    assert eqx.filter_eval_shape(build_state, converted, COUNTS).model.network.inner.outputs == 2


def test_learned_variances_are_not_wrapped_twice(converted):
    """The variances of a model that is converted once more would be read from an output that it has not."""
    again = converted_recipe(converted, load_recipe("digits/v_prediction"))
    assert again.model.prediction == Choice("prediction", "with_range", {"of": Choice("prediction", "v")})
    twice = Choice("prediction", "with_range", {"of": again.model.prediction})
    with pytest.raises(RecipeError, match="with_range of with_range: it has 2 outputs itself"):
        twice.build()
    assert build_prediction(again, COUNTS).outputs == 2
