# SPDX-License-Identifier: Apache-2.0
"""Names of vdmkit's own recipes: `digits` is recipes/digits.toml, `digits/edm` is recipes/digits/edm.toml."""

import difflib
import os
from pathlib import Path, PurePath

from vdmkit.errors import RecipeError
from vdmkit.paths import not_a_file

_PACKAGE = Path(__file__).parents[1]


def shipped_recipes() -> dict[str, Path]:
    """Returns the files of vdmkit's own recipes, by name, sorted.

    In a wheel they are inside the package; in a checkout, also one installed as editable, beside it.
    """
    inside, beside = _PACKAGE / "recipes", _PACKAGE.parent / "recipes"
    folder = inside if inside.is_dir() else beside
    files = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.toml")}
    return dict(sorted(files.items()))


def recipe_summary(path: Path) -> str:
    """Returns the first line of a recipe without its comment sign, which describes the recipe."""
    return path.read_text().partition("\n")[0].removeprefix("#").strip()


def find_recipe(name: str | os.PathLike[str]) -> Path:
    """Returns the file of a recipe, given by its path or by a name in `shipped_recipes`. A path takes precedence.

    Raises:
        RecipeError: neither a file nor a recipe has this name; the message suggests similar names.
    """
    path, advice = locate_recipe(name, Path())
    if reason := not_a_file(path):
        raise RecipeError(f"{os.fspath(name) or path}: cannot read the recipe: {reason}.{advice}")
    return path


def locate_recipe(name: str | os.PathLike[str], folder: Path) -> tuple[Path, str]:
    """Returns the file of the recipe called `name` in `folder`, and advice.

    If neither a file nor a recipe has this name, the file is `folder / name`, and the advice is sentences that start
    with a blank; otherwise the advice is empty.
    """
    path = folder / name
    if os.path.lexists(path) and not os.path.isdir(path):  # a folder `digits` does not hide the recipe `digits`
        return path, ""
    known = shipped_recipes()
    found = known.get(os.fspath(name))
    return (found, "") if found else (path, _advice(PurePath(name), list(known)))


def _advice(path: PurePath, known: list[str]) -> str:
    """Returns names whose last part is similar to that of `path`, and how to list all names.

    It returns '' for a .toml file without similar names.
    """
    last, last_parts = path.name.removesuffix(".toml"), {PurePath(one).name for one in known}
    alike = [last] if last in last_parts else difflib.get_close_matches(last, last_parts)
    near = [f'"{one}"' for part in alike for one in known if PurePath(one).name == part]
    if not near and path.suffix == ".toml":
        return ""
    question = f" Did you mean {_one_of(near)}?" if near else ""
    return f"{question} `vdmkit list recipe` shows the recipes that come with vdmkit."


def _one_of(names: list[str]) -> str:
    """Returns 'a, b or c'."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
