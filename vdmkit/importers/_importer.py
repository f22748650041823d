# SPDX-License-Identifier: Apache-2.0
"""The interface of importers, each of which knows the checkpoints of one family."""

import abc
from collections.abc import Collection, Mapping
from typing import Any

from vdmkit.importers.files._adam import Arrays
from vdmkit.model import DiffusionModel
from vdmkit.registry import define_kind

Config = Mapping[str, Any]
"""The authors' configuration, as JSON gives it."""


class AbstractImporter(abc.ABC):
    """Makes a recipe of the authors' configuration, and puts their arrays into its model.

    An implementer supplies `recipe`, `shape` and `filled`. A plugin's has `recognises` too, unless its files are always
    imported with `--family`.
    """

    @abc.abstractmethod
    def recipe(self, config: Config) -> dict[str, Any]:
        """Returns the tables of the recipe.

        Raises:
            CheckpointError: a field is unknown, missing, or has a value without counterpart here; all are listed.
        """

    @abc.abstractmethod
    def shape(self, config: Config) -> tuple[int, int, int]:
        """Returns height, width and channels of the images."""

    @abc.abstractmethod
    def filled(self, model: DiffusionModel, arrays: Arrays, config: Config) -> DiffusionModel:
        """Returns the model with the authors' arrays instead of its own, which are `jax.ShapeDtypeStruct`.

        It may empty `arrays`, so that a large file is in memory once.

        Raises:
            CheckpointError: paths or shapes do not fit; all of them are listed.
        """

    def recognises(self, names: Collection[str]) -> bool:
        """Returns whether these names of arrays are of this family. vdmkit's own families are known by `family_of`."""
        return False

    def configuration(self, found: Config, given: Config | None) -> Config | None:
        """Returns the configuration: by default the given one, without those that the file has. None if it is missing.

        Args:
            found: Configurations in the file: see `Weights`.
            given: The file of --config.
        """
        return given

    def remarks(self, config: Config) -> list[str]:
        """Returns what the user should know of the imported model, in sentences."""
        return []


define_kind("importer", "a family of other codebases' checkpoints, which `vdmkit import` reads", AbstractImporter)
