# SPDX-License-Identifier: Apache-2.0
"""Forecasts the size of a file without encoding: the bound of its images, and the exact size of everything else.

The length of a chunk comes from a simulation of the numbers of bits in its lanes. The head of a lane holds from 32 to
64 bits. Excess bits move as words to the tail that all lanes share; missing bits are taken from the tail, or are
initial bits of the chunk. Latents are normal, so a pop of m of them takes
m log2(q_sd / d sqrt(2 pi)) + log2(e) chi^2_m / 2 bits; their push returns these, plus their term of the bound.
"""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, UInt8

from vdmkit.data.folder import ImageList
from vdmkit.devices import Arithmetic, arithmetic, facts_of
from vdmkit.errors import DataError
from vdmkit.likelihood.intervals import interval
from vdmkit.likelihood.log_likelihood import pass_over
from vdmkit.progress import Progress, track
from vdmkit_codec.chain import ChunkCode
from vdmkit_codec.coding import Coding
from vdmkit_codec.container import size_of_file
from vdmkit_codec.encoding import most_images
from vdmkit_codec.layers import Layers
from vdmkit_codec.payload import Payload
from vdmkit_codec.rans import first_heads

_MOST = 256  # images in the sample
_MOST_STEPS = 32  # steps per image, each with two draws
_SIMULATIONS = 16
_MOST_GROUPS = 64  # groups that are simulated; later groups are like the last


@dataclass(frozen=True)
class Rate:
    """Mean bits of an image.

    Args:
        reconstruction: Reconstruction term of the bound of images that are not stored.
        diffusion: Their diffusion term.
        prior: Their prior term.
        raw: Bits of a stored image.
        stored: Share of stored images.
        variance: Variance of the data.
        pixels: Share of each value in an image's bits.
    """

    reconstruction: float
    diffusion: float
    prior: float
    raw: float
    stored: float
    variance: float
    pixels: Float[np.ndarray, " d"]

    @property
    def bits(self) -> float:
        """Returns the mean bits of an image, stored or not."""
        return (1 - self.stored) * (self.reconstruction + self.diffusion + self.prior) + self.stored * self.raw


@dataclass(frozen=True)
class Forecast:
    """Bytes of a payload, and the initial bits of its stack."""

    bytes: float
    initial_bits: float


@dataclass(frozen=True)
class ExpectedRate:
    """The expected `Compressed`, in bits per dimension; `net` is the T-step bound, at most the raw size of an image.

    The 95% half-widths of `net` come from the draws, and from the sample of images if not all were measured.
    """

    images: int
    images_looked_at: int
    stored: int
    bytes: int
    gross: float
    net: float
    half_width_monte_carlo: float
    half_width_sample: float
    initial: float
    steps: str
    arithmetic: Arithmetic

    def as_json(self) -> dict[str, Any]:
        return facts_of(self)

    def __str__(self) -> str:
        errors = f"+/- {self.half_width_monte_carlo:.4f} (draws)"
        if self.images_looked_at < self.images:
            errors += f" +/- {self.half_width_sample:.4f} (a sample of {self.images_looked_at:,} images)"
        rest = self.gross - self.net - self.initial
        lines = [
            f"expected: {self.images:,} images in {self.bytes:,} bytes: {self.gross:.4f} bits/dim; {self.steps}",
            f"= {self.net:.4f} {errors} images + {self.initial:.4f} initial bits + {rest:.4f} everything else",
        ]
        if self.stored:
            lines += [f"stored uncompressed, because the model would make them larger: about {self.stored:,}"]
        return "\n".join([*lines, f"the bound in {self.arithmetic}"])


def expected_rate(
    coding: Coding, images: ImageList, *, chunk: int, seed: int, progress: Progress = None
) -> ExpectedRate:
    """Forecasts the size of a file from at most 256 images, evenly spaced.

    The other parts of the file are built and measured, or simulated lane by lane.

    Raises:
        DataError: there are no images.
    """
    codec, dimensions = coding.codec, coding.codec.model.dimensions
    pixels, chunk = _sample(images), min(chunk, most_images(codec))
    rate, bits = _rate(coding, pixels, seed, progress)
    sizes = [min(chunk, len(images) - first) for first in range(0, len(images), chunk)]
    chunks = {size: forecast(codec.chunk_code(), rate, size) for size in set(sizes)}
    parts = [(size, round(chunks[size].bytes)) for size in sizes]
    file = size_of_file(coding.header(chunk), parts, images.names)
    initial = sum(chunks[size].initial_bits for size in sizes)
    found, values = interval(bits), len(images) * dimensions
    return ExpectedRate(
        images=len(images),
        images_looked_at=min(len(images), len(pixels)),
        stored=round(len(images) * rate.stored),
        bytes=file,
        gross=8 * file / values,
        net=found.value / dimensions,
        half_width_monte_carlo=found.half_width_monte_carlo / dimensions,
        half_width_sample=found.half_width_test_set / dimensions,
        initial=initial / values,
        steps=str(coding),
        arithmetic=arithmetic(),
    )


