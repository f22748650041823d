# SPDX-License-Identifier: Apache-2.0
"""Shipped recipes can be named from any folder, and a file takes precedence over a name."""

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
    """Changes to a folder outside the recipes, with empty folders that tests write to."""
    monkeypatch.chdir(tmp_path)
    for folder in ("vdmkit/recipes/shipped/paper", "paper", "sub"):
        Path(folder).mkdir(parents=True)


@pytest.fixture
def shipped(monkeypatch, write) -> None:
    """Replaces the shipped recipes by two of the stub components."""
    write(name="vdmkit/recipes/shipped/plain.toml")
    write(text='extends = "../plain.toml"\nseed = 4\n', name="vdmkit/recipes/shipped/paper/plain.toml")
    monkeypatch.setattr(_names, "_PACKAGE", Path("vdmkit").resolve())


def test_every_recipe_of_the_checkout_has_a_name():
    """Every recipe of the checkout has a name, and the name leads to its file."""
    files = {str(path.relative_to(FOLDER)).removesuffix(".toml"): path for path in FOLDER.rglob("*.toml")}
    assert len(files) > 40
    assert shipped_recipes() == files
    assert {name: find_recipe(name) for name in files} == files


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_recipe_opens_with_what_it_is(name):
    """Every recipe begins with a one-line summary."""
    first = shipped_recipes()[name].read_text().split("\n")[0]
    assert first.startswith("# ")
    assert recipe_summary(shipped_recipes()[name]) == first[2:]
    assert first.endswith(".")
    assert len(first) <= 125


def test_an_installed_package_has_its_own(shipped):
    """Names lead to the recipes inside the package, not to a folder in the current directory."""
    Path("recipes").mkdir()
    Path("recipes/stray.toml").write_text("")
    assert list(shipped_recipes()) == ["paper/plain", "plain"]


def test_a_name_is_the_same_recipe_as_its_path(shipped):
    """Loading a recipe by name equals loading it by path."""
    assert load_recipe("paper/plain") == load_recipe(shipped_recipes()["paper/plain"])
    assert load_recipe(Path("paper") / "plain").seed == 4


@pytest.mark.parametrize("name", ["plain", "paper/plain"])
def test_a_file_wins(shipped, write, name):
    """A file takes precedence over a shipped recipe of the same name."""
    write(("seed = 3", "seed = 8"), name=name)
    assert find_recipe(name) == Path(name)
    assert load_recipe(name).seed == 8


def test_a_folder_does_not_hide_a_name(shipped):
    """A folder does not take precedence over a shipped recipe of the same name."""
    Path("plain").mkdir()
    assert find_recipe("plain") == shipped_recipes()["plain"]


def test_extends_takes_a_name(shipped, write):
    """`extends` accepts the name of a shipped recipe."""
    child = write(text='extends = "paper/plain"\n[training]\nsteps = 9\n', name="sub/child.toml")
    assert (load_recipe(child).seed, load_recipe(child).training.steps) == (4, 9)


def test_extends_finds_a_file_beside_the_recipe_first(shipped, write):
    """In `extends`, a file relative to the recipe takes precedence over a shipped recipe."""
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
    """An unknown name is refused with the nearest names; it cannot leave the folder of recipes."""
    with pytest.raises(RecipeError) as refused:
        load_recipe(name)
    assert str(refused.value).startswith(f"{name}: cannot read the recipe: ")
    assert str(refused.value).endswith(f".{advice}")


def test_what_is_no_file_is_not_answered_with_a_name(shipped):
    """A broken link is reported as such, even if it has the name of a shipped recipe."""
    Path("plain").symlink_to("nowhere")
    with pytest.raises(RecipeError) as refused:
        load_recipe("plain")
    assert str(refused.value) == "plain: cannot read the recipe: a link that leads nowhere."


def test_an_unknown_name_of_extends_says_where_it_is(write):
    """An unknown name in `extends` is reported with file and line."""
    with pytest.raises(RecipeError) as refused:
        load_recipe(write(text='seed = 1\nextends = "digts"\n'))
    expected = 'a.toml:2: extends: digts: no such file. The path is relative to a.toml. Did you mean "digits"'
    assert str(refused.value).startswith(expected)
