# SPDX-License-Identifier: Apache-2.0
"""The authors' checkpoints can be imported, and a wrong configuration is refused with an explanation."""

from pathlib import Path

import jax
import msgpack
import numpy as np
import optax
import pytest
import tomli_w

from vdmkit.data.batches import batches
from vdmkit.errors import CheckpointError
from vdmkit.experiments import RunFolder, load_run
from vdmkit.experiments.importing import import_checkpoint
from vdmkit.importers.vdm import load_official, official_parameters
from vdmkit.recipes import load_recipe
from vdmkit.training.checkpoints import read_step


def test_every_checkpoint_is_read(case):
    """Step, weights, averages and moments of every checkpoint fit the model of its config."""
    names = official_parameters(case.template).keys()
    assert case.checkpoints
    for path in case.checkpoints:
        checkpoint = load_official(path, case.template)
        assert checkpoint.step >= 0
        for tree in (checkpoint.model, checkpoint.ema, checkpoint.mu, checkpoint.nu):
            assert official_parameters(tree).keys() == names


def test_names_are_those_of_the_reference(case):
    """Our parameters and the authors' correspond one to one."""
    reference = {key.removeprefix("grad_norm:") for key in case.training if key.startswith("grad_norm:")}
    assert official_parameters(case.template).keys() == reference


def test_configuration_is_a_valid_recipe(case, tmp_path):
    """The recipe of an imported run is valid."""
    path = tmp_path / "recipe.toml"
    path.write_text(tomli_w.dumps(case.tables))
    recipe = load_recipe(path)
    assert recipe.model.network.params["channels"] == case.tables["model"]["network"]["channels"]


@pytest.mark.costly
def test_an_imported_run_stands_where_the_checkpoint_does(tmp_path, tiny_images):
    """An imported run resumes with the step, parameters, averages and moments of the checkpoint."""
    folder, here = RunFolder(tmp_path / "run"), Path(__file__).parent / "cifar10-tiny"
    content = msgpack.unpackb((here / "checkpoints-0" / "ckpt-1.flax").read_bytes())
    # Its own moments are zero.
    content["opt_state"] = {"count": content["step"], "mu": content["ema_params"], "nu": content["params"]}
    path = tmp_path / "ckpt-1.flax"
    path.write_bytes(msgpack.packb(content))
    how = {"config": here / "config.json", "overrides": ["training.batch_size=4"]}
    step = int(import_checkpoint(path, folder, **how).state.step)
    state = load_run(folder.path).state
    file = load_official(path, state.model)
    assert (step, int(state.step)) == (file.step, file.step)
    assert {int(count) for _, count in optax.tree.get_all_with_path(state.opt_state, "count")} == {int(file.count)}
    mu, nu = (optax.tree.get(state.opt_state, name) for name in ("mu", "nu"))
    for found, given in ((state.model, file.model), (state.ema, file.ema), (mu, file.mu), (nu, file.nu)):
        jax.tree.map(np.testing.assert_array_equal, official_parameters(found), official_parameters(given))
    data, fresh = (batches(tiny_images, batch_size=4, seed=0) for _ in range(2))
    read_step(folder.checkpoints / str(step), state, data)
    expected = [next(fresh) for _ in range(step + 1)]
    np.testing.assert_array_equal(next(data)["image"], expected[step]["image"])


def test_another_model_does_not_fit(case):
    """Loading the weights into a deeper model is refused, and the error lists what is missing."""
    blocks = case.tables["model"]["network"]["blocks"]
    with pytest.raises(CheckpointError, match=f"down.block_{blocks}/conv1/kernel: nothing in the file"):
        load_official(case.checkpoints[0], case.deeper())
