# SPDX-License-Identifier: Apache-2.0
"""DDPM's U-Net (Ho et al. 2020, arXiv 2006.11239, appendix B)."""

from typing import Annotated, Literal

from jaxtyping import PRNGKeyArray

from vdmkit.networks import _checks as of
from vdmkit.networks._axis import AbstractAxis
from vdmkit.networks.unet._design import Design
from vdmkit.networks.unet._unet import UNet
from vdmkit.process import VariancePreserving
from vdmkit.registry import Choice, built, register

_TIMESTEP = Choice("axis", "timestep")


@register("network", "ddpm_unet")
def ddpm_unet(
    shape: tuple[int, int, int],
    outputs: int,
    gamma_range: tuple[float, float],
    classes: int,
    key: PRNGKeyArray,
    *,
    channels: of.Channels = 128,
    multipliers: of.Multipliers = (1.0, 2.0, 2.0, 2.0),
    blocks: of.Blocks = 2,
    attention: of.Heights = (16,),
    head_channels: of.HeadChannels = 0,
    groups: of.Heads = 32,
    padding: Literal["end", "both"] = "end",
    cosines_first: bool = False,
    frequency_shift: of.FrequencyShift = 1,
    epsilon: of.Epsilon = 1e-6,
    labels: of.Labels = 0,
    dropout: of.Dropout = 0.1,
    remat: bool = False,
    axis: Annotated[Choice | AbstractAxis, "axis"] = _TIMESTEP,
) -> UNet:
    """DDPM's U-Net: convolutions of stride 2, attention of one head, the embedding of the timestep added.

    Args:
        channels: Number of channels at full resolution.
        multipliers: Widths of the levels over `channels`; each level has half of the resolution before it.
        blocks: Residual blocks of a level on the way down; there is one more on the way up.
        attention: Heights in pixels of the levels with attention.
        head_channels: Channels of a head of attention; 0 for one head.
        groups: Groups of every normalisation.
        padding: Where a convolution of stride 2 pads: at the right and below, or on all sides.
        cosines_first: Whether cosines of the timestep come before its sines.
        frequency_shift: 1 if the last frequency of the timestep is 1/10000, 0 if the one after it would be.
        epsilon: What every normalisation adds to the variance.
        labels: Number of classes that the network is told; 0 for none.
        dropout: Share of the activations that training drops.
        remat: Whether training computes activations again for the gradient instead of keeping them.
        axis: How the network is told the noise level.
    """
    of.check_labels(labels, classes)
    design = Design(
        channels=channels,
        multipliers=multipliers,
        blocks=blocks,
        attention=attention,
        head_channels=head_channels,
        widened=True,
        resampling="convolution",
        padding=(0, 1) if padding == "end" else (1, 1),
        cosines_first=cosines_first,
        frequency_shift=frequency_shift,
        epsilon=epsilon,
        labels=labels,
        groups=groups,
        dropout=dropout,
        remat=remat,
    )
    told = built(axis, gamma_range=gamma_range)
    return UNet(shape, outputs, key, design=design, axis=told, latent=VariancePreserving())
