# SPDX-License-Identifier: Apache-2.0
"""DDPM++ and NCSN++ (Song et al. 2021, arXiv 2011.13456, appendix H), also as EDM trains them (arXiv 2206.00364)."""

from typing import Annotated, Any, Literal

from jaxtyping import PRNGKeyArray

from vdmkit.networks import _checks as of
from vdmkit.networks._axis import AbstractAxis
from vdmkit.networks.unet._design import Design
from vdmkit.networks.unet._unet import UNet
from vdmkit.process import AbstractPath
from vdmkit.registry import Choice, built, register

_SDE_TIME = Choice("axis", "sde_time")
_VARIANCE_PRESERVING = Choice("path", "variance_preserving")
_SIGMA_OF_UNIT_INTERVAL = Choice("axis", "log_sigma", {"factor": 1.0, "unit": 2.0})


@register("network", "ddpmpp")
def ddpmpp(
    shape: tuple[int, int, int],
    outputs: int,
    gamma_range: tuple[float, float],
    classes: int,
    key: PRNGKeyArray,
    *,
    channels: of.Channels = 128,
    multipliers: of.Multipliers = (1.0, 2.0, 2.0, 2.0),
    blocks: of.Blocks = 4,
    attention: of.Heights = (16,),
    taps: of.Taps = (1.0, 1.0),
    rescale: bool = True,
    features_multiplier: of.Multiple = 1,
    width_multiplier: of.Multiple = 4,
    labels: of.Labels = 0,
    withheld: of.Dropout = 0.0,
    augment: of.Labels = 0,
    dropout: of.Dropout = 0.1,
    remat: bool = False,
    axis: Annotated[Choice | AbstractAxis, "axis"] = _SDE_TIME,
    latent: Annotated[Choice | AbstractPath, "path"] = _VARIANCE_PRESERVING,
) -> UNet:
    """DDPM++: BigGAN's residual blocks, all sums of branches over sqrt 2, and positional features of the noise level.

    Args:
        channels: Number of channels at full resolution.
        multipliers: Widths of the levels over `channels`; each level has half of the resolution before it.
        blocks: Residual blocks of a level on the way down; there is one more on the way up.
        attention: Heights in pixels of the levels with attention.
        taps: Filter with which blocks halve and double the resolution.
        rescale: Whether sums of branches are divided by sqrt 2.
        features_multiplier: Number of features of the noise level over `channels`.
        width_multiplier: Length of the embedding over `channels`.
        labels: Number of classes that the network is told; 0 for none.
        withheld: Share of the classes that training withholds.
        augment: Number of parameters of the augmentation that the network is told.
        dropout: Share of the activations that training drops.
        remat: Whether training computes activations again for the gradient instead of keeping them.
        axis: How the network is told the noise level.
        latent: Path whose latents the network is shown.
    """
    of.check_labels(labels, classes)
    design = _design(
        channels=channels,
        multipliers=multipliers,
        blocks=blocks,
        attention=attention,
        taps=taps,
        rescale=rescale,
        features_multiplier=features_multiplier,
        width_multiplier=width_multiplier,
        labels=labels,
        withheld=withheld,
        augment=augment,
        dropout=dropout,
        remat=remat,
    )
    told = built(axis, gamma_range=gamma_range)
    return UNet(shape, outputs, key, design=design, axis=told, latent=built(latent))


@register("network", "ncsnpp")
def ncsnpp(
    shape: tuple[int, int, int],
    outputs: int,
    gamma_range: tuple[float, float],
    classes: int,
    key: PRNGKeyArray,
    *,
    channels: of.Channels = 128,
    multipliers: of.Multipliers = (1.0, 2.0, 2.0, 2.0),
    blocks: of.Blocks = 4,
    attention: of.Heights = (16,),
    taps: of.Taps = (1.0, 3.0, 3.0, 1.0),
    rescale: bool = True,
    features: Literal["fourier", "positional"] = "fourier",
    features_multiplier: of.Multiple = 2,
    width_multiplier: of.Multiple = 4,
    progressive_input: Literal["none", "skip", "residual"] = "residual",
    progressive_output: Literal["none", "skip"] = "none",
    labels: of.Labels = 0,
    withheld: of.Dropout = 0.0,
    augment: of.Labels = 0,
    dropout: of.Dropout = 0.1,
    remat: bool = False,
    by_sigma: bool = False,
    axis: Annotated[Choice | AbstractAxis, "axis"] = _SIGMA_OF_UNIT_INTERVAL,
    latent: Annotated[Choice | AbstractPath, "path"] = _VARIANCE_PRESERVING,
) -> UNet:
    """NCSN++: DDPM++ with a smoothing filter, Fourier features of log sigma, and the input at every resolution.

    The authors' own model of the score has `by_sigma`, and latent and path "variance_exploding".

    Args:
        channels: Number of channels at full resolution.
        multipliers: Widths of the levels over `channels`; each level has half of the resolution before it.
        blocks: Residual blocks of a level on the way down; there is one more on the way up.
        attention: Heights in pixels of the levels with attention.
        taps: Filter with which the resolution is halved and doubled.
        rescale: Whether sums of branches are divided by sqrt 2.
        features: Features of the noise level.
        features_multiplier: Number of features of the noise level over `channels`.
        width_multiplier: Length of the embedding over `channels`.
        progressive_input: How smaller versions of the input reach the levels.
        progressive_output: Whether every level adds to the output at its resolution.
        labels: Number of classes that the network is told; 0 for none.
        withheld: Share of the classes that training withholds.
        augment: Number of parameters of the augmentation that the network is told.
        dropout: Share of the activations that training drops.
        remat: Whether training computes activations again for the gradient instead of keeping them.
        by_sigma: Whether the output is divided by sigma / alpha, which makes it a score.
        axis: How the network is told the noise level.
        latent: Path whose latents the network is shown.
    """
    of.check_labels(labels, classes)
    design = _design(
        channels=channels,
        multipliers=multipliers,
        blocks=blocks,
        attention=attention,
        taps=taps,
        rescale=rescale,
        features=features,
        features_multiplier=features_multiplier,
        width_multiplier=width_multiplier,
        progressive_input=progressive_input,
        progressive_output=progressive_output,
        labels=labels,
        withheld=withheld,
        augment=augment,
        dropout=dropout,
        remat=remat,
    )
    told = built(axis, gamma_range=gamma_range)
    return UNet(shape, outputs, key, design=design, axis=told, latent=built(latent), by_sigma=by_sigma)


def _design(**choices: Any) -> Design:
    """Returns what both have in common, with these choices."""
    of.check_taps(choices["taps"])
    return Design(attention_up="last", label_at="features", group_size=4, **choices)
