# SPDX-License-Identifier: Apache-2.0
"""The oracle recipes by command: what `vdmkit likelihood` prints is the known -log P, within the error it claims."""

import json
from pathlib import Path

import pytest

import vdmkit

RECIPES = Path(vdmkit.__file__).parents[1] / "recipes"
QUICK = ("--set", "evaluation.draws=2", "--set", "sampling.steps=1", "--set", "sampling.count=4")
# As many images in a batch as are solved again: one compilation.
ODE = (
    "--estimator",
    "ode",
    "--set",
    "likelihood.batch_size=4",
    "--set",
    "likelihood.estimator.rtol=1e-4",
    "--set",
    "likelihood.estimator.atol=1e-4",
)


def likelihood(program, *arguments: str, **options) -> tuple[str, dict]:
    """Of the folder `run`: the text, and the facts."""
    result = program("likelihood", "--ckpt", "run", *arguments, **options)
    assert result.code == 0, result.err
    return result.out, json.loads((program.cwd / result.written).read_text())


EXACT = ("--estimator", "ode", "--json", "--set", "likelihood.images=20", "--set", "likelihood.batch_size=20")
EXACT += ("--set", "likelihood.estimator.divergence=exact", "--set", "likelihood.estimator.rtol=1e-9")
EXACT += ("--set", "likelihood.estimator.atol=1e-9")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "exact"),
    [("gaussian", 2.5174), ("mixture", 2.6995), ("gaussian_continuous", -0.6159), ("mixture_continuous", 0.6037)],
)
def test_the_likelihood_is_the_exact_one(program, name, exact):
    """An estimator would be off by more than it says, or the truth beside it be another than the recipe's."""
    recipe = RECIPES / f"oracle_{name}.toml"
    assert f"is {exact} bits/dim exactly" in recipe.read_text()
    trained = program("run", str(recipe), "--out", "run", *QUICK)
    assert trained.code == 0, trained.err
    # The images are the same, so that Monte Carlo is all that may differ: twice its 95% half-width is false once in 1e4
    # seeds, and this one is fixed. The ends of the schedule cost the bound 1e-4.
    text, bound = likelihood(program)
    assert f"\n  exact         {exact}, the truth on these images\n" in text
    assert abs(bound["exact"] - exact) < 5e-5  # as rounded
    assert exact - 0.4 < bound["impossible_below"] < exact
    assert f"\n                less than {bound['impossible_below']:.4f} is impossible, and would be refused\n" in text
    coarse, few = likelihood(program, "--set", "likelihood.images=2", "--set", "likelihood.estimator.draws=2")
    assert "\n                Monte Carlo is too coarse to judge the number against it\n" in coarse
    assert few["impossible_below"] is None
    assert abs(bound["bpd"] - bound["exact"]) < 2 * bound["half_width_monte_carlo"] < 0.1
    # Of independent pixels the bound itself is known, by quadrature.
    assert (bound["exact_bound"] is not None) == name.startswith("gaussian")
    assert text.splitlines()[0].endswith("of a density on these 300 images") == name.endswith("continuous")
    if name.startswith("gaussian"):
        assert f"\n  exact bound   {bound['exact_bound']:.4f}, from infinitely many draws\n" in text
        assert abs(bound["exact_bound"] - bound["exact"]) < 1e-4
    # The solver adds an error of its own, which is measured on 4 images: 3 times that, for the others.
    text, ode = likelihood(program, *ODE)
    assert f"\n  exact         {exact}, the truth on these images\n" in text
    error = 2 * ode["half_width_monte_carlo"] + 3 * abs(ode["discretisation"])
    assert abs(ode["bpd"] - ode["exact"]) < error < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gaussian_continuous", "mixture_continuous"])
def test_in_float64_the_flow_is_exact(processes, name):
    """A float32 checkpoint could not be read in float64, or the flow be off by more than 1e-6 of the truth."""
    assert processes("run", str(RECIPES / f"oracle_{name}.toml"), "--out", "run", *QUICK).code == 0
    text, _ = likelihood(processes, *EXACT, x64=True)
    found = json.loads(text)
    assert found["precision"] == "float64"
    assert found["bpd"] == pytest.approx(found["exact"], rel=1e-6)
    assert found["half_width_monte_carlo"] == 0  # nothing is drawn
