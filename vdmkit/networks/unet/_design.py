# SPDX-License-Identifier: Apache-2.0
"""What one U-Net of the literature chooses, where another chooses something else."""

from dataclasses import dataclass
from typing import Literal

import jax
from jaxtyping import PRNGKeyArray

from vdmkit.errors import RecipeError
from vdmkit.networks.unet._blocks import Style
from vdmkit.networks.unet._embedding import Embedding, FourierFeatures, PositionalFeatures
from vdmkit.networks.unet._resampling import Taps


@dataclass(frozen=True)
class Design:
    """The choices of a U-Net.

    Attributes:
        channels: Number of channels, the unit of the other widths.
        multipliers: Widths of the levels over `channels`, from full resolution down.
        blocks: Number of residual blocks of a level on the way down; there is one more on the way up.
        attention: Heights in pixels at which attention follows a block.
        attention_up: Whether, on the way up, it follows all blocks of a level or only the last one.
        heads: Number of heads of attention.
        heads_up: Number of heads on the way up, if it is another one.
        head_channels: Channels of a head, or 0 for a number of heads. Narrower layers have no attention.
        widened: Whether the first convolution is as wide as the first level, and not `channels` wide.
        resampling: What changes the resolution: convolutions (DDPM) or residual blocks (BigGAN).
        padding: Padding of a convolution of stride 2, before and after.
        progressive_input: How smaller versions of the input reach the levels: by a 1x1 convolution ("skip"), or as a
            pyramid of convolutions that replaces the level's input by its sum with the pyramid ("residual").
        progressive_output: Whether every level adds to the output at its resolution ("skip").
        features: Features of the noise level.
        cosines_first: Order of the positional features.
        frequency_shift: 1 if the last positional frequency is 1/10000, 0 if the one after it would be.
        features_multiplier: Number of features over `channels`.
        width_multiplier: Length of the embedding over `channels`.
        labels: Number of classes of a conditional network; 0 for an unconditional one.
        label_at: Where the embedding adds the class.
        withheld: Share of the classes that training withholds.
        augment: Number of parameters of the augmentation that the network is told.
        groups, group_size, epsilon, scale_shift, rescale, taps, project, dropout: See `Style`.
        remat: Whether training computes the activations inside of each stage again for the gradient.
    """

    channels: int
    multipliers: tuple[float, ...]
    blocks: int
    attention: tuple[int, ...]
    attention_up: Literal["all", "last"] = "all"
    heads: int = 1
    heads_up: int | None = None
    head_channels: int = 0
    widened: bool = False
    resampling: Literal["convolution", "block"] = "block"
    padding: tuple[int, int] = (1, 1)
    progressive_input: Literal["none", "skip", "residual"] = "none"
    progressive_output: Literal["none", "skip"] = "none"
    features: Literal["positional", "fourier"] = "positional"
    cosines_first: bool = False
    frequency_shift: int = 1
    features_multiplier: int = 1
    width_multiplier: int = 4
    labels: int = 0
    label_at: Literal["features", "output"] = "output"
    withheld: float = 0.0
    augment: int = 0
    groups: int = 32
    group_size: int = 1
    epsilon: float = 1e-6
    scale_shift: bool = False
    rescale: bool = False
    taps: Taps = (1.0, 1.0)
    project: bool = True
    dropout: float = 0.1
    remat: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        """Returns the number of channels of every level."""
        return tuple(max(1, round(self.channels * one)) for one in self.multipliers)

    @property
    def style(self) -> Style:
        """Returns what all blocks have in common."""
        names = ("groups", "group_size", "epsilon", "scale_shift", "rescale", "taps", "project", "dropout")
        return Style(width=self.width_multiplier * self.channels, **{name: getattr(self, name) for name in names})

    def heads_of(self, width: int, *, up: bool = False) -> int:
        """Returns the number of heads of a layer of this width; none if a head would be wider."""
        if self.head_channels:
            return width // self.head_channels
        return self.heads_up if up and self.heads_up else self.heads

    def embedding(self, key: PRNGKeyArray) -> Embedding:
        """Returns the embedding of the noise level and the labels."""
        feature_key, key = jax.random.split(key)
        size = self.features_multiplier * self.channels
        if size % 2:
            raise RecipeError(f"channels = {self.channels}: an even number is expected, for sines and cosines.")
        positional = PositionalFeatures(size, self.cosines_first, self.frequency_shift)
        features = FourierFeatures(size, feature_key) if self.features == "fourier" else positional
        parts = {"labels": self.labels, "label_at": self.label_at, "augment": self.augment}
        return Embedding(features, size, self.width_multiplier * self.channels, key, **parts)
