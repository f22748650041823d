# SPDX-License-Identifier: Apache-2.0
"""What an importer gives: everything that a run folder is made of."""

from dataclasses import dataclass

from vdmkit.recipe import Recipe
from vdmkit.training import TrainState


@dataclass(frozen=True)
class Imported:
    """A recipe, as text and read, and the state that its training had reached.

    `shape` (h, w, c) and `levels` are those of its images; `sha256` is that of the file.
    """

    recipe: Recipe
    text: str
    state: TrainState
    shape: tuple[int, int, int]
    levels: int
    sha256: str
