# SPDX-License-Identifier: Apache-2.0
"""The conformance checks of all components of a recipe, which run before a number is trusted."""

import re
from pathlib import Path

import pytest

import vdmkit
from vdmkit.conformance.checking import Findings
from vdmkit.conformance.recipe import check_data_of_recipe, check_measurement_of_recipe, check_training_of_recipe
from vdmkit.errors import UntrustedError
from vdmkit.recipes import load_recipe
from vdmkit.recipes.build import build_state, training_counts

ROOT = Path(vdmkit.__file__).parents[1]
SYSTEM = ROOT / "tests" / "system"
LIES = {
    "model.observation.name=fat": "observation 'fat' of .*lying.py: .* sum to more than 1: .* 0.20.. bits/dim too low",
    "model.observation.name=upper_half": "observation 'upper_half' of .*: .* sum to more than 1: .* bits/dim too low",
    "model.path.name=half_the_noise": "path 'half_the_noise' of .*: log sigma.2 / alpha.2 = -9.38629 at gamma = -8",
    "model.prediction.name=stopped": "prediction 'stopped' of .*: the derivative of eps_hat by JAX is .* stopped",
    "model.network.name=sociable": "network 'sociable' of .*: the output for one image changes by up to .* its batch",
    "model.schedule.name=jumps": "schedule 'jumps' of .*: gamma's rise is not the integral of its derivative",
    "objective.kernel.name=half_kl": r"kernel 'half_kl' of .*: its KL\(q \|\| p\) is .* nats, and by quadrature",
    "objective.grid.name=cut_short": "grid 'cut_short' of .*: the ends are not the schedule's: they go from",
    "objective.time_sampler.name=early": "time_sampler 'early' of .*: the weighted share of times from 0 to 0.1 is 0.3",
    "objective.weighting.name=negative": "weighting 'negative' of .*: w = -1 at gamma",
    "likelihood.estimator.name=without_prior": "estimator 'without_prior' of .*: .* it does not bound -log P",
    "data.name=changing": "data 'changing' of .*: test loads with other pixels",
}


def findings_of(path: Path, *overrides: str, plugins: tuple[Path, ...] = ()) -> Findings:
    """Returns the findings of `vdmkit run` and `vdmkit likelihood` on a recipe's components, before training."""
    recipe = load_recipe(path, overrides, plugins)
    source = recipe.data.build()
    train, test = source.load("train"), source.load("test")
    found = check_data_of_recipe(recipe, source, train, test) + check_training_of_recipe(recipe, train)
    if found.problems:
        return found
    model = build_state(recipe, training_counts(recipe, train)).ema_model
    return found + check_measurement_of_recipe(recipe, model, test)


FIRST = ["model.observation.name=fat", "data.name=changing"]  # the others compile as much again
SOME = [*FIRST, *(pytest.param(lie, marks=pytest.mark.system) for lie in LIES if lie not in FIRST)]


@pytest.mark.costly
@pytest.mark.parametrize("lie", SOME)
def test_a_component_that_lies_is_refused(lie):
    """A component that would make the reported number too low is refused."""
    overrides = [
        "data.name=digits",
        "model.network.name=none",
        "objective.time_sampler.name=uniform",
        "sampling.steps=4",
    ]
    if lie.startswith(("objective.kernel", "objective.grid")):
        overrides.append("objective.steps=4")
    if "stopped" in lie or "sociable" in lie:
        overrides.append("model.prediction.name=eps")
    if "stopped" in lie:
        overrides.append("model.network.name=tiny")
    plugins = (SYSTEM / "tiny.py", SYSTEM / "lying.py")
    found = findings_of(SYSTEM / "tiny.toml", *overrides, lie, plugins=plugins)
    assert len(found.problems) == 1
    assert re.search(LIES[lie], found.problems[0]), found.problems
    with pytest.raises(UntrustedError, match="no number of this model can be trusted") as refused:
        found.refuse()
    assert refused.value.exit_code == 4


QUICK = ["oracle_gaussian.toml", "digits.toml", "digits_few_steps.toml", "oracle_mixture_continuous.toml"]
OTHERS = sorted(
    str(path.relative_to(ROOT / "recipes"))
    for folder in ("recipes", "recipes/digits")
    for path in (ROOT / folder).glob("*.toml")
    if not path.name.startswith(("vdm_", "cifar10")) and path.name not in QUICK
)


RECIPES = [QUICK[0], *(pytest.param(name, marks=pytest.mark.system) for name in QUICK[1:])]
RECIPES += [pytest.param(name, marks=pytest.mark.slow) for name in OTHERS]


@pytest.mark.parametrize("name", RECIPES)
def test_the_components_of_a_recipe_are_not_refused(name):
    """The components of every shipped recipe pass the checks."""
    network = () if name.startswith("oracle") else ("model.network.channels=8",)
    if "classifier_free" in name:
        network = ("model.network.network.channels=8",)
    assert findings_of(ROOT / "recipes" / name, *network).problems == ()


@pytest.mark.system
def test_what_cannot_be_checked_is_said():
    """Properties that could not be checked are listed as remarks."""
    assert findings_of(ROOT / "recipes" / "oracle_mixture_continuous.toml").remarks == (
        "It was not checked whether the probabilities of observation 'gaussian' sum to 1.",
    )
    assert findings_of(ROOT / "recipes" / "oracle_gaussian.toml").remarks == ()
    chosen = ("data.name=boastful", "model.network.name=none", "sampling.steps=4")
    plugins = (SYSTEM / "tiny.py", SYSTEM / "lying.py")
    remarks = findings_of(SYSTEM / "tiny.toml", *chosen, plugins=plugins).remarks
    assert len(remarks) == 1
    assert "not checked whether the exact likelihood that data 'boastful' of" in remarks[0]
