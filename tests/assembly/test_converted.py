# SPDX-License-Identifier: Apache-2.0
"""What is said of a run that cannot be converted."""

import jax.numpy as jnp
import pytest

from vdmkit.assembly import converted_recipe, converted_template
from vdmkit.errors import RecipeError
from vdmkit.recipe import load_recipe

TINY = ["channels=32", "multipliers=[1.0]", "blocks=1", "attention=[]"]


def test_learned_variances_of_an_observation_cannot_be_converted():
    """The user would be told to change a prediction that the command itself has chosen."""
    trained = load_recipe("cifar10/iddpm", [f"model.network.{one}" for one in TINY])
    recipe = converted_recipe(trained, load_recipe("digits/flow_matching"))
    with pytest.raises(RecipeError) as refused:
        converted_template(recipe, jnp.zeros((4, 4, 3, 256), jnp.int32), "--to flow")
    assert str(refused.value) == (
        "--to flow: the run cannot be converted to prediction 'velocity', because a converted run keeps its "
        "observation. observation discretised_gaussian with learned = true: the prediction learns no variances."
    )
