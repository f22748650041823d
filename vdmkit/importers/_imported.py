# SPDX-License-Identifier: Apache-2.0
"""The result of an importer, from which a run folder is made."""

from dataclasses import dataclass

from vdmkit.recipe import Recipe
from vdmkit.training import TrainState


@dataclass(frozen=True)
class Imported:
    """A recipe, as text and parsed, with its training state.

    `shape` (h, w, c) and `levels` describe its images; `sha256` is the hash of the imported file.
    """

    recipe: Recipe
    text: str
    state: TrainState
    shape: tuple[int, int, int]
    levels: int
    sha256: str
