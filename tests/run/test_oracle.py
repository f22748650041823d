# SPDX-License-Identifier: Apache-2.0
"""The oracle recipes, from training without parameters to the bound of the checkpoint."""

from pathlib import Path

import numpy as np
import pytest

import vdmkit
from vdmkit.experiments import RunFolder, load_run
from vdmkit.experiments.measure import evaluate
from vdmkit.experiments.run import run_recipe
from vdmkit.losses import bits_per_dim
from vdmkit.recipes import load_recipe

RECIPES = Path(vdmkit.__file__).parents[1] / "recipes"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gaussian", "mixture"])
def test_the_reported_bound_is_the_exact_likelihood_within_its_interval(name: str, tmp_path) -> None:
    """On data of known -log P, the reported interval contains the exact bits/dim."""
    path = RECIPES / f"oracle_{name}.toml"
    recipe = load_recipe(path, ["sampling.steps=4", "sampling.count=4"])
    evaluation = run_recipe(recipe, path.read_text(), RunFolder(tmp_path / "run"), ())
    source = recipe.data.build()
    test = source.load("test")
    exact = bits_per_dim(source.distribution.nats(test.pixels), 16).mean()
    assert f"{exact:.4f} bits/dim exactly" in path.read_text()
    # The images are the same, so the only difference is Monte Carlo error. It exceeds twice its 95% half-width for one
    # seed in 1e4, and the seed is fixed. The ends cost 1e-4.
    assert abs(evaluation.bpd - exact) < 2 * evaluation.half_width_monte_carlo < 0.1
    assert evaluation.bpd_low < exact < evaluation.bpd_high
    assert 0 <= evaluation.prior + evaluation.reconstruction < 1e-4
    loaded = load_run(tmp_path / "run")
    assert loaded.step == 1
    again = evaluate(loaded.model("ema"), test, loaded.recipe, step=1)
    np.testing.assert_allclose(again.bpd, evaluation.bpd, rtol=1e-6)  # float32; the same program and key
