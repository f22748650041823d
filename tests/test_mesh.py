# SPDX-License-Identifier: Apache-2.0
"""The placement of arrays on several devices."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from vdmkit import devices
from vdmkit.devices import devices_for, in_groups
from vdmkit.errors import RecipeError

SCRIPT = (
    f"HERE = {str(Path(__file__).parent)!r}"
    + """
from pathlib import Path
import jax, numpy as np
from vdmkit.recipes.build import build_optimizer, build_state, build_update
from vdmkit.devices import build_on, data_mesh, gather_local
from vdmkit.recipes import load_recipe
from vdmkit.training.loop import Loop

recipe = load_recipe(f"{HERE}/system/tiny.toml", ["data.name=digits"], [Path(f"{HERE}/system/tiny.py")])
counts = np.ones((8, 8, 1, 17), np.int32)
batch = {"image": np.arange(512, dtype=np.uint8).reshape(8, 8, 8, 1) % 17, "augmented": np.zeros(8, np.float32)}
ends = {}
for fsdp in (1, 4):
    state = build_on(data_mesh(8, fsdp), build_state, recipe, jax.numpy.asarray(counts), small=64)
    loop = Loop(build_update(recipe, build_optimizer(recipe)), iter([batch] * 3), jax.random.key(0), 8, 1)
    for state, step, metrics in loop.updates(state, 3, (3,)):
        pass
    leaves = jax.tree.leaves((state.model, state.opt_state))
    divided = [leaf for leaf in leaves if hasattr(leaf, "sharding") and not leaf.sharding.is_fully_replicated]
    print(len(divided) > 5, {str(leaf.addressable_shards[0].data.size * 4 == leaf.size) for leaf in divided})
    ends[fsdp] = [np.asarray(leaf) for leaf in jax.tree.leaves(gather_local(state.model)) if hasattr(leaf, "shape")]
for one, other in zip(ends[1], ends[4], strict=True):
    np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
print("equal")
"""
)


@pytest.mark.slow
def test_a_divided_state_trains_as_a_copied_one():
    """Training with FSDP gives the parameters of replicated training, and keeps the state sharded."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["False set()", "True {'True'}", "equal"], done.stderr


@pytest.mark.parametrize(
    ("shape", "small", "expected"),
    [
        ((3, 3, 64, 128), 0, (None, None, None, "fsdp")),
        ((3, 3, 128, 128), 0, (None, None, "fsdp")),  # the first of equals
        ((16, 6), 0, ("fsdp",)),
        ((6, 3), 0, ()),  # nothing divides
        ((), 0, ()),
        ((16, 16), 1025, ()),
        ((16, 16), 1024, ("fsdp",)),
    ],
)
def test_the_largest_dimension_that_divides_is_divided(shape, small, expected):
    """Large arrays are sharded along their largest divisible dimension; small ones are replicated."""
    leaf = jax.ShapeDtypeStruct(shape, jax.numpy.float32)
    assert tuple(devices._spec(leaf, 4, small)) == expected


def test_devices_that_do_not_divide(monkeypatch):
    """A group size that does not divide the number of devices is refused."""
    monkeypatch.setattr(jax, "device_count", lambda: 6)
    with pytest.raises(RecipeError, match="6 devices do not divide into groups of 4"):
        devices.data_mesh(12, 4)


def test_batches_on_few_devices(monkeypatch):
    """As few devices are used as the smallest number of rounds allows."""
    monkeypatch.setattr(jax, "local_device_count", lambda: 4)
    assert [devices_for(batches) for batches in (0, 1, 3, 4, 5, 6, 8, 9)] == [1, 1, 3, 4, 3, 3, 4, 3]
    assert in_groups(range(5), 2) == [range(2), range(2, 4), range(4, 5)]
