# SPDX-License-Identifier: Apache-2.0
"""The U-Net of the literature: one network, its choices (`Design`), and the papers' networks as presets of it."""

import inspect
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, Literal, get_type_hints

import equinox as eqx
import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt, Le
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.errors import RecipeError
from vdmkit.networks.layers import (
    MAX_CHANNELS,
    ZEROS,
    Blocks,
    Conv,
    ConvDown,
    ConvUp,
    Dense,
    Dropout,
    DropoutMask,
    Embedding,
    FourierFeatures,
    GroupNorm,
    Pixels,
    PositionalFeatures,
    attend,
    downsample,
    upsample,
)
from vdmkit.networks.network import AbstractNetwork, Condition
from vdmkit.networks.noise_embedding import AbstractNoiseEmbedding
from vdmkit.process import AbstractPath, Image
from vdmkit.registry import Choice, built, register
from vdmkit.schedules import Scalar

Channels = Annotated[int, Ge(2), Le(MAX_CHANNELS)]
Count = Annotated[int, Ge(1), Le(MAX_CHANNELS)]
Multiple = Annotated[int, Ge(1), Le(64)]
Labels = Annotated[int, Ge(0), Le(1_000_000)]
Move = Literal["stay", "down", "up"]
Keys = Iterator[PRNGKeyArray]
Masks = Iterator[DropoutMask]
"""The dropout masks of all blocks, in their order."""