def _sample(images: ImageList) -> UInt8[np.ndarray, "n h w c"]:
    """Returns evenly spaced images; a single image is repeated, because one estimate has no error."""
    if not len(images):
        raise DataError("there are no images. Give some.")
    chosen = np.linspace(0, len(images) - 1, min(max(len(images), 2), _MOST)).round().astype(int)
    return np.concatenate([images.read(i, i + 1) for i in chosen.tolist()])


def _rate(
    coding: Coding, pixels: UInt8[np.ndarray, "n h w c"], seed: int, progress: Progress
) -> tuple[Rate, Float[np.ndarray, "2 n"]]:
    """Returns the mean bits, and two estimates for each image: of the bound, or of the raw size if that is less."""
    model, levels = coding.codec.model, coding.codec.model.observation.levels
    known = pixels.reshape(len(pixels), -1).max(1) < levels
    terms = _bound(coding, pixels[known], seed, progress)
    total = np.full((2, len(pixels)), np.inf)
    total[:, known] = sum(terms.values())
    raw = model.dimensions * np.where(known, np.log2(levels), 8.0)
    stored = total.mean(0) >= raw
    kept = ~stored[known]
    of = ("reconstruction", "diffusion", "prior")
    means = [float(terms[name][:, kept].mean()) if kept.any() else 0.0 for name in of]
    rate = Rate(
        *means,
        raw=float(raw[stored].mean()) if stored.any() else 0.0,
        stored=float(stored.mean()),
        variance=float(coding.codec.layers.x[np.minimum(pixels, levels - 1)].var(0).mean()),
        pixels=shares_of_pixels(pixels),
    )
    return rate, np.where(stored, raw, total)


