# SPDX-License-Identifier: Apache-2.0
"""What the signs of trouble are given, and that the recipes that come with vdmkit begin without one."""

from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest

import vdmkit
from vdmkit.decoders import DiscretisedGaussian
from vdmkit.recipes import load_recipe
from vdmkit.recipes.build import health_facts
from vdmkit.training.health import open_levels, short_of_noise, slow_average

RECIPES = Path(vdmkit.__file__).parents[1] / "recipes"
# VE's smallest noise, as published, is 2.6 levels of CIFAR-10: its paper's likelihood is not the bound
OPEN_LEVELS = {"cifar10/score_sde_ve"}


def test_the_facts_are_those_of_model_and_images(digits_toml, tiny_model, tiny_images):
    """A warning would speak of other levels, ends or images than those of the training."""
    facts = health_facts(load_recipe(digits_toml, ["training.ema=0.5"]), tiny_model, tiny_images)
    assert (facts.gamma_min, facts.gamma_max, facts.levels, facts.spacing) == (-6.0, 5.0, 5, 0.4)
    x = 2 * (tiny_images.pixels + 0.5) / 5 - 1
    assert facts.mean_square == pytest.approx(np.mean(x**2), rel=1e-6)  # float32
    assert (facts.ema, facts.ema_warmup, facts.always_conditioned) == (0.5, True, None)


def test_a_decoder_that_asks_the_network_is_known(digits_toml, tiny_model, tiny_images):
    """DDPM's decoder, which denoises z_0, would be called unable to read the level."""
    model = eqx.tree_at(lambda model: model.observation, tiny_model, DiscretisedGaussian(5))
    assert health_facts(load_recipe(digits_toml), model, tiny_images).spacing is None


@pytest.mark.parametrize(
    ("network", "conditioned"),
    [
        ("{name='ddpmpp', labels=10}", "ddpmpp"),
        ("{name='ddpmpp'}", None),
        ("{name='label_conditioned', network={name='none'}}", None),
    ],
)
def test_networks_that_are_conditioned_on_every_label(digits_toml, tiny_model, tiny_images, network, conditioned):
    """The bound of images without labels would be reported of a network that never saw one, or a warning be wrong."""
    recipe = load_recipe(digits_toml, [f"model.network={network}"])
    assert health_facts(recipe, tiny_model, tiny_images).always_conditioned == conditioned


def test_raw_parameters_have_no_average(digits_toml, tiny_model, tiny_images):
    """An average that nothing evaluates would be called too slow."""
    recipe = load_recipe(digits_toml, ["evaluation.weights=raw"])
    assert health_facts(recipe, tiny_model, tiny_images).ema is None


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.toml")), ids=lambda path: path.stem)
def test_recipes_begin_without_trouble(path):
    """A published setting would be called a mistake."""
    recipe = load_recipe(path)
    schedule = recipe.model.schedule.build(key=jax.random.key(0))
    levels, training = recipe.data.build().levels, recipe.training
    assert short_of_noise(float(schedule.gamma_max), 0.5) is None
    assert slow_average(training.ema, training.ema_warmup, training.steps) is None
    if levels and recipe.model.observation.name == "categorical":
        found = open_levels(float(schedule.gamma_min), 2 / levels)
        assert bool(found) == (str(path.relative_to(RECIPES).with_suffix("")) in OPEN_LEVELS)
