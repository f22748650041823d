# SPDX-License-Identifier: Apache-2.0
"""A record in words of how samples are drawn."""

from dataclasses import dataclass
from typing import Literal

from vdmkit.recipe._dump import one_line
from vdmkit.recipe._recipe import Recipe


@dataclass(frozen=True)
class Drawn:
    """A record of how samples were drawn; with guidance above 0 and no `label`, they have each label in turn."""

    sampler: str
    grid: str
    steps: int
    end: Literal["latent", "image"]
    guidance: float
    label: int | None

    @property
    def settings(self) -> str:
        """Returns the settings without the components."""
        end = "z_0" if self.end == "latent" else "the image"
        labels = "labels in turn" if self.label is None else f"label {self.label}"
        return f"{self.steps:,} steps to {end}, guidance {self.guidance:g}, {labels if self.guidance else 'no labels'}"

    def __str__(self) -> str:
        return f"sampler {self.sampler}, grid {self.grid}, {self.settings}"


def drawn_by(recipe: Recipe) -> Drawn:
    """Returns how a recipe draws samples."""
    settings = recipe.sampling
    sampler, grid = one_line(settings.sampler), one_line(settings.grid)
    return Drawn(sampler, grid, settings.steps, settings.end, settings.guidance, settings.label)