@dataclass(frozen=True)
class Design:
    """The choices in which the U-Nets of the literature differ, which are the recipe keys of these networks.

    Attributes:
        channels: Number of channels, the unit of the other widths.
        multipliers: Widths of the levels as multiples of `channels`; each level halves the resolution of the previous
            one.
        blocks: Number of residual blocks of a level on the way down; there is one more on the way up.
        attention: Heights in pixels at which attention follows a block.
        attention_up: Whether, on the way up, attention follows all blocks of a level or only the last one.
        heads: Number of attention heads.
        heads_up: Number of heads on the way up, if it differs.
        head_channels: Channels of a head, which then sets the number of heads, or 0. Narrower layers have no attention.
        widened: Whether the first convolution is as wide as the first level, and not `channels` wide.
        resampling: What changes the resolution: convolutions (DDPM) or residual blocks (BigGAN).
        padding: Where a convolution of stride 2 pads: at the right and below ("end"), or on all sides ("both").
        progressive_input: How smaller versions of the input reach the levels: by a 1x1 convolution ("skip"), or as a
            pyramid of convolutions that replaces the level's input by its sum with the pyramid ("residual").
        progressive_output: Whether every level adds to the output at its resolution ("skip").
        features: Features of the noise embedding.
        cosines_first: Whether positional features begin with the cosines.
        frequency_shift: 1 if the last positional frequency is 1/10000, 0 if the one after it would be.
        features_multiplier: Number of features as a multiple of `channels`.
        width_multiplier: Length of the embedding as a multiple of `channels`.
        labels: Number of classes that the network is conditioned on; 0 for an unconditional network.
        label_at: Where the embedding adds the class.
        label_dropout: Fraction of the labels that training drops.
        augment: Number of parameters of the augmentation that the network is conditioned on.
        groups: Number of groups of a normalisation.
        group_size: Smallest number of channels in a group; narrow layers have fewer groups.
        epsilon: Added to the variance in a normalisation.
        scale_shift: Whether the embedding scales and shifts after the second normalisation, or is added before it.
        rescale: Whether every sum of two branches is divided by sqrt 2 (BigGAN, StyleGAN2).
        taps: Filter that halves and doubles the resolution.
        project: Whether blocks that change the resolution have a 1x1 convolution in their shortcut.
        dropout: Fraction of the activations that training drops before the second convolution of a block.
        remat: Whether training recomputes the activations inside each block for the gradient.
    """

    channels: Channels = 128
    multipliers: tuple[Annotated[float, Ge(0.125), Le(64)], ...] = (1.0, 2.0, 2.0, 2.0)
    blocks: Blocks = 2
    attention: tuple[Annotated[int, Ge(1), Le(65_536)], ...] = (16,)
    attention_up: Literal["all", "last"] = "all"
    heads: Count = 1
    heads_up: Count | None = None
    head_channels: Annotated[int, Ge(0), Le(MAX_CHANNELS)] = 0
    widened: bool = False
    resampling: Literal["convolution", "block"] = "block"
    padding: Literal["end", "both"] = "both"
    progressive_input: Literal["none", "skip", "residual"] = "none"
    progressive_output: Literal["none", "skip"] = "none"
    features: Literal["positional", "fourier"] = "positional"
    cosines_first: bool = False
    frequency_shift: Annotated[int, Ge(0), Le(1)] = 1
    features_multiplier: Multiple = 1
    width_multiplier: Multiple = 4
    labels: Labels = 0
    label_at: Literal["features", "output"] = "output"
    label_dropout: Dropout = 0.0
    augment: Labels = 0
    groups: Count = 32
    group_size: Count = 1
    epsilon: Annotated[float, Gt(0), Le(1)] = 1e-6
    scale_shift: bool = False
    rescale: bool = False
    taps: tuple[Annotated[float, Gt(0), Le(1000)], ...] = (1.0, 1.0)
    project: bool = True
    dropout: Dropout = 0.1
    remat: bool = False

    def __post_init__(self) -> None:
        if not self.multipliers:
            raise RecipeError("multipliers = []: expected one for each level, such as [1, 2].")
        if not self.taps or len(self.taps) % 2:  # filters of odd length shift the image
            raise RecipeError(
                f"taps = {list(self.taps)}: expected an even number of them, such as [1, 1] or [1, 3, 3, 1]."
            )
        if self.features_multiplier * self.channels % 2:
            raise RecipeError(f"channels = {self.channels}: an even number is expected, for sines and cosines.")

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of channels of every level."""
        return tuple(max(1, round(self.channels * one)) for one in self.multipliers)

    @property
    def embedding_width(self) -> int:
        """Length of the vector that every block receives."""
        return self.width_multiplier * self.channels

    def heads_of(self, width: int, *, up: bool = False) -> int:
        """Returns the number of heads of a layer of this width, 0 if a head would be wider."""
        if self.head_channels:
            return width // self.head_channels
        return self.heads_up if up and self.heads_up else self.heads

    def norm(self, channels: int) -> GroupNorm:
        """Returns a normalisation. Raises RecipeError unless the channels divide into equal groups."""
        groups = min(self.groups, channels // self.group_size)
        if not groups or channels % groups:
            raise RecipeError(
                f"{channels} channels do not divide into {groups or self.groups} groups of equal size. Choose channels "
                f"and multipliers whose products are multiples of {self.groups}, or other groups."
            )
        return GroupNorm(channels, groups, self.epsilon)

    def add(self, x: Image, y: Image) -> Image:
        """Returns the sum of two branches."""
        return (x + y) * 0.5**0.5 if self.rescale else x + y

    def resample(self, x: Pixels, move: Move) -> Pixels:
        """Returns x at the resolution of the output of a block."""
        return x if move == "stay" else (downsample if move == "down" else upsample)(x, self.taps)


_INJECTED = ("shape", "outputs", "gamma_range", "classes", "key")
_TYPES = get_type_hints(Design, include_extras=True) | {
    "noise_embedding": Annotated[Choice | AbstractNoiseEmbedding, "noise_embedding"],
    "latent": Annotated[Choice | AbstractPath, "path"],
    "by_sigma": bool,
}
_ARGS = f"""
Args:
{inspect.cleandoc(Design.__doc__ or "").partition("Attributes:")[2].strip(chr(10))}
    noise_embedding: What the network sees of gamma.
    latent: Path whose latents are the network's input.
    by_sigma: Whether the output is divided by sigma / alpha, which makes it a score.
