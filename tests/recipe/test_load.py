# SPDX-License-Identifier: Apache-2.0
"""Resolving a recipe: defaults, `extends`, `--set`, and writing it back to TOML."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest

from vdmkit.errors import RecipeError
from vdmkit.recipes import load_recipe
from vdmkit.recipes.schema import differences, dump, resolved
from vdmkit.registry import Choice, register


def test_defaults_are_filled_in(write):
    """Omitted keys take the defaults of the constructors, and the resolved recipe shows them."""
    recipe = load_recipe(write())
    assert recipe.model.path == Choice("path", "variance_preserving")
    assert recipe.model.network.params["attention"] is False
    assert recipe.training.ema == 0.9999
    assert recipe.sampling.sampler == Choice("sampler", "ancestral", {"solver_steps": 1})
    assert resolved(recipe)["objective"]["weighting"] == {"name": "elbo"}


def test_values_become_what_the_signature_asks_for(write):
    """TOML values are converted to the annotated types: int to float, list to tuple, string to path."""
    recipe = load_recipe(write(("gamma_min = -13", "gamma_min = -13\nends = [1, 2.5]")))
    assert recipe.data.params["path"] == Path("images")
    assert recipe.model.schedule.params["ends"] == (1.0, 2.5)
    assert isinstance(recipe.model.schedule.params["gamma_min"], float)


def test_build_injects_context_and_passes_keys(write):
    """A component is built from its recipe keys and the injected arguments it declares."""
    schedule = load_recipe(write()).model.schedule.build(key=7, shape="not asked for")
    assert (schedule.key, schedule.gamma_min, schedule.gamma_max) == (7, -13.0, 5.0)


def test_round_trip(write):
    """Dumping a recipe and loading it gives the same recipe and text."""
    recipe = load_recipe(write(), ["data.limit=5", "sampling.minutes=0.5", 'objective.time_sampler="independent"'])
    text = dump(recipe)
    again = load_recipe(write(text=text, name="resolved.toml"))
    assert again == recipe
    assert dump(again) == text


def test_differences_names_the_keys(write):
    """`differences` lists the keys that differ between two recipes."""
    a = load_recipe(write())
    b = load_recipe(write(), ["training.steps=7", "data.limit=3", "model.network.channels=64"])
    assert differences(a, a) == []
    assert differences(a, b) == ["training.steps", "data.limit"]


def test_extends_merges_tables_and_replaces_lists(write):
    """A child recipe merges its tables into its parent's, and replaces lists."""
    write(name="parent.toml")
    child = 'extends = "parent.toml"\naugmentations = ["flip"]\n[model.network]\nattention = true\n'
    recipe = load_recipe(write(text=child))
    assert recipe.model.network.params["channels"] == 64
    assert recipe.model.network.params["attention"] is True
    assert recipe.augmentations == (Choice("augmentation", "flip"),)


def test_another_name_replaces_the_table(write):
    """Choosing a different component drops the parent's keys of the old one."""
    write(name="parent.toml")
    child = 'extends = "parent.toml"\n[model.schedule]\nname = "linear"\n'
    assert load_recipe(write(text=child)).model.schedule.params == {"gamma_min": -13.3, "gamma_max": 5.0}


def test_extends_is_relative_to_the_file_and_chains(write):
    """`extends` is relative to the file that contains it, and may be chained."""
    Path("sub").mkdir()
    write(name="base.toml")
    write(text='extends = "../base.toml"\nseed = 4\n', name="sub/middle.toml")
    recipe = load_recipe(write(text='extends = "sub/middle.toml"\n[training]\nsteps = 9\n'))
    assert (recipe.seed, recipe.training.steps, recipe.training.batch_size) == (4, 9, 8)


def test_circles_are_refused(write):
    """Recipes that extend each other are refused."""
    write(text='extends = "b.toml"\n', name="a.toml")
    write(text='extends = "a.toml"\n', name="b.toml")
    with pytest.raises(RecipeError, match=r"circular: \S*a.toml -> \S*b.toml -> \S*a.toml"):
        load_recipe("a.toml")


def test_set_wins_over_the_file_and_the_last_set_wins(write):
    """`--set` overrides the file, and a later `--set` overrides an earlier one."""
    write(name="parent.toml")
    child = write(text='extends = "parent.toml"\n[training]\nsteps = 9\n')
    recipe = load_recipe(child, ["training.steps=10", "seed=5", "training.steps=11"])
    assert (recipe.training.steps, recipe.seed) == (11, 5)


def test_set_values_are_toml_or_else_strings(write):
    """A value of `--set` that is not valid TOML is a string."""
    recipe = load_recipe(write(), ["data.path=../a b/c.tar", 'data.split="test"', "model.network.copy=x"])
    assert recipe.data.params["path"] == Path("../a b/c.tar")
    assert recipe.data.params["split"] == "test"


def test_set_may_choose_another_component_and_its_keys_in_any_order(write):
    """The order of `--set` for a component's name and for its keys does not matter."""
    changes = ["model.schedule.gamma_max=4.5", "model.schedule.name=linear"]
    for overrides in (changes, changes[::-1]):
        schedule = load_recipe(write(), overrides).model.schedule
        assert schedule == Choice("schedule", "linear", {"gamma_min": -13.3, "gamma_max": 4.5})


def test_keys_of_a_component_that_is_only_named(write):
    """`--set` can change the keys of a component given as a string."""
    recipe = load_recipe(write(('"flip", ', "")), ["optimizer.learning_rate=1"])
    assert recipe.optimizer.params == {"learning_rate": 1.0}


def test_a_default_component_keeps_its_keys(write):
    """The keys of a default component are the same in a recipe as in Python."""

    @register("network", "told")
    @dataclass(frozen=True, kw_only=True)
    class Told:
        """A stub of a network whose default component has keys."""

        axis: Annotated[Choice, "schedule"] = Choice("schedule", "linear", {"gamma_max": 4.0})

    def axis(*overrides: str) -> Choice:
        choice = load_recipe(write(("channels = 64", "")), ["model.network.name=told", *overrides]).model.network
        return choice.params["axis"]

    assert axis() == Choice("schedule", "linear", {"gamma_min": -13.3, "gamma_max": 4.0})
    assert axis("model.network.axis.gamma_min=-9.0").params == {"gamma_min": -9.0, "gamma_max": 4.0}
    assert axis("model.network.axis=linear").params == {"gamma_min": -13.3, "gamma_max": 5.0}
