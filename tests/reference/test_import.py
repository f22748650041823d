# SPDX-License-Identifier: Apache-2.0
"""The authors' checkpoints become models of ours, and a wrong configuration is explained."""

import pytest
import tomli_w

from vdmkit.checkpoint import load_official, official_parameters
from vdmkit.errors import CheckpointError
from vdmkit.recipe import load_recipe


def test_every_checkpoint_is_read(case):
    """Otherwise a checkpoint's step, weights, averages or moments do not fit the model that its config describes."""
    names = official_parameters(case.template).keys()
    assert case.checkpoints
    for path in case.checkpoints:
        checkpoint = load_official(path, case.template)
        assert checkpoint.step >= 0
        for tree in (checkpoint.model, checkpoint.ema, checkpoint.mu, checkpoint.nu):
            assert official_parameters(tree).keys() == names


def test_names_are_those_of_the_reference(case):
    """Otherwise a parameter of ours has no counterpart in the authors' tree, or one of theirs none in ours."""
    reference = {key.removeprefix("grad_norm:") for key in case.training if key.startswith("grad_norm:")}
    assert official_parameters(case.template).keys() == reference


def test_configuration_is_a_valid_recipe(case, tmp_path):
    """Otherwise an imported run could not be continued: its recipe has keys or values that vdmkit refuses."""
    path = tmp_path / "recipe.toml"
    path.write_text(tomli_w.dumps(case.tables))
    recipe = load_recipe(path)
    assert recipe.model.network.params["channels"] == case.tables["model"]["network"]["channels"]


def test_another_model_does_not_fit(case):
    """Otherwise weights of one model could be loaded into a deeper one, or the message hides what is missing."""
    blocks = case.tables["model"]["network"]["blocks"]
    with pytest.raises(CheckpointError, match=f"down.block_{blocks}/conv1/kernel: nothing in the file"):
        load_official(case.checkpoints[0], case.deeper())