"""


def _preset(noise_embedding: Choice) -> "Callable[[Callable[[], Design]], Callable[..., UNet]]":
    """Turns a function that returns a design into the constructor of that U-Net, and registers it by its name.

    The fields of the design become keywords, which are recipe keys; their values become the defaults.
    """

    def decorate(design: Callable[[], Design]) -> "Callable[..., UNet]":
        defaults = {
            **vars(design()),
            "noise_embedding": noise_embedding,
            "latent": Choice("path", "variance_preserving"),
            "by_sigma": False,
        }

        @wraps(design)
        def network(shape: Any, outputs: int, gamma_range: Any, classes: int, key: PRNGKeyArray, **keys: Any) -> "UNet":
            values = defaults | keys
            embedding, latent, by_sigma = (values.pop(name) for name in ("noise_embedding", "latent", "by_sigma"))
            chosen = Design(**values)
            if chosen.labels and classes and chosen.labels != classes:
                raise RecipeError(
                    f"labels = {chosen.labels}, but the data have {classes}. Give their number, or 0 for none."
                )
            parts = {"noise_embedding": built(embedding, gamma_range=gamma_range), "latent": built(latent)}
            return UNet(shape, outputs, key, design=chosen, by_sigma=by_sigma, **parts)

        injected = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in _INJECTED]
        keys = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=_TYPES[name])
            for name, value in defaults.items()
        ]
        network.__signature__ = inspect.Signature([*injected, *keys])  # type: ignore[attr-defined]
        network.__doc__ = f"{inspect.cleandoc(design.__doc__ or '')}\n{_ARGS}"
        return register("network", design.__name__)(network)

    return decorate


@_preset(Choice("noise_embedding", "gamma"))
def unet() -> Design:
    """A U-Net of custom design, which can combine the choices of the literature."""
    return Design()


@_preset(Choice("noise_embedding", "timestep"))
def ddpm_unet() -> Design:
    """DDPM's U-Net: convolutions of stride 2, attention of one head, the embedding of the timestep added.

    Ho et al. 2020, arXiv 2006.11239, appendix B.
    """
    return Design(widened=True, resampling="convolution", padding="end")


@_preset(Choice("noise_embedding", "sde_time"))
def ddpmpp() -> Design:
    """DDPM++: BigGAN's residual blocks, all sums of branches over sqrt 2, and positional features of the noise level.

    Song et al. 2021, arXiv 2011.13456, appendix H; also as EDM trains it, arXiv 2206.00364.
    """
    return Design(blocks=4, attention_up="last", label_at="features", group_size=4, rescale=True)


@_preset(Choice("noise_embedding", "log_sigma", {"factor": 1.0, "unit": 2.0}))  # sigma of data in [0, 1]
def ncsnpp() -> Design:
    """NCSN++: DDPM++ with a smoothing filter, Fourier features of log sigma, and the input at every resolution.

    Song et al. 2021, arXiv 2011.13456, appendix H; also as EDM trains it, arXiv 2206.00364. The authors' own model of
    the score has `by_sigma`, and latent and path "variance_exploding".
    """
    return Design(
        blocks=4,
        attention_up="last",
        progressive_input="residual",
        features="fourier",
        features_multiplier=2,
        label_at="features",
        group_size=4,
        rescale=True,
        taps=(1.0, 3.0, 3.0, 1.0),
    )


@_preset(Choice("noise_embedding", "timestep", {"table": "cosine", "steps": 4000, "rescaled": True}))
def iddpm_unet() -> Design:
    """iDDPM's U-Net: DDPM's with several heads of attention, and an embedding that scales and shifts.

    Nichol & Dhariwal 2021, arXiv 2102.09672.
    """
    return Design(
        blocks=3,
        attention=(16, 8),
        heads=4,
        resampling="convolution",
        cosines_first=True,
        frequency_shift=0,
        epsilon=1e-5,
        scale_shift=True,
        project=False,
        dropout=0.3,
    )


@_preset(Choice("noise_embedding", "timestep", {"table": "cosine"}))
def adm_unet() -> Design:
    """ADM's U-Net: iDDPM's with residual blocks that change the resolution, and heads of a fixed size.

    Dhariwal & Nichol 2021, arXiv 2105.05233.
    """
    return Design(
        channels=192,
        multipliers=(1.0, 2.0, 3.0, 4.0),
        blocks=3,
        attention=(32, 16, 8),
        head_channels=64,
        widened=True,
        cosines_first=True,
        frequency_shift=0,
        epsilon=1e-5,
        scale_shift=True,
        project=False,
    )


class UNet(AbstractNetwork):
    """A U-Net of the literature.

    `evaluate` is the authors' function of an image, a number that represents the noise level, and side information. The
    network derives the first two from z and gamma: the number by `noise_embedding`, and the image by `latent`, the path
    whose latents the authors feed to their network. With `by_sigma` the output is divided by sigma / alpha.
    """

    noise_embedding: AbstractNoiseEmbedding
    latent: AbstractPath
    embedding: Embedding
    conv_in: Conv
    down: "tuple[Down, ...]"
    mid: "tuple[Stage, Stage]"
    up: "tuple[Up, ...]"
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
        noise_embedding: AbstractNoiseEmbedding,
        latent: AbstractPath,
        by_sigma: bool = False,
    ):
        height, width, depth = shape
        halvings = len(design.multipliers) - 1
        if height % 2**halvings or width % 2**halvings:
            raise RecipeError(
                f"images of {height} x {width} pixels cannot be halved {halvings} times. Give fewer multipliers, or "
                "use network vdm_unet."
            )
        keys = (jax.random.fold_in(key, i) for i in itertools.count())
        lowest = design.widths[-1]
        self.noise_embedding, self.latent, self.design = noise_embedding, latent, design
        self.outputs, self.by_sigma = outputs, by_sigma
        self.embedding = _embedding(design, next(keys))
        self.down, skips = _down_levels(design, height, depth, keys)
        self.conv_in = Conv(depth, skips[0], next(keys))
        self.mid = (
            Stage(lowest, lowest, next(keys), design=design, heads=design.heads_of(lowest)),
            Stage(lowest, lowest, next(keys), design=design, heads=0),
        )
        self.up = _up_levels(design, height, depth * outputs, skips, keys)

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
        classes, masks = self._classes(condition, keys[0]), self._dropout_masks(z.shape, keys[1])
        output = self.evaluate(image, self.noise_embedding(gamma), classes, condition.get("augment"), masks)
        return output * jnp.exp(-gamma / 2).astype(output.dtype) if self.by_sigma else output

    def evaluate(
        self,
        image: Image,
        level: Scalar,
        classes: Float[Array, " n"] | None = None,
        augment: Float[Array, " a"] | None = None,
        masks: Masks = itertools.repeat(None),  # noqa: B008  (it has no state)
    ) -> Float[Array, "h w c k"]:
        """Evaluates the authors' network.

        Args:
            image: The input of their code, in [-1, 1] plus noise.
            level: What their code embeds of the noise level, such as a timestep or log sigma.
            classes: A one-hot vector of the class; zeros or None for unknown.
            augment: Parameters of the augmentation; None for none.
            masks: What dropout keeps in every block.
        """
        embedding = self.embedding(level, classes, augment)

        def apply(part: Any, h: Pixels) -> Pixels:
            if not isinstance(part, Stage | Block):
                return part(h)
            return (eqx.filter_checkpoint(part) if self.design.remat else part)(h, embedding, next(masks))

        h = self.conv_in(image)
        skips, smaller = [h], image
        for level_down in self.down:
            for stage in level_down.stages:
                h = apply(stage, h)
                skips.append(h)
            if level_down.leave is not None:
                h = apply(level_down.leave, h)
                h, smaller = self._with_input(level_down, h, smaller)
                skips.append(h)
        for stage in self.mid:
            h = apply(stage, h)
        output = None
        for level_up in self.up:
            for stage in level_up.stages:
                h = apply(stage, jnp.concatenate([h, skips.pop()], axis=-1))
            if level_up.head is not None:
                own = level_up.head(h, image.dtype)
                output = own if output is None else own + upsample(output, self.design.taps)
            if level_up.leave is not None:
                h = apply(level_up.leave, h)
        assert output is not None  # the last level has a head
        return output.reshape(*image.shape, self.outputs)

    def _with_input(self, level: "Down", h: Pixels, smaller: Pixels) -> tuple[Pixels, Pixels]:
        """Returns h joined with a smaller version of the network's input, and the input of the next pyramid."""
        if level.pyramid is None:
            return h, smaller
        if isinstance(level.pyramid, ConvDown):
            h = self.design.add(level.pyramid(smaller), h)
            return h, h
        smaller = downsample(smaller, self.design.taps)
        return h + level.pyramid(smaller), smaller

    def _classes(self, condition: Condition, key: PRNGKeyArray | None) -> Float[Array, " n"] | None:
        """Returns the class as a one-hot vector, zeros if training drops it; None without a label."""
        if not self.design.labels or "label" not in condition:
            return None
        label = jnp.asarray(condition["label"])
        if key is not None and self.design.label_dropout:
            label = jnp.where(jax.random.bernoulli(key, self.design.label_dropout), -1, label)
        return jax.nn.one_hot(label, self.design.labels)

    def _dropout_masks(self, shape: tuple[int, ...], key: PRNGKeyArray | None) -> Masks:
        """Cuts the masks of all blocks from one draw, which compiles faster than a draw for each."""
        if key is None or self.design.dropout == 0:
            return itertools.repeat(None)
        shapes = list(self._shapes_of_blocks(shape[0], shape[1]))
        ends = list(itertools.accumulate(map(math.prod, shapes)))
        drawn = jax.random.bernoulli(key, 1 - self.design.dropout, (ends[-1],))
        return (drawn[end - math.prod(one) : end].reshape(one) for one, end in zip(shapes, ends, strict=True))

    def _shapes_of_blocks(self, height: int, width: int) -> Iterator[tuple[int, int, int]]:
        """Yields the shape of the input of every block's second convolution, in their order."""
        last = len(self.down) - 1
        parts = [(level, part) for level, one in enumerate(self.down) for part in (*one.stages, one.leave)]
        parts += [(last, stage) for stage in self.mid]
        parts += [(last - i, part) for i, one in enumerate(self.up) for part in (*one.stages, one.leave)]
        for level, part in parts:
            block = part.block if isinstance(part, Stage) else part
            if isinstance(block, Block):
                at = level + {"stay": 0, "down": 1, "up": -1}[block.move]
                yield height >> at, width >> at, block.conv2.bias.shape[0]


