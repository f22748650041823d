# SPDX-License-Identifier: Apache-2.0
"""The levels of a U-Net: the blocks of one resolution, and the way to the next."""

from collections.abc import Callable, Iterator

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.networks._layers import ZEROS, Conv, Dense, GroupNorm
from vdmkit.networks.unet._blocks import Block, Stage, Style
from vdmkit.networks.unet._design import Design
from vdmkit.networks.unet._resampling import ConvDown, ConvUp


class Head(eqx.Module):
    """Norm, swish, and a convolution to the output, which starts as zero."""

    norm: GroupNorm
    conv: Conv

    def __init__(self, channels: int, outputs: int, key: PRNGKeyArray, *, style: Style):
        self.norm, self.conv = style.norm(channels), Conv(channels, outputs, key, initializer=ZEROS)

    def __call__(self, x: Float[Array, "h w i"], dtype: jax.numpy.dtype) -> Float[Array, "h w o"]:
        return self.conv(jax.nn.silu(self.norm(x)), dtype)


class Down(eqx.Module):
    """The blocks of a resolution, the way to the next lower one, and how that one sees the input there."""

    stages: tuple[Stage, ...]
    leave: Block | ConvDown | None
    pyramid: Dense | ConvDown | None


class Up(eqx.Module):
    """The blocks of a resolution, what it adds to the output, and the way to the next higher one."""

    stages: tuple[Stage, ...]
    head: Head | None
    leave: Block | ConvUp | None


Keys = Iterator[PRNGKeyArray]


def down_levels(design: Design, height: int, depth: int, keys: Keys) -> tuple[tuple[Down, ...], list[int]]:
    """Returns the levels from full resolution down, and the number of channels of every skip connection."""
    style, widths = design.style, design.widths
    width = widths[0] if design.widened else design.channels
    skips, levels, shown = [width], [], depth
    for level, own in enumerate(widths):
        heads = design.heads_of(own) if height >> level in design.attention else 0
        stages = []
        for _ in range(design.blocks):
            stages.append(Stage(width, own, next(keys), style=style, heads=heads))
            width = own
            skips.append(width)
        leave = pyramid = None
        if level < len(widths) - 1:
            leave = _halving(design, own, next(keys))
            pyramid = _pyramid(design, shown, own, next(keys))
            shown = own if design.progressive_input == "residual" else shown
            skips.append(width)
        levels.append(Down(tuple(stages), leave, pyramid))
    return tuple(levels), skips


def up_levels(design: Design, height: int, outputs: int, skips: list[int], keys: Keys) -> tuple[Up, ...]:
    """Returns the levels from the lowest resolution up. `skips` are used up."""
    style, width, levels = design.style, design.widths[-1], []
    for level, own in reversed(list(enumerate(design.widths))):
        heads = design.heads_of(own, up=True) if height >> level in design.attention else 0
        stages = []
        for i in range(design.blocks + 1):
            attends = design.attention_up == "all" or i == design.blocks
            stages.append(Stage(width + skips.pop(), own, next(keys), style=style, heads=heads if attends else 0))
            width = own
        is_read = level == 0 or design.progressive_output == "skip"
        head = Head(own, outputs, next(keys), style=style) if is_read else None
        levels.append(Up(tuple(stages), head, _doubling(design, own, next(keys)) if level else None))
    return tuple(levels)


def middle(design: Design, keys: Keys) -> tuple[Stage, Stage]:
    """Returns the two blocks of the lowest resolution, with attention between them."""
    width = design.widths[-1]
    first = Stage(width, width, next(keys), style=design.style, heads=design.heads_of(width))
    return first, Stage(width, width, next(keys), style=design.style, heads=0)


def _halving(design: Design, width: int, key: PRNGKeyArray) -> Block | ConvDown:
    if design.resampling == "block":
        return Block(width, width, key, style=design.style, move="down")
    return ConvDown(width, width, key, padding=design.padding)


def _doubling(design: Design, width: int, key: PRNGKeyArray) -> Block | ConvUp:
    if design.resampling == "block":
        return Block(width, width, key, style=design.style, move="up")
    return ConvUp(width, key)


def _pyramid(design: Design, shown: int, width: int, key: PRNGKeyArray) -> Dense | ConvDown | None:
    kinds: dict[str, Callable[[], Dense | ConvDown | None]] = {
        "none": lambda: None,
        "skip": lambda: Dense(shown, width, key),
        "residual": lambda: ConvDown.filtered(shown, width, key, taps=design.taps),
    }
    return kinds[design.progressive_input]()
