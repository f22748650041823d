# SPDX-License-Identifier: Apache-2.0
"""The memory of a training step, computed from shapes only."""

import jax
import pytest

from vdmkit.errors import DataError
from vdmkit.experiments.speed import memory_of_step
from vdmkit.recipes import find_recipe, load_recipe
from vdmkit.recipes.build import count_parameters

SMALL = ["model.network.channels=8", "training.batch_size=8"]


@pytest.mark.costly
def test_the_state_is_four_times_the_parameters():
    """The training state is four float32 copies of the parameters: values, average, two moments of Adam."""
    recipe = load_recipe(find_recipe("digits"), SMALL)
    found = memory_of_step(recipe, fsdp=False)
    parameters = 4 * count_parameters(recipe, recipe.data.build())
    rest = 3 * 4 * 8 * 8 * 17  # level counts, which are part of the model, and small arrays
    assert 4 * parameters <= found.whole_state <= 4 * parameters + rest
    assert found.total == found.state + found.working > found.whole_state
    assert str(found).startswith(f"{found.total / 2**20:,.0f} MiB on each of {jax.device_count()} devices: state")


def test_a_batch_that_does_not_divide(monkeypatch):
    """A batch size that is not a multiple of the number of devices is refused."""
    monkeypatch.setattr(jax, "device_count", lambda: 3)
    with pytest.raises(DataError, match="batch_size = 8 does not divide over 3 devices"):
        memory_of_step(load_recipe(find_recipe("digits"), SMALL), fsdp=True)