class Down(eqx.Module):
    """The blocks at one resolution, the downsampling to the next, and the layers that add the input there."""

    stages: "tuple[Stage, ...]"
    leave: "Block | ConvDown | None"
    pyramid: Dense | ConvDown | None


class Up(eqx.Module):
    """The blocks at one resolution, its contribution to the output, and the upsampling to the next."""

    stages: "tuple[Stage, ...]"
    head: "Head | None"
    leave: "Block | ConvUp | None"


def _embedding(design: Design, key: PRNGKeyArray) -> Embedding:
    feature_key, key = jax.random.split(key)
    size = design.features_multiplier * design.channels
    if design.features == "fourier":
        features = FourierFeatures(size, feature_key)
    else:
        features = PositionalFeatures(size, design.cosines_first, design.frequency_shift)
    return Embedding(
        features,
        size,
        design.embedding_width,
        key,
        labels=design.labels,
        label_at=design.label_at,
        augment=design.augment,
    )


def _down_levels(design: Design, height: int, depth: int, keys: Keys) -> tuple[tuple[Down, ...], list[int]]:
    """Returns the levels from full resolution down, and the number of channels of every skip connection."""
    widths = design.widths
    width = widths[0] if design.widened else design.channels
    skips, levels, inputs = [width], [], depth
    for level, own in enumerate(widths):
        heads = design.heads_of(own) if height >> level in design.attention else 0
        stages = []
        for _ in range(design.blocks):
            stages.append(Stage(width, own, next(keys), design=design, heads=heads))
            width = own
            skips.append(width)
        leave = pyramid = None
        if level < len(widths) - 1:
            leave_key, pyramid_key = next(keys), next(keys)
            if design.resampling == "block":
                leave = Block(own, own, leave_key, design=design, move="down")
            else:
                padding = (0, 1) if design.padding == "end" else (1, 1)
                leave = ConvDown(own, own, leave_key, padding=padding)
            if design.progressive_input == "skip":
                pyramid = Dense(inputs, own, pyramid_key)
            elif design.progressive_input == "residual":
                pyramid = ConvDown.filtered(inputs, own, pyramid_key, taps=design.taps)
                inputs = own
            skips.append(width)
        levels.append(Down(tuple(stages), leave, pyramid))
    return tuple(levels), skips


