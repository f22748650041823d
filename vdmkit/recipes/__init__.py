# SPDX-License-Identifier: Apache-2.0
"""Recipes: TOML files that describe a run completely. Importing this package does not load JAX."""

from vdmkit.recipes.document import find_recipe, shipped_recipes
from vdmkit.recipes.loading import load_recipe
from vdmkit.recipes.schema import Recipe

__all__ = ["Recipe", "find_recipe", "load_recipe", "shipped_recipes"]
