# SPDX-License-Identifier: Apache-2.0
"""Recipe values that no network can be built with, told before any array is made."""

from vdmkit.errors import RecipeError


def check_channels(network: str, channels: int, groups: int) -> None:
    """Raises RecipeError unless the channels fall into `groups` equal groups."""
    if channels < groups or channels % groups:
        near = max(1, round(channels / groups)) * groups
        raise RecipeError(f"network {network}: channels = {channels} is not a multiple of {groups}. Use {near}.")


def check_dropout(network: str, dropout: float) -> None:
    """Raises RecipeError unless dropout is a probability below 1."""
    if not 0 <= dropout < 1:
        raise RecipeError(f"network {network}: dropout = {dropout} is not in [0, 1). Use 0 for none.")
