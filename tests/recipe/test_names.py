# SPDX-License-Identifier: Apache-2.0
"""Recipes that come with vdmkit go by name from every folder, and a file wins over a name."""

from pathlib import Path

import pytest

import vdmkit
from vdmkit.errors import RecipeError
from vdmkit.recipes import document as _names
from vdmkit.recipes import find_recipe, load_recipe, shipped_recipes
from vdmkit.recipes.document import recipe_summary

FOLDER = Path(vdmkit.__file__).parents[1] / "recipes"
LIST = "`vdmkit list recipe` shows the recipes that come with vdmkit."


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """A folder to work in, which is not that of the recipes, with empty folders that tests write to."""
    monkeypatch.chdir(tmp_path)
    for folder in ("vdmkit/recipes/shipped/paper", "paper", "sub"):
        Path(folder).mkdir(parents=True)


@pytest.fixture
def shipped(monkeypatch, write) -> None:
    """The recipes of a vdmkit that has two, of the stub components."""
    write(name="vdmkit/recipes/shipped/plain.toml")
    write(text='extends = "../plain.toml"\nseed = 4\n', name="vdmkit/recipes/shipped/paper/plain.toml")
    monkeypatch.setattr(_names, "_PACKAGE", Path("vdmkit").resolve())


def test_every_recipe_of_the_checkout_has_a_name():
    """False if a recipe could be run by its path alone, or a name led to another file."""
    files = {str(path.relative_to(FOLDER)).removesuffix(".toml"): path for path in FOLDER.rglob("*.toml")}
    assert len(files) > 40
    assert shipped_recipes() == files
    assert {name: find_recipe(name) for name in files} == files


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_recipe_opens_with_what_it_is(name):
    """False if `vdmkit list recipe` showed half a sentence, or a line too long to read."""
    first = shipped_recipes()[name].read_text().split("\n")[0]
    assert first.startswith("# ")
    assert recipe_summary(shipped_recipes()[name]) == first[2:]
    assert first.endswith(".")
    assert len(first) <= 125


def test_an_installed_package_has_its_own(shipped):
    """False if a wheel, which holds the recipes inside the package, were searched beside it."""
    Path("recipes").mkdir()
    Path("recipes/stray.toml").write_text("")
    assert list(shipped_recipes()) == ["paper/plain", "plain"]


def test_a_name_is_the_same_recipe_as_its_path(shipped):
    """False if a run could not be gone on with by the other way to name its recipe."""
    assert load_recipe("paper/plain") == load_recipe(shipped_recipes()["paper/plain"])
    assert load_recipe(Path("paper") / "plain").seed == 4


@pytest.mark.parametrize("name", ["plain", "paper/plain"])
def test_a_file_wins(shipped, write, name):
    """False if a user's own file could not be trained because vdmkit has a recipe of that name."""
    write(("seed = 3", "seed = 8"), name=name)
    assert find_recipe(name) == Path(name)
    assert load_recipe(name).seed == 8


def test_a_folder_does_not_hide_a_name(shipped):
    """False if a folder of images called `plain` kept `vdmkit run plain` from its recipe."""
    Path("plain").mkdir()
    assert find_recipe("plain") == shipped_recipes()["plain"]


def test_extends_takes_a_name(shipped, write):
    """False if a recipe outside the checkout could not build on one of vdmkit's."""
    child = write(text='extends = "paper/plain"\n[training]\nsteps = 9\n', name="sub/child.toml")
    assert (load_recipe(child).seed, load_recipe(child).training.steps) == (4, 9)


def test_extends_finds_a_file_beside_the_recipe_first(shipped, write):
    """False if a name of a later vdmkit could replace the file that a recipe was written with."""
    write(text=f'extends = "{shipped_recipes()["plain"]}"\nseed = 6\n', name="sub/plain")
    assert load_recipe(write(text='extends = "plain"\n', name="sub/child.toml")).seed == 6


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("digts", f' Did you mean "digits" or "digits_eps"? {LIST}'),
        ("edm", f' Did you mean "cifar10/edm", "digits/edm" or "imagenet64/edm"? {LIST}'),
        ("recipes/digits_eps.toml", f' Did you mean "digits_eps"? {LIST}'),
        ("./digits_eps", f' Did you mean "digits_eps"? {LIST}'),
        ("../recipes/digits_eps", f' Did you mean "digits_eps"? {LIST}'),
        ("zzz", f" {LIST}"),
        ("zzz\0", ""),
        ("my_images.toml", ""),
    ],
)
def test_an_unknown_name_is_refused_with_those_that_are_near(name, advice):
    """False if a typing mistake had to be looked up, or a name could leave the folder of recipes."""
    with pytest.raises(RecipeError) as refused:
        load_recipe(name)
    assert str(refused.value).startswith(f"{name}: cannot read the recipe: ")
    assert str(refused.value).endswith(f".{advice}")


def test_what_is_no_file_is_not_answered_with_a_name(shipped):
    """False if a broken link called `plain` were passed over in silence, or answered by "Did you mean plain?"."""
    Path("plain").symlink_to("nowhere")
    with pytest.raises(RecipeError) as refused:
        load_recipe("plain")
    assert str(refused.value) == "plain: cannot read the recipe: a link that leads nowhere."


def test_an_unknown_name_of_extends_says_where_it_is(write):
    """False if the message of a chain of recipes did not say which of them to correct."""
    with pytest.raises(RecipeError) as refused:
        load_recipe(write(text='seed = 1\nextends = "digts"\n'))
    expected = 'a.toml:2: extends: digts: no such file. The path is relative to a.toml. Did you mean "digits"'
    assert str(refused.value).startswith(expected)
