# SPDX-License-Identifier: Apache-2.0
"""Checks of recipe values before a network's arrays are made."""

from typing import Annotated

from annotated_types import Ge, Le, Lt

from vdmkit.errors import RecipeError

Dropout = Annotated[float, Ge(0), Lt(1)]
MOST_CHANNELS = 16_384
Blocks = Annotated[int, Ge(1), Le(256)]


def check_channels(channels: int, groups: int) -> None:
    """Raises RecipeError unless the channels divide into `groups` equal groups."""
    if channels < groups or channels % groups:
        near = max(1, round(channels / groups)) * groups
        raise RecipeError(f"channels = {channels}: expected a positive multiple of {groups}, such as {near}.")
