# SPDX-License-Identifier: Apache-2.0
"""The paper's U-Net, layer by layer as in the authors' code (Kingma et al. 2021, arXiv 2107.00630v6, appendix B)."""

import functools
import itertools
from collections.abc import Iterator
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
from annotated_types import Ge, Le, MultipleOf
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.networks._checks import MOST_CHANNELS, Blocks, Dropout, check_channels
from vdmkit.networks._embedding import FREQUENCIES, Conditioning, with_fourier_features
from vdmkit.networks._layers import ZEROS, Conv, GroupNorm, Kept, VDMStage, values_per_pixel
from vdmkit.networks._network import AbstractNetwork, Condition
from vdmkit.networks._over import one_by_one, scanned_over
from vdmkit.process import Image
from vdmkit.registry import register
from vdmkit.schedules import Scalar

GROUPS = 32


@register("network", "vdm_unet")
class VDMUNet(AbstractNetwork):
    """The paper's U-Net: every block at full resolution, conditioned on gamma, with Fourier features.

    There are `blocks` down stages and `blocks` + 1 up stages with skip connections. Attention is in the middle, and
    with `attention` after every block. With `remat`, training computes the activations inside of each stage again for
    the gradient, instead of keeping them. With `scan`, one stage is compiled for all on its side, which is for
    accelerators: on CPU a convolution in a compiled loop is 16 times slower than outside.
    """

    conditioning: Conditioning
    conv_in: Conv
    down: tuple[VDMStage, ...]
    mid: tuple[VDMStage, VDMStage]
    up: tuple[VDMStage, ...]
    norm_out: GroupNorm
    conv_out: Conv
    fourier: bool = eqx.field(static=True)
    remat: bool = eqx.field(static=True)
    scan: bool = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, int, int],
        outputs: int,
        gamma_range: tuple[float, float],
        key: PRNGKeyArray,
        *,
        channels: Annotated[int, Ge(GROUPS), Le(MOST_CHANNELS), MultipleOf(GROUPS)] = 128,
        blocks: Blocks = 32,
        attention: bool = False,
        fourier: bool = True,
        dropout: Dropout = 0.1,
        remat: bool = False,
        scan: bool = False,
    ):
        check_channels(channels, GROUPS)
        width = 4 * channels
        depth = shape[-1]
        keys = iter(jax.random.split(key, 2 * blocks + 6))

        def stage(inputs: int, attention: bool) -> VDMStage:
            return VDMStage(inputs, channels, width, next(keys), groups=GROUPS, dropout=dropout, attention=attention)

        self.conditioning = Conditioning(channels, width, gamma_range, next(keys))
        self.conv_in = Conv(depth * (1 + 2 * len(FREQUENCIES)) if fourier else depth, channels, next(keys))
        self.down = tuple(stage(channels, attention) for _ in range(blocks))
        self.mid = (stage(channels, True), stage(channels, False))
        self.up = tuple(stage(2 * channels, attention) for _ in range(blocks + 1))
        self.norm_out = GroupNorm(channels, GROUPS)
        self.conv_out = Conv(channels, depth * outputs, next(keys), initializer=ZEROS)
        self.fourier = fourier
        self.remat, self.scan = remat, scan

    def __call__(
        self,
        z: Image,
        gamma: Scalar,
        condition: Condition,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "h w c k"]:
        cond = self.conditioning(gamma, condition)
        h = self.conv_in(with_fourier_features(z) if self.fourier else z)
        kept = self._kept(h.shape, key)

        def apply(stage: VDMStage, h: Float[Array, "h w i"], kept: Kept) -> Image:
            return (eqx.filter_checkpoint(stage) if self.remat else stage)(h, cond, kept)

        def with_skip(stage: VDMStage, h: Image, given: tuple[Image, Kept]) -> Image:
            skip, kept = given
            return apply(stage, jnp.concatenate([h, skip], axis=-1), kept)

        over = scanned_over if self.scan else one_by_one
        skips = [h, *over(self.down, apply, h, [next(kept) for _ in self.down])]
        h = skips[-1]
        for stage in self.mid:
            h = apply(stage, h, next(kept))
        h = over(self.up, with_skip, h, [(skips.pop(), next(kept)) for _ in self.up])[-1]
        h = self.conv_out(jax.nn.silu(self.norm_out(h)), z.dtype)
        return values_per_pixel(h, z)

    def _kept(self, shape: tuple[int, ...], key: PRNGKeyArray | None) -> Iterator[Kept]:
        """Returns what dropout keeps in each stage, drawn in a loop: one draw would be made again at each use."""
        dropout, stages = self.mid[0].block.dropout, len(self.down) + len(self.mid) + len(self.up)
        if key is None or dropout == 0:
            return itertools.repeat(None)
        draw = functools.partial(jax.random.bernoulli, p=1 - dropout, shape=shape)
        return iter(jax.lax.map(draw, jax.random.split(key, stages)))
