# SPDX-License-Identifier: Apache-2.0
"""Laws in slots: every one is a partition of all 2^26, of the probabilities that its formula says."""

import numpy as np
import pytest
from scipy.special import ndtr
from vdmkit_codec.distributions import (
    ESCAPE,
    FINE,
    OUT,
    WEIGHT_BITS,
    WINDOW,
    GaussianTable,
    LevelsLaw,
    even,
    mostly_zero,
)
from vdmkit_codec.mixture import MixtureTable
from vdmkit_codec.rans import SLOTS, Stack

SDS = (1.99, 2.0, 2.7, 13.3, 200.1)  # cells; grids have at least 2


def tiles(law, symbols: np.ndarray, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts and frequencies of symbols of the first value, which tile [0, end) and are found again."""
    starts, frequencies = law.intervals(symbols)
    assert starts[0] == 0
    np.testing.assert_array_equal(starts[1:], starts[:-1] + frequencies[:-1])
    assert starts[-1] + frequencies[-1] == end
    assert frequencies.min() >= 1
    for slots in (starts, starts + frequencies - 1, starts + frequencies // 2):
        found, heads = at(law, slots)
        np.testing.assert_array_equal(found, symbols)
        np.testing.assert_array_equal(heads, frequencies * 2**34 + slots - starts)
    return starts, frequencies


def at(law, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The symbols of each value at its slot, and the heads without them: frequencies times 2^34, plus the rest."""
    stack = Stack(np.full(4096, 2**60, np.uint64))
    stack.heads[: len(slots)] += slots.astype(np.uint64)
    symbols = law.pop_from(stack, len(slots))
    return symbols, stack.heads[: len(slots)].astype(np.int64)


def escapes(law, symbols: np.ndarray) -> None:
    """These symbols, and the last slots, are the escape's."""
    starts, frequencies = law.intervals(symbols)
    assert (starts == SLOTS - ESCAPE).all()
    assert (frequencies == ESCAPE).all()
    slots = np.resize(np.array([SLOTS - ESCAPE, SLOTS - 1], np.uint64), len(symbols))
    found, heads = at(law, slots)
    assert (found == OUT).all()
    np.testing.assert_array_equal(heads, ESCAPE * 2**34 + slots.astype(np.int64) - (SLOTS - ESCAPE))


def first_cell(mean: int, half: int) -> int:
    """The first cell whose lower edge is in the window of `half` cells on both sides of a mean in parts."""
    return -((half * FINE - mean - FINE // 2) // FINE)


@pytest.mark.costly
@pytest.mark.parametrize("sd", SDS)
@pytest.mark.parametrize("with_escapes", [False, True])
@pytest.mark.parametrize("mean", [0, 1, 63, 64, 65, -77, 10**9 + 5, -(10**12) - 31])
def test_gaussian(sd: float, with_escapes: bool, mean: int) -> None:
    """Every slot belongs to one symbol, and the probabilities are those of the normal distribution."""
    table = GaussianTable(sd, with_escapes)
    half = int(np.ceil(WINDOW * sd))
    first = first_cell(mean, half)
    k = first + np.arange(2 * half)
    law = table.at(np.full(len(k), mean))
    total = SLOTS - ESCAPE * with_escapes
    starts, frequencies = tiles(law, k, total)
    # Python's whole numbers: each edge at its part of the window, the outer ones at the ends of the slots.
    edges = [int(cell) * FINE - FINE // 2 - mean for cell in k[1:].tolist()]
    below = [int(ndtr(e / (sd * FINE)) * (total - 2 * half)) + (e + half * FINE) // FINE for e in edges]
    assert np.abs(starts[1:] - below).max() <= 1  # where two Phi round to different floors
    mass = np.diff(ndtr(np.array([-np.inf, *edges, np.inf]) / (sd * FINE)))
    # A floor at either edge and the slot of each cell: two slots, beside the share that all cells and the escape take.
    assert (np.abs(frequencies / SLOTS - mass) <= (mass * (2 * half + ESCAPE) + 2) / SLOTS + 6e-10).all()
    if with_escapes:
        escapes(law, np.where(np.arange(len(k)) % 2, k[-1] + 1, k[0] - 1) + 0 * k)


@pytest.mark.costly
@pytest.mark.parametrize("sd", SDS[:4])
@pytest.mark.parametrize(("levels", "gap"), [(2, 3000), (5, 1), (17, 300), (17, 5000), (256, 20)])
def test_mixture(sd: float, levels: int, gap: int) -> None:
    """Every slot belongs to one symbol, and the sum over nearby levels is the whole sum."""
    rng = np.random.default_rng(levels)
    offsets = np.sort(rng.integers(-gap, gap, levels)) + gap * np.arange(levels)
    table = MixtureTable(sd, offsets)
    half = int(np.ceil(WINDOW * sd))
    for place in (0, 77, -(10**9) - 3):
        weights = rng.dirichlet(np.full(levels, 0.3))
        cumulative = np.append(0, np.rint(np.cumsum(weights) * 2**WEIGHT_BITS)).astype(np.int32)
        first = first_cell(place + int(offsets[0]), half)
        k = first + np.arange(int(table.window.cells))
        law = table.at(np.full(len(k), place), np.broadcast_to(cumulative, (len(k), levels + 1)))
        starts, frequencies = tiles(law, k, SLOTS - ESCAPE)
        means, last = (place + offsets).tolist(), int(table.window.end)
        edges = [int(cell) * FINE - FINE // 2 for cell in k[1:].tolist()]
        of_levels = np.diff(cumulative).tolist()
        for j in range(1, len(k), max(1, len(k) // 60)):
            at = [min(max(edges[j - 1] - mean + half * FINE, 0), last) for mean in means]
            whole = sum(w * int(table.window.normal[i]) for w, i in zip(of_levels, at, strict=True))
            assert starts[j] == (whole >> WEIGHT_BITS) + j
        scaled = (np.array([-np.inf, *edges, np.inf])[:, None] - means) / (sd * FINE)
        mass = np.diff(ndtr(scaled) @ (np.diff(cumulative) / 2**WEIGHT_BITS))
        assert (
            np.abs(frequencies / SLOTS - mass) <= (mass * (int(table.window.cells) + ESCAPE) + 3) / SLOTS + 6e-10
        ).all()
        escapes(law, np.where(np.arange(len(k)) % 2, k[-1] + 1, k[0] - 1) + 0 * k)


def test_levels() -> None:
    """Levels of zero weight can be coded, and every slot belongs to one level."""
    rng = np.random.default_rng(0)
    for levels in (2, 5, 17, 256):
        weights = rng.dirichlet(np.full(levels, 0.05))
        cumulative = np.append(0, np.floor(np.cumsum(weights) * 2**24 + 1e-6)).astype(np.int64)
        cumulative[-1] = 2**24
        law = LevelsLaw(np.broadcast_to(cumulative, (levels, levels + 1)))
        _, frequencies = tiles(law, np.arange(levels), SLOTS)
        mass = np.diff(cumulative) / 2**24
        assert (np.abs(frequencies / SLOTS - mass) <= (mass * levels + 2) / SLOTS).all()


def test_even_and_mostly_zero() -> None:
    """A stored image takes its raw bits up to a millionth, and an offset of 0 less than 1e-3 bits."""
    for levels in (1, 2, 17, 255, 256):
        _, frequencies = tiles(even(levels, levels), np.arange(levels), SLOTS)
        assert np.abs(frequencies * levels / SLOTS - 1).max() < 2e-5
    _, frequencies = tiles(mostly_zero(17, 17), np.arange(17), SLOTS)
    assert -np.log2(frequencies[0] / SLOTS) < 1e-3
    assert -np.log2(frequencies[-1] / SLOTS) < 21


def test_tables_never_fall() -> None:
    """Counts never fall, although Phi is rounded, so that a search in the table is correct."""
    for sd in np.geomspace(2, 300, 20):
        assert (np.diff(GaussianTable(float(sd), escapes=True).cumulative) >= 0).all()