def _bound(
    coding: Coding, pixels: UInt8[np.ndarray, "n h w c"], seed: int, progress: Progress
) -> dict[str, Float[np.ndarray, "2 n"]]:
    """Returns two estimates of each image by term, in bits."""
    model, bound = coding.codec.model, coding.bound
    if not len(pixels):
        return {name: np.zeros((2, 0)) for name in ("reconstruction", "diffusion", "prior")}
    strata = min(bound.steps, _MOST_STEPS)
    plan = eqx.tree_at(lambda plan: plan.draws, bound.even_plan(model), np.asarray(strata))
    index, group = np.arange(len(pixels)), coding.codec.group
    with track(progress, "bound", 2 * strata * -(-len(pixels) // group)) as advance:
        how = {"batch_size": group, "key": jax.random.key(seed), "on_round": advance}
        found = pass_over(bound, model, pixels, index, plan, **how)
    return {name: np.asarray(nats, np.float64) / np.log(2) for name, nats in found.terms.items()}


@dataclass
class _Stack:
    """A simulated stack: bits above 32 in each head, words in the tail, and initial words."""

    heads: Float[np.ndarray, " lanes"]
    words: int = 0
    seeded: int = 0

    def add(self, bits: Float[np.ndarray, " lanes"]) -> None:
        """Pushes this number of bits onto each lane; negative numbers are pops."""
        carried = np.floor((self.heads + bits) / 32)
        self.heads += bits - 32 * carried
        words = self.words + int(carried.sum())
        self.words, self.seeded = max(words, 0), self.seeded - min(words, 0)

    def shared(self, of_values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " lanes"]:
        """Returns the sum over each lane's values; values are assigned to the lanes row by row."""
        lanes = len(self.heads)
        return np.append(of_values, np.zeros(-len(of_values) % lanes)).reshape(-1, lanes).sum(0)


def shares_of_pixels(images: UInt8[np.ndarray, "n *shape"]) -> Float[np.ndarray, " d"]:
    """Returns the approximate share of each value in an image's bits, from the entropies of the levels.

    The shares matter if a lane codes the same pixels of every image: the corners of digits take hardly any bits.
    """
    values = images.reshape(len(images), -1)
    places = np.arange(values.shape[1]) * 256
    counts = np.bincount((values + places).ravel(), minlength=256 * len(places)).reshape(-1, 256)
    frequencies = counts / len(images)
    entropies = -(frequencies * np.log2(np.where(counts, frequencies, 1))).sum(1)
    return entropies / entropies.sum() if entropies.any() else np.full(len(places), 1 / len(places))


def forecast(code: ChunkCode, rate: Rate, images: int) -> Forecast:
    """Returns the average size of a chunk of this number of images."""
    found = [_simulated(code, rate, images, np.random.default_rng(seed)) for seed in range(_SIMULATIONS)]
    coded = Forecast(*(float(np.mean(column)) for column in zip(*found, strict=True)))
    return min(coded, _stored(code, rate, images), key=lambda one: one.bytes)


def _stored(code: ChunkCode, rate: Rate, images: int) -> Forecast:
    """Returns the size of a chunk whose images are all stored."""
    values, levels, groups = len(rate.pixels), code.chain.layers.levels, []
    bits = rate.stored * rate.raw + (1 - rate.stored) * values * np.log2(levels)  # of an image
    lanes = code.lanes_for(images * values)
    while (done := sum(groups)) < images and len(groups) < _MOST_GROUPS:
        groups.append(code.size_of_group(int(done * bits / 32), images - done))
    stack = np.zeros(lanes, np.uint64), np.zeros(int(images * bits / 32), np.uint32)
    payload = Payload(_filled(groups, images), np.full(images, levels, np.uint16), 0, *stack)
    return Forecast(float(len(payload.to_bytes())), float(payload.initial_bits))


def _filled(groups: list[int], images: int) -> tuple[int, ...]:
    """Returns the groups of all images; the remaining groups are like the last."""
    more, left = divmod(images - sum(groups), groups[-1])
    return *groups, *[groups[-1]] * more, *[left] * (left > 0)


def _simulated(code: ChunkCode, rate: Rate, images: int, rng: np.random.Generator) -> tuple[int, int]:
    """Simulates one chunk; returns the bytes of the payload, and the initial bits of the stack."""
    lanes = code.lanes_for(images * len(rate.pixels))
    stack, groups, stored = _Stack(np.log2(first_heads(code.seed, lanes).astype(float)) - 32), [], 0
    while (done := sum(groups)) < images and len(groups) < _MOST_GROUPS:
        groups.append(code.size_of_group(stack.words, images - done))
        more = round(sum(groups) * rate.stored) - stored
        stored += more
        stack.add(stack.shared(np.full(more * len(rate.pixels), rate.raw / len(rate.pixels))))
        _push_group(stack, code, rate, groups[-1] - more, rng)
    stack.words += round((images - done) * rate.bits / 32)
    heads, words = np.zeros(lanes, np.uint64), np.zeros(stack.words, np.uint32)
    kinds = np.where(np.arange(images) < stored, 256, 0).astype(np.uint16)
    payload = Payload(_filled(groups, images), kinds, stack.seeded, heads, words)
    return len(payload.to_bytes()), payload.initial_bits


def _push_group(stack: _Stack, code: ChunkCode, rate: Rate, images: int, rng: np.random.Generator) -> None:
    """Simulates `Chain.encode`."""
    layers, values = code.chain.layers, stack.shared(np.ones(images * len(rate.pixels)))
    pixels, owed = stack.shared(np.tile(rate.pixels, images)), np.zeros(len(values))
    gained = np.append(rate.reconstruction, _of_steps(layers, rate))
    for entropy, bits in zip(np.log2(layers.q_sd / layers.d * np.sqrt(2 * np.pi)), gained, strict=True):
        popped = values * entropy + np.log2(np.e) * rng.gamma(values / 2)  # chi^2_m / 2
        stack.add(-popped)
        stack.add(owed + pixels * bits)
        owed = popped
    stack.add(owed + pixels * rate.prior)


def _of_steps(layers: Layers, rate: Rate) -> Float[np.ndarray, " steps"]:
    """Returns the diffusion term of each step, as if the data were normal with their variance.

    The information is capped, so that steps at low noise levels add nothing.
    """
    known = len(rate.pixels) / 2 * np.log2(1 + rate.variance / layers.s**2)
    parts = -np.diff(np.minimum(known, known[-1] + rate.diffusion))
    parts += not parts.any()  # images that are all the same
    return rate.diffusion * parts / parts.sum()
