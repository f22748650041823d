# SPDX-License-Identifier: Apache-2.0
"""Recipes: TOML files that describe a run completely. Importing this loads no JAX."""

from vdmkit.recipe._changed import changed_keys
from vdmkit.recipe._document import Override
from vdmkit.recipe._drawn import Drawn, drawn_by
from vdmkit.recipe._dump import differences, dump, flat, leaves, one_line, resolved
from vdmkit.recipe._given import as_overrides, as_text, overrides_between
from vdmkit.recipe._keys import keys_called
from vdmkit.recipe._load import load_for_run, load_recipe
from vdmkit.recipe._names import find_recipe, recipe_summary, shipped_recipes
from vdmkit.recipe._own import text_if_own
from vdmkit.recipe._recipe import (
    EvaluationSettings,
    LikelihoodSettings,
    ModelChoices,
    ObjectiveChoices,
    Recipe,
    SamplingSettings,
    TrainingSettings,
)
from vdmkit.recipe._toml import parse_toml, read_toml
from vdmkit.recipe._values import toml_text, type_name

__all__ = [
    "Drawn",
    "EvaluationSettings",
    "LikelihoodSettings",
    "ModelChoices",
    "ObjectiveChoices",
    "Override",
    "Recipe",
    "SamplingSettings",
    "TrainingSettings",
    "as_overrides",
    "as_text",
    "changed_keys",
    "differences",
    "drawn_by",
    "dump",
    "find_recipe",
    "flat",
    "keys_called",
    "leaves",
    "load_for_run",
    "load_recipe",
    "one_line",
    "overrides_between",
    "parse_toml",
    "read_toml",
    "recipe_summary",
    "resolved",
    "shipped_recipes",
    "text_if_own",
    "toml_text",
    "type_name",
]
