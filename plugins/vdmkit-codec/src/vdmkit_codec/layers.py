# SPDX-License-Identifier: Apache-2.0
"""The grids of the latents y_t = z_t / alpha_t = k_t d_t, and the distributions between them, as integers.

    q(y_0 | x) = N(x, s_0^2)    q(y_t | y_s) = N(y_s, s_t^2 - s_s^2)    p(y_T) = N(0, 1 + s_T^2)

with s_t = exp(gamma_t / 2). Each grid is uniform and does not depend on other latents, so that y_t can be drawn before
y_s is pushed (Bit-Swap: Kingma et al. 2019, arXiv 1905.06845). d_t is half the smaller standard deviation of the two
distributions of y_t.
"""

import hashlib
import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int64

from vdmkit.errors import CodecError
from vdmkit_codec.distributions import FINE, WINDOW, GaussianTable, exact_exp
from vdmkit_codec.mixture import MixtureTable

GAMMA_BITS = 16  # gammas are multiples of 2^-16, which are the same on every machine
MOST_WHOLE = 80 << GAMMA_BITS  # exp of it, and its square, are within the range of float64
_CELLS_PER_SD = 2
_MOST_CELLS = 1 << 11  # in a table, 2 MiB; 10,000 even steps take 600
_CELLS_OF_STEP = 128  # in tables, on average; even steps take 50


def whole(values: Float[np.ndarray, "*n"]) -> tuple[int, ...]:
    """Rounds values to integers in units of 2^-16."""
    return tuple(int(value) for value in np.rint(np.asarray(values, np.float64) * 2**GAMMA_BITS))


@dataclass(frozen=True)
class Layers:
    """The T steps of a codec.

    Args:
        gammas: T + 1 increasing gammas, in units of 2^-16.
        levels: Number V of levels.
        spacing: Distance between the data of neighbouring levels, which are placed evenly around 0.
        log_errors: log m of each step of the Gaussian kernel, in units of 2^-16; empty for m = 0.
        mixture: Whether the kernel is the mixture over levels.

    Raises:
        CodecError: gammas do not increase, or the widths of steps differ so much that the tables would not fit in
            memory.
    """

    gammas: tuple[int, ...]
    levels: int
    spacing: float
    log_errors: tuple[int, ...] = ()
    mixture: bool = False

    def __post_init__(self) -> None:
        if len(self.gammas) < 2 or not all(a < b for a, b in itertools.pairwise(self.gammas)):
            raise CodecError("gammas do not rise from step to step, by 2^-16 at least")
        if max(map(abs, (*self.gammas, *self.log_errors))) > MOST_WHOLE:
            raise CodecError("gammas, or logs of errors, lie beyond -80 and 80")
        if self.log_errors and (self.mixture or len(self.log_errors) != self.steps):
            raise CodecError("errors are not those of the steps")
        of_tables = 2 * WINDOW * np.append(self.q_sd / self.d, self.p_sd / self.d)
        if of_tables.max() > _MOST_CELLS or of_tables.sum() > _MOST_CELLS + _CELLS_OF_STEP * self.steps:
            raise CodecError("steps differ so much in width that their tables would fill the memory")

    @property
    def steps(self) -> int:
        return len(self.gammas) - 1

    @cached_property
    def gamma(self) -> Float[np.ndarray, " steps_plus_1"]:
        return np.asarray(self.gammas) / 2**GAMMA_BITS

    @cached_property
    def s(self) -> Float[np.ndarray, " steps_plus_1"]:
        """Returns sigma / alpha."""
        return exact_exp(self.gamma / 2)

    @cached_property
    def c(self) -> Float[np.ndarray, " steps"]:
        """Returns the share of the noise that each step removes."""
        return 1 - exact_exp(-np.diff(self.gamma))

    @cached_property
    def q_sd(self) -> Float[np.ndarray, " steps_plus_1"]:
        """Returns the standard deviations of q(y_0 | x), and of y_t given the latent before it."""
        return np.append(self.s[0], self.s[1:] * np.sqrt(self.c))

    @cached_property
    def p_sd(self) -> Float[np.ndarray, " steps_plus_1"]:
        """Returns the standard deviations of p(y_s | y_t) (of a component, for the mixture), and that of the prior."""
        variance = self.s[:-1] ** 2
        if self.log_errors:
            errors = exact_exp(np.asarray(self.log_errors) / 2**GAMMA_BITS)
            variance = variance + self.c * self.s[1:] ** 2 * errors
        return np.sqrt(np.append(self.c * variance, 1 + self.s[-1:] ** 2))

    @cached_property
    def d(self) -> Float[np.ndarray, " steps_plus_1"]:
        """Returns the widths of the cells."""
        return np.minimum(self.q_sd, self.p_sd) / _CELLS_PER_SD

    @cached_property
    def x(self) -> Float[np.ndarray, " v"]:
        """Returns the data of the levels."""
        return (np.arange(self.levels) - (self.levels - 1) / 2) * self.spacing

    @cached_property
    def q(self) -> list[GaussianTable]:
        return [GaussianTable(float(sd), escapes=False) for sd in _in_cells(self.q_sd, self.d)]

    @cached_property
    def prior(self) -> GaussianTable:
        return GaussianTable(float(_in_cells(self.p_sd, self.d)[-1]), escapes=True)

    @cached_property
    def p(self) -> list[GaussianTable] | list[MixtureTable]:
        """Returns the table of each step."""
        ratios = [float(sd) for sd in _in_cells(self.p_sd, self.d)[:-1]]
        if not self.mixture:
            return [GaussianTable(sd, escapes=True) for sd in ratios]
        means = [np.rint(c * self.x / d * FINE).astype(np.int64) for c, d in zip(self.c, self.d, strict=False)]
        return [MixtureTable(sd, mean) for sd, mean in zip(ratios, means, strict=True)]

    def parts(self, k: Int64[np.ndarray, "*n"], of: int, on: int, scale: float = 1.0) -> Int64[np.ndarray, "*n"]:
        """Returns scale times y_of = k d_of, in parts of the cells of y_on."""
        return np.rint(k * (self.d[of] / self.d[on] * FINE * scale)).astype(np.int64)

    def parts_of_level(self, level: Int64[np.ndarray, "*n"]) -> Int64[np.ndarray, "*n"]:
        """Returns x in parts of the cells of y_0."""
        return np.rint(self.x / self.d[0] * FINE).astype(np.int64)[level]

    @cached_property
    def bits(self) -> float:
        """Returns the bits that a value borrows while its image is coded, for the two latents that exist at a time."""
        entropy = np.log2(self.q_sd / self.d * np.sqrt(2 * np.pi * np.e))
        return float((entropy[:-1] + entropy[1:]).max())

    def sha256(self) -> str:
        """Returns a shortened SHA-256 of every table and constant."""
        digest = hashlib.sha256()
        tables = [self.prior.cumulative, *(table.cumulative for table in self.q)]
        tables += [table.cumulative if isinstance(table, GaussianTable) else table.window.normal for table in self.p]
        for array in (self.s, self.c, self.d, self.x, *tables):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:32]


def _in_cells(sd: Float[np.ndarray, " n"], d: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Returns the standard deviations, in cells, of normal distributions that have `sd` after rounding to cells.

    Rounding adds d^2 / 12 to the variance. Without this (Sheppard's) correction the latents would have 2% more noise
    than at their gamma, which costs 3e-5 bits a step.
    """
    return np.sqrt((sd / d) ** 2 - 1 / 12)
