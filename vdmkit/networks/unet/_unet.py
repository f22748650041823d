# SPDX-License-Identifier: Apache-2.0
"""The U-Net of the literature, put together by a design."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.errors import RecipeError
from vdmkit.networks._axis import AbstractAxis
from vdmkit.networks._layers import Conv
from vdmkit.networks._network import AbstractNetwork, Condition
from vdmkit.networks.unet._blocks import Block, Kept, Stage
from vdmkit.networks.unet._design import Design
from vdmkit.networks.unet._embedding import Embedding
from vdmkit.networks.unet._levels import Down, Up, down_levels, middle, up_levels
from vdmkit.networks.unet._resampling import ConvDown, Pixels, downsample, upsample
from vdmkit.process import AbstractPath, Image
from vdmkit.schedules import Scalar

Mask = Iterator[Kept]
"""What dropout keeps in each block, in their order."""


class UNet(AbstractNetwork):
    """A U-Net of the literature.

    `evaluate` is the authors' function of an image, their label of the noise level and what is known of the image. The
    network itself derives the two from z and gamma: the label by `axis`, and the image by `latent`, the path whose
    latents the authors show to their network. With `by_sigma` the output is divided by sigma / alpha.
    """

    axis: AbstractAxis
    latent: AbstractPath
    embedding: Embedding
    conv_in: Conv
    down: tuple[Down, ...]
    mid: tuple[Stage, Stage]
    up: tuple[Up, ...]
    design: Design = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    by_sigma: bool = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, int, int],
        outputs: int,
        key: PRNGKeyArray,
        *,
        design: Design,
        axis: AbstractAxis,
        latent: AbstractPath,
        by_sigma: bool = False,
    ):
        _check_halving(shape, len(design.multipliers))
        height, _, depth = shape
        keys = (jax.random.fold_in(key, i) for i in itertools.count())
        self.axis, self.latent, self.design = axis, latent, design
        self.outputs, self.by_sigma = outputs, by_sigma
        self.embedding = design.embedding(next(keys))
        self.down, skips = down_levels(design, height, depth, keys)
        self.conv_in = Conv(depth, skips[0], next(keys))
        self.mid = middle(design, keys)
        self.up = up_levels(design, height, depth * outputs, skips, keys)

    def __call__(
        self,
        z: Image,
        gamma: Scalar,
        condition: Condition,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "h w c k"]:
        keys = (None, None) if key is None else jax.random.split(key)
        image = z * self.latent.scale(gamma).astype(z.dtype)
        known = self._classes(condition, keys[0])
        output = self.evaluate(image, self.axis(gamma), known, condition.get("augment"), self._kept(z.shape, keys[1]))
        return output * jnp.exp(-gamma / 2).astype(output.dtype) if self.by_sigma else output

    def evaluate(
        self,
        image: Image,
        label: Scalar,
        classes: Float[Array, " n"] | None = None,
        augment: Float[Array, " a"] | None = None,
        kept: Mask = itertools.repeat(None),  # noqa: B008  (which nothing changes)
    ) -> Float[Array, "h w c k"]:
        """Evaluates the authors' network.

        Args:
            image: What their code shows it, in [-1, 1] plus noise.
            label: What their code embeds of the noise level, such as a timestep or log sigma.
            classes: A one-hot vector of the class; zeros or None for unknown.
            augment: Parameters of the augmentation; None for none.
            kept: What dropout leaves in every block.
        """
        embedding = self.embedding(label, classes, augment)
        h, skips = self._descend(image, embedding, kept)
        for stage in self.mid:
            h = self._apply(stage, h, embedding, kept)
        return self._ascend(h, skips, embedding, kept, image.dtype).reshape(*image.shape, self.outputs)

    def _descend(self, image: Pixels, embedding: Array, kept: Mask) -> tuple[Pixels, list[Pixels]]:
        h = self.conv_in(image)
        skips, shown = [h], image
        for level in self.down:
            for stage in level.stages:
                h = self._apply(stage, h, embedding, kept)
                skips.append(h)
            if level.leave is not None:
                h = self._apply(level.leave, h, embedding, kept)
                h, shown = self._with_input(level, h, shown)
                skips.append(h)
        return h, skips

    def _with_input(self, level: Down, h: Pixels, shown: Pixels) -> tuple[Pixels, Pixels]:
        """Returns the level's input joined with the smaller version of the network's input, and that version."""
        if level.pyramid is None:
            return h, shown
        if isinstance(level.pyramid, ConvDown):
            h = self.design.style.joined(level.pyramid(shown), h)
            return h, h
        shown = downsample(shown, self.design.taps)
        return h + level.pyramid(shown), shown

    def _ascend(self, h: Pixels, skips: list[Pixels], embedding: Array, kept: Mask, dtype: Any) -> Pixels:
        output = None
        for level in self.up:
            for stage in level.stages:
                h = self._apply(stage, jnp.concatenate([h, skips.pop()], axis=-1), embedding, kept)
            if level.head is not None:
                own = level.head(h, dtype)
                output = own if output is None else own + upsample(output, self.design.taps)
            if level.leave is not None:
                h = self._apply(level.leave, h, embedding, kept)
        assert output is not None  # the last level has a head
        return output

    def _apply(self, part: Any, h: Pixels, embedding: Array, kept: Mask) -> Pixels:
        if not isinstance(part, Stage | Block):
            return part(h)
        return (eqx.filter_checkpoint(part) if self.design.remat else part)(h, embedding, next(kept))

    def _classes(self, condition: Condition, key: PRNGKeyArray | None) -> Float[Array, " n"] | None:
        """Returns the class as a one-hot vector, zeros if it is withheld; None if it is not given."""
        if not self.design.labels or "label" not in condition:
            return None
        label = jnp.asarray(condition["label"])
        if key is not None and self.design.withheld:
            label = jnp.where(jax.random.bernoulli(key, self.design.withheld), -1, label)
        return jax.nn.one_hot(label, self.design.labels)

    def _kept(self, shape: tuple[int, ...], key: PRNGKeyArray | None) -> Mask:
        """Returns what dropout keeps in each block, of one draw, which compiles faster than a draw for each."""
        if key is None or self.design.dropout == 0:
            return itertools.repeat(None)
        shapes = list(self._shapes_of_blocks(shape[0], shape[1]))
        ends = list(itertools.accumulate(map(math.prod, shapes)))
        drawn = jax.random.bernoulli(key, 1 - self.design.dropout, (ends[-1],))
        return (drawn[end - math.prod(one) : end].reshape(one) for one, end in zip(shapes, ends, strict=True))

    def _shapes_of_blocks(self, height: int, width: int) -> Iterator[tuple[int, int, int]]:
        """Yields the shape of what every block's second convolution is given, in their order."""
        last = len(self.down) - 1
        places = [(level, part) for level, one in enumerate(self.down) for part in (*one.stages, one.leave)]
        places += [(last, stage) for stage in self.mid]
        places += [(last - i, part) for i, one in enumerate(self.up) for part in (*one.stages, one.leave)]
        for level, part in places:
            block = part.block if isinstance(part, Stage) else part
            if isinstance(block, Block):
                at = level + {"stay": 0, "down": 1, "up": -1}[block.move]
                yield height >> at, width >> at, block.conv2.bias.shape[0]


def _check_halving(shape: tuple[int, int, int], levels: int) -> None:
    height, width, _ = shape
    if not levels:
        raise RecipeError("multipliers = []: expected one for each level, such as [1, 2].")
    unit = 2 ** (levels - 1)
    if height % unit or width % unit:
        raise RecipeError(
            f"images of {height} x {width} pixels cannot be halved {levels - 1} times. Give fewer multipliers, or use "
            "network vdm_unet."
        )
