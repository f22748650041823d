# SPDX-License-Identifier: Apache-2.0
"""The recipes that come with vdmkit."""

from pathlib import Path

import pytest

import vdmkit
from vdmkit.recipes import load_recipe
from vdmkit.recipes.build import count_parameters, state_like

RECIPES = Path(vdmkit.__file__).parents[1] / "recipes"
FILES = sorted(RECIPES.rglob("*.toml"))
IDS = [str(path.relative_to(RECIPES)) for path in FILES]
# The authors' counts: PAPER.md section 11; the last is their configuration cifar10_aug_paper.
COUNTS = [
    ("vdm_cifar10.toml", (), 30_578_181, 691),
    ("vdm_cifar10_aug.toml", ("model.network.attention=false",), 122_140_677, 694),
    ("vdm_imagenet32.toml", (), 122_137_605, 691),
    ("vdm_imagenet64.toml", (), 237_603_845, 1331),
    ("vdm_cifar10_aug.toml", ("model.network.attention=true",), 139_279_877, 1344),
]


def test_there_are_recipes():
    """The tests below would look at nothing."""
    names = {path.name for path in FILES}
    assert names >= {name for name, *_ in COUNTS} | {"digits.toml", "digits_eps.toml", "cifar10_small.toml"}


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_every_recipe_is_valid(path):
    """A shipped recipe has a key that vdmkit does not know, or lacks one that it needs."""
    recipe = load_recipe(path)
    assert recipe.training.steps > 0


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_every_recipe_opens_with_what_it_reproduces(path):
    """A reader would not learn the number, its estimator, its data and its cost."""
    opening = path.read_text().split("\n\n")[0].split("extends")[0]
    assert all(line.startswith("#") for line in opening.splitlines() if not line.startswith("seed"))
    assert len(opening) > 100


LITERATURE = ["classifier_free", "ddim", "ddpm", "edm", "flow_matching", "i_dode"]
LITERATURE += ["iddpm", "iddpm_cosine", "min_snr"]
LITERATURE += ["score_sde_subvp", "score_sde_ve", "score_sde_vp", "v_prediction", "vdm", "vdm_plus_plus"]


@pytest.mark.parametrize(("data", "longest"), [("digits", 25), ("cifar10", 50)])
def test_the_literature_is_complete_and_short(data, longest):
    """A paper's model would be missing for one of the data sets, or be more than a few choices.

    Those for CIFAR-10 have the paper's network, optimiser and length of training besides.
    """
    paths = sorted((RECIPES / data).glob("*.toml"))
    assert [path.stem for path in paths] == LITERATURE
    assert all(len(path.read_text().splitlines()) <= longest for path in paths)
    assert all("# Published: " in path.read_text() for path in paths)


@pytest.mark.parametrize(("name", "overrides", "parameters", "leaves"), COUNTS, ids=lambda value: str(value))
def test_the_authors_parameter_counts(name, overrides, parameters, leaves):
    """The network would not be the authors', or counting would allocate the weights."""
    recipe = load_recipe(RECIPES / name, overrides)
    source = recipe.data.build()
    assert count_parameters(recipe, source) == parameters
    import jax

    assert len(jax.tree.leaves(state_like(recipe, source.shape, source.levels).ema)) == leaves
