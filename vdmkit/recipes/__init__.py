# SPDX-License-Identifier: Apache-2.0
"""Recipes: TOML files that describe a run completely. Importing this package does not load JAX."""

from vdmkit.recipes.document import find_recipe, recipe_summary, shipped_recipes
from vdmkit.recipes.loading import load_recipe
from vdmkit.recipes.schema import Recipe
from vdmkit.recipes.validation import toml_text, type_name

__all__ = ["Recipe", "find_recipe", "load_recipe", "recipe_summary", "shipped_recipes", "toml_text", "type_name"]
