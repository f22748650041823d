# SPDX-License-Identifier: Apache-2.0
"""The result of an import, from which a run folder is made."""

from collections.abc import Sequence
from dataclasses import dataclass

from vdmkit.recipes.schema import Recipe
from vdmkit.training.step import TrainState


@dataclass(frozen=True)
class Imported:
    """A recipe, as text and parsed, with its training state.

    `shape` (h, w, c) and `levels` describe its images; `sha256` is the hash of the imported file. `remarks` are for the
    user. `has_raw` says whether raw parameters differ from averaged ones, which the file may not have.
    """

    recipe: Recipe
    text: str
    state: TrainState
    shape: tuple[int, int, int]
    levels: int
    sha256: str
    family: str
    has_raw: bool
    remarks: Sequence[str] = ()
