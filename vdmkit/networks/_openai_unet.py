# SPDX-License-Identifier: Apache-2.0
"""The U-Nets of iDDPM (Nichol & Dhariwal 2021, arXiv 2102.09672) and ADM (Dhariwal & Nichol 2021, arXiv 2105.05233)."""

from typing import Annotated, Any, Literal

from jaxtyping import PRNGKeyArray

from vdmkit.networks import _checks as of
from vdmkit.networks._axis import AbstractAxis
from vdmkit.networks.unet._design import Design
from vdmkit.networks.unet._unet import UNet
from vdmkit.process import VariancePreserving
from vdmkit.registry import Choice, built, register

EPSILON = 1e-5
"""PyTorch's default."""

_COSINE_OF_4000 = Choice("axis", "timestep", {"table": "cosine", "steps": 4000, "rescaled": True})
_COSINE = Choice("axis", "timestep", {"table": "cosine"})


@register("network", "iddpm_unet")
def iddpm_unet(
    shape: tuple[int, int, int],
    outputs: int,
    gamma_range: tuple[float, float],
    classes: int,
    key: PRNGKeyArray,
    *,
    channels: of.Channels = 128,
    multipliers: of.Multipliers = (1.0, 2.0, 2.0, 2.0),
    blocks: of.Blocks = 3,
    attention: of.Heights = (16, 8),
    heads: of.Heads = 4,
    heads_up: of.Heads | None = None,
    groups: of.Heads = 32,
    scale_shift: bool = True,
    labels: of.Labels = 0,
    withheld: of.Dropout = 0.0,
    dropout: of.Dropout = 0.3,
    remat: bool = False,
    axis: Annotated[Choice | AbstractAxis, "axis"] = _COSINE_OF_4000,
) -> UNet:
    """iDDPM's U-Net: DDPM's with several heads of attention, and an embedding that scales and shifts.

    Args:
        channels: Number of channels at full resolution.
        multipliers: Widths of the levels over `channels`; each level has half of the resolution before it.
        blocks: Residual blocks of a level on the way down; there is one more on the way up.
        attention: Heights in pixels of the levels with attention.
        heads: Heads of attention.
        heads_up: Heads of attention on the way up, if it is another number.
        groups: Groups of every normalisation.
        scale_shift: Whether the embedding scales and shifts normalised activations, or is added before.
        labels: Number of classes that the network is told; 0 for none.
        withheld: Share of the classes that training withholds.
        dropout: Share of the activations that training drops.
        remat: Whether training computes activations again for the gradient instead of keeping them.
        axis: How the network is told the noise level.
    """
    of.check_labels(labels, classes)
    design = _design(
        channels=channels,
        multipliers=multipliers,
        blocks=blocks,
        attention=attention,
        heads=heads,
        heads_up=heads_up,
        groups=groups,
        scale_shift=scale_shift,
        resampling="convolution",
        labels=labels,
        withheld=withheld,
        dropout=dropout,
        remat=remat,
    )
    told = built(axis, gamma_range=gamma_range)
    return UNet(shape, outputs, key, design=design, axis=told, latent=VariancePreserving())


@register("network", "adm_unet")
def adm_unet(
    shape: tuple[int, int, int],
    outputs: int,
    gamma_range: tuple[float, float],
    classes: int,
    key: PRNGKeyArray,
    *,
    channels: of.Channels = 192,
    multipliers: of.Multipliers = (1.0, 2.0, 3.0, 4.0),
    blocks: of.Blocks = 3,
    attention: of.Heights = (32, 16, 8),
    heads: of.Heads = 1,
    heads_up: of.Heads | None = None,
    head_channels: of.HeadChannels = 64,
    groups: of.Heads = 32,
    group_size: of.Heads = 1,
    scale_shift: bool = True,
    resampling: Literal["block", "convolution"] = "block",
    width_multiplier: of.Multiple = 4,
    labels: of.Labels = 0,
    withheld: of.Dropout = 0.0,
    augment: of.Labels = 0,
    dropout: of.Dropout = 0.1,
    remat: bool = False,
    axis: Annotated[Choice | AbstractAxis, "axis"] = _COSINE,
) -> UNet:
    """ADM's U-Net: iDDPM's with residual blocks that change the resolution, and heads of a fixed size.

    Args:
        channels: Number of channels, the unit of the widths.
        multipliers: Widths of the levels over `channels`; each level has half of the resolution before it.
        blocks: Residual blocks of a level on the way down; there is one more on the way up.
        attention: Heights in pixels of the levels with attention.
        heads: Heads of attention, if `head_channels` is 0.
        heads_up: Heads of attention on the way up, if it is another number.
        head_channels: Channels of a head of attention; layers of fewer channels have no attention.
        groups: Groups of a normalisation.
        group_size: Fewest channels of a group; layers of few channels then have fewer groups.
        scale_shift: Whether the embedding scales and shifts normalised activations, or is added before.
        resampling: What changes the resolution.
        width_multiplier: Length of the embedding over `channels`.
        labels: Number of classes that the network is told; 0 for none.
        withheld: Share of the classes that training withholds.
        augment: Number of parameters of the augmentation that the network is told.
        dropout: Share of the activations that training drops.
        remat: Whether training computes activations again for the gradient instead of keeping them.
        axis: How the network is told the noise level.
    """
    of.check_labels(labels, classes)
    design = _design(
        channels=channels,
        multipliers=multipliers,
        blocks=blocks,
        attention=attention,
        heads=heads,
        heads_up=heads_up,
        head_channels=head_channels,
        widened=True,
        groups=groups,
        group_size=group_size,
        scale_shift=scale_shift,
        resampling=resampling,
        width_multiplier=width_multiplier,
        labels=labels,
        withheld=withheld,
        augment=augment,
        dropout=dropout,
        remat=remat,
    )
    told = built(axis, gamma_range=gamma_range)
    return UNet(shape, outputs, key, design=design, axis=told, latent=VariancePreserving())


def _design(**choices: Any) -> Design:
    """Returns what both have in common, with these choices."""
    return Design(cosines_first=True, frequency_shift=0, epsilon=EPSILON, project=False, **choices)