def _up_levels(design: Design, height: int, outputs: int, skips: list[int], keys: Keys) -> tuple[Up, ...]:
    """Returns the levels from the lowest resolution up. Empties `skips`."""
    width, levels = design.widths[-1], []
    for level, own in reversed(list(enumerate(design.widths))):
        heads = design.heads_of(own, up=True) if height >> level in design.attention else 0
        stages = []
        for i in range(design.blocks + 1):
            attends = design.attention_up == "all" or i == design.blocks
            stages.append(Stage(width + skips.pop(), own, next(keys), design=design, heads=heads if attends else 0))
            width = own
        head = leave = None
        if level == 0 or design.progressive_output == "skip":
            head = Head(own, outputs, next(keys), design=design)
        if level:
            by_block = design.resampling == "block"
            leave = Block(own, own, next(keys), design=design, move="up") if by_block else ConvUp(own, next(keys))
        levels.append(Up(tuple(stages), head, leave))
    return tuple(levels)


class Stage(eqx.Module):
    """A residual block, then optional attention."""

    block: "Block"
    attention: "SelfAttention | None"

    def __init__(self, inputs: int, outputs: int, key: PRNGKeyArray, *, design: Design, heads: int):
        block_key, attention_key = jax.random.split(key)
        self.block = Block(inputs, outputs, block_key, design=design)
        self.attention = SelfAttention(outputs, attention_key, heads=heads, design=design) if heads else None

    def __call__(
        self, x: Float[Array, "h w i"], embedding: Float[Array, " width"], kept: DropoutMask
    ) -> Float[Array, "h w o"]:
        h = self.block(x, embedding, kept)
        return h if self.attention is None else self.attention(h)


