# SPDX-License-Identifier: Apache-2.0
"""The resolved recipe, with the keys marked that are not vdmkit's defaults."""

from vdmkit.page._blocks import File, Section, Table, Words, section
from vdmkit.page._shown import Shown
from vdmkit.recipes.validation import toml_text


def recipe(shown: Shown) -> list[Section]:
    """Returns the section on the recipe."""
    keys = shown.files.recipe
    changed = shown.seen.changed if shown.seen else frozenset[str]()
    marked = frozenset(number for number, key in enumerate(keys) if key in changed)
    rows = [(key, toml_text(value)) for key, value in keys.items()]
    known = (
        "Marked: keys that differ from vdmkit's defaults, or have none."
        if shown.seen
        else "Which keys are defaults is not known without the model."
    )
    given = [File("recipe.toml, as it was given", shown.files.given_recipe)] if shown.files.given_recipe else []
    return section(
        "Recipe", [Words(known), Table("The resolved recipe (resolved.toml)", ("key", "value"), rows, marked), *given]
    )
