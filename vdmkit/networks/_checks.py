# SPDX-License-Identifier: Apache-2.0
"""Ranges and checks of recipe values before a network's arrays are made."""

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

from vdmkit.errors import RecipeError

Dropout = Annotated[float, Ge(0), Lt(1)]
MOST_CHANNELS = 16_384
Blocks = Annotated[int, Ge(1), Le(256)]
Channels = Annotated[int, Ge(2), Le(MOST_CHANNELS)]
Multipliers = tuple[Annotated[float, Ge(0.125), Le(64)], ...]
Heights = tuple[Annotated[int, Ge(1), Le(65_536)], ...]
Heads = Annotated[int, Ge(1), Le(MOST_CHANNELS)]
HeadChannels = Annotated[int, Ge(0), Le(MOST_CHANNELS)]
Multiple = Annotated[int, Ge(1), Le(64)]
Labels = Annotated[int, Ge(0), Le(1_000_000)]
FrequencyShift = Annotated[int, Ge(0), Le(1)]
Epsilon = Annotated[float, Gt(0), Le(1)]
Taps = tuple[Annotated[float, Gt(0), Le(1000)], ...]


def check_channels(channels: int, groups: int) -> None:
    """Raises RecipeError unless the channels divide into `groups` equal groups."""
    if channels < groups or channels % groups:
        near = max(1, round(channels / groups)) * groups
        raise RecipeError(f"channels = {channels}: expected a positive multiple of {groups}, such as {near}.")


def check_labels(labels: int, classes: int) -> None:
    """Raises RecipeError if a network reads other classes than the data have. Of data without labels it reads none."""
    if labels and classes and labels != classes:
        raise RecipeError(f"labels = {labels}, but the data have {classes}. Give their number, or 0 for none.")


def check_taps(taps: tuple[float, ...]) -> None:
    """Raises RecipeError unless a filter has an even number of taps, which halve and double without a shift."""
    if not taps or len(taps) % 2:
        raise RecipeError(f"taps = {list(taps)}: expected an even number of them, such as [1, 1] or [1, 3, 3, 1].")