class Block(eqx.Module):
    """Norm, swish, 3x3 convolution, embedding, norm, swish, dropout, 3x3 convolution, and the shortcut.

    DDPM's block (Ho et al. 2020, arXiv 2006.11239), and BigGAN's, which resamples both branches before the first
    convolution (Brock et al. 2019, arXiv 1809.11096; Song et al. 2021, arXiv 2011.13456; Dhariwal & Nichol 2021, arXiv
    2105.05233). Untrained, it returns the shortcut only.
    """

    norm1: GroupNorm
    conv1: Conv
    embed: Dense
    norm2: GroupNorm
    conv2: Conv
    shortcut: Dense | None
    design: Design = eqx.field(static=True)
    move: Move = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, key: PRNGKeyArray, *, design: Design, move: Move = "stay"):
        keys = jax.random.split(key, 4)
        self.norm1, self.conv1 = design.norm(inputs), Conv(inputs, outputs, keys[0])
        self.embed = Dense(design.embedding_width, 2 * outputs if design.scale_shift else outputs, keys[1])
        self.norm2, self.conv2 = design.norm(outputs), Conv(outputs, outputs, keys[2], initializer=ZEROS)
        projected = inputs != outputs or (move != "stay" and design.project)
        self.shortcut = Dense(inputs, outputs, keys[3]) if projected else None
        self.design, self.move = design, move

    def __call__(
        self, x: Float[Array, "h w i"], embedding: Float[Array, " width"], kept: DropoutMask
    ) -> Float[Array, "h2 w2 o"]:
        design = self.design
        h = self.conv1(design.resample(jax.nn.silu(self.norm1(x)), self.move))
        if design.scale_shift:
            scale, shift = jnp.split(self.embed(embedding), 2)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + self.embed(embedding))
        h = jax.nn.silu(h)
        h = h if kept is None else jnp.where(kept, h / (1 - design.dropout), 0)
        x = design.resample(x, self.move)
        return design.add(x if self.shortcut is None else self.shortcut(x), self.conv2(h))


class SelfAttention(eqx.Module):
    """Self-attention over all pixels, as a residual layer that starts as the identity.

    Head i has the channels i s, ..., (i + 1) s - 1 of q, k and v.
    """

    norm: GroupNorm
    q: Dense
    k: Dense
    v: Dense
    proj_out: Dense
    heads: int = eqx.field(static=True)
    design: Design = eqx.field(static=True)

    def __init__(self, channels: int, key: PRNGKeyArray, *, heads: int, design: Design):
        if channels % heads:
            raise RecipeError(f"{channels} channels do not divide into {heads} heads of attention. Choose other heads.")
        keys = jax.random.split(key, 4)
        self.norm = design.norm(channels)
        self.q, self.k, self.v = (Dense(channels, channels, one) for one in keys[:3])
        self.proj_out = Dense(channels, channels, keys[3], initializer=ZEROS)
        self.heads, self.design = heads, design

    def __call__(self, x: Image) -> Image:
        n = self.norm(x).reshape(-1, x.shape[-1])
        q, k, v = (layer(n).reshape(len(n), self.heads, -1) for layer in (self.q, self.k, self.v))
        return self.design.add(x, self.proj_out(attend(q, k, v).reshape(x.shape)))


class Head(eqx.Module):
    """Norm, swish, and a convolution to the output, which starts as zero."""

    norm: GroupNorm
    conv: Conv

    def __init__(self, channels: int, outputs: int, key: PRNGKeyArray, *, design: Design):
        self.norm, self.conv = design.norm(channels), Conv(channels, outputs, key, initializer=ZEROS)

    def __call__(self, x: Float[Array, "h w i"], dtype: jax.numpy.dtype) -> Float[Array, "h w o"]:
        return self.conv(jax.nn.silu(self.norm(x)), dtype)
