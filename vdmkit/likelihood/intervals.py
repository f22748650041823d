# SPDX-License-Identifier: Apache-2.0
"""Confidence intervals of a mean over test images, and a test that an expectation is negative.

`interval` separates the error of the finite test set from the Monte Carlo error.

`depth_beyond_doubt` returns how far below zero the mean of skewed terms must be to show that its expectation is
negative. Let Y_1, ..., Y_n <= H be independent, with expectations whose mean is at least 0. Then for every lambda in
[0, 1 / H]

    E prod_i (1 - lambda Y_i) = prod_i (1 - lambda E Y_i) <= (1 - lambda mean_i E Y_i)^n <= 1

by the inequality of arithmetic and geometric means, so that the product exceeds 1 / f with probability at most f
(Markov's inequality). This is the test by betting of Waudby-Smith and Ramdas 2024, J. R. Stat. Soc. B 86, 1. It uses
neither a variance nor a limit theorem. Lambda is chosen after seeing the values, so we take a union bound over a grid
of lambdas. The log of the product, g, is concave in lambda and 0 at 0, so at the next smaller of M powers of r it is at
least g / r. The probability that any of the M products exceeds M / f is at most f, so g must reach r log(M / f).

Any such test needs a bound H, because the mean may depend on values too rare to be observed. With the mean at -delta,

    H = (the largest value - the mean) + 10 delta

that is, 11 delta further above 0 than the largest value. The probability of a false alarm is at most f if values
beyond H do not contribute to the expectation. With long tails the largest value is far from the mean, and so is H:
among 10^5 samples of 600 log-normal values, log Y ~ N(0, 1) or N(0, 4), no mean was called negative at f = 9e-7. The
test needs many values: at least 234 for that f, even if all are equal.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import scipy
from jaxtyping import Float, Int

from vdmkit.data.sources import Pixels
from vdmkit.errors import DataError

_ENOUGH, _FEW = 30, 3  # degrees of freedom


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% half-widths: total, of the finite test set, of Monte Carlo, and of a solver.

    As the mean over these images it has only the errors of Monte Carlo and of the solver, which are printed after
    "+/-". As a claim about the population it has the total error, from `low` to `high`. The total is estimated from
    the spread over images, and the Monte Carlo part from the spread over an image's draws, so the Monte Carlo part may
    come out larger than the total if it dominates.
    """

    value: float
    half_width: float
    half_width_test_set: float
    half_width_monte_carlo: float
    half_width_solver: float = 0.0

    @property
    def low(self) -> float:
        """Returns the lower end of the interval of the population mean."""
        return self.value - self.half_width

    @property
    def high(self) -> float:
        """Returns the upper end of the interval of the population mean."""
        return self.value + self.half_width

    def with_solver(self, half_width: float) -> "Interval":
        """Returns the interval widened by the error of a solver."""
        return replace(self, half_width=self.half_width + half_width, half_width_solver=half_width)

    def __str__(self) -> str:
        on_these = self.half_width_monte_carlo + self.half_width_solver
        seen = self.half_width_test_set > 0 and self.half_width > on_these
        others = f"+/- {self.half_width:.4f} on others" if seen else "that of others is hidden by Monte Carlo"
        return f"{self.value:.4f} +/- {on_these:.4f} (95%: on these images; {others})"


def interval(replicates: Float[np.ndarray, "2 n"], groups: Int[np.ndarray, " n"] | None = None) -> Interval:
    """Returns the interval of the mean over n images, each estimated twice with independent draws.

    The spread of the images' means contains both errors; half the squared difference of an image's two estimates
    measures the Monte Carlo part alone. The difference of the two variances is the part of the finite test set, or 0 if
    it is negative.

    Copies of an image add no information about the population. If image g occurs n_g times, the mean over all images
    has the variance s^2 sum_g (n_g / n)^2, where s^2 is the variance among the distinct images' means; without copies
    this is s^2 / n. Student's t has one degree of freedom fewer than there are distinct images; for the Monte Carlo
    part see `degrees_of`.

    Args:
        replicates: Two estimates of each image.
        groups: A number for every image, the same for copies of one image. By default all images are distinct.

    Raises:
        DataError: there are fewer than two groups.
    """
    first, second = replicates
    means = (first + second) / 2
    n = len(means)
    groups = np.arange(n) if groups is None else groups
    check_distinct(groups)
    _, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    of_groups = np.bincount(place.reshape(-1), means) / sizes
    with np.errstate(invalid="ignore"):  # infinite estimates differ by NaN, which then propagates
        both = of_groups.var(ddof=1) * float((sizes**2).sum()) / n**2
        squares = (first - second) ** 2 / 4
        monte_carlo = squares.mean() / n
    test_set = max(both - monte_carlo, 0.0)
    of_images, of_draws = quantile_of(len(sizes)), float(scipy.special.stdtrit(degrees_of(squares), 0.975))
    half_widths = of_images * np.sqrt(both), of_images * np.sqrt(test_set), of_draws * np.sqrt(monte_carlo)
    return Interval(float(means.mean()), *(float(width) for width in half_widths))


def degrees_of(squares: Float[np.ndarray, " n"]) -> float:
    """Returns the degrees of freedom of a mean of squares, each with one degree of freedom and its own variance.

    They are n - 1, unless a few images dominate the variance: then (sum s_i^2)^2 / sum s_i^4 with the variances s_i^2
    (Satterthwaite 1946, Biometrics Bulletin 2, 110). A square estimates s_i^2, and a third of its square s_i^4;
    subtracting 2 corrects for estimating them (Rubin & Schenker 1986, JASA 81, 366). With 30 degrees or more the
    quantile differs from that of n - 1 by less than 4%.
    """
    n, total = len(squares), float(squares.sum())
    if not 0 < total < math.inf:
        return float(n - 1)
    degrees = 3 / float(((squares / total) ** 2).sum()) - 2
    return float(n - 1) if degrees >= _ENOUGH else min(max(degrees, 1.0), float(n - 1))


def remark_on_few(replicates: Float[np.ndarray, "2 n"]) -> tuple[str, ...]:
    """Returns a remark if so few images dominate the Monte Carlo variance that its estimate is rough."""
    if len(replicates[0]) <= _FEW or degrees_of((replicates[0] - replicates[1]) ** 2 / 4) >= _FEW:
        return ()
    return ("A few images carry most of the Monte Carlo variance: its interval is rough. More draws make it reliable.",)


def check_count(pixels: Pixels) -> None:
    """Raises DataError if there are too few test images for an interval."""
    if len(pixels) < 2:
        raise DataError(f"{len(pixels)} image(s) to test on: an interval needs at least 2. Give more.")


def check_index(index: Int[np.ndarray, " m"], count: int) -> Int[np.ndarray, " m"]:
    """Returns indices of images.

    Raises:
        DataError: an index is not one of 0..count - 1, or occurs twice.
    """
    if index.ndim != 1 or not np.issubdtype(index.dtype, np.integer):
        raise DataError(f"index of shape {index.shape} and type {index.dtype}: expected integers, of shape (m,).")
    if len(index) and not 0 <= index.min() <= index.max() < count:
        raise DataError(f"index from {index.min()} to {index.max()}: there are images 0..{count - 1}.")
    values, times = np.unique(index, return_counts=True)
    if len(values) < len(index):
        raise DataError(f"index: image {values[times.argmax()]} occurs {times.max()} times. Give each image once.")
    return index


def check_distinct(groups: Int[np.ndarray, " n"]) -> None:
    """Raises DataError if there are fewer than two distinct images, too few for an interval."""
    if len(np.unique(groups)) < 2:
        raise DataError(f"{len(groups)} image(s), all the same: an interval needs at least 2 that differ. Give more.")


def quantile_of(images: int) -> float:
    """Returns the 95% half-width of a mean over n >= 2 images in standard errors: a quantile of Student's t."""
    return float(scipy.special.stdtrit(images - 1, 0.975))


def passes_for(half_width: float, wanted: float) -> int:
    """Returns the number of passes, at least 1, whose average has the requested half-width.

    The half-width of the average of k passes is that of the first pass divided by sqrt(k). Because it does not depend
    on the later passes, its coverage is that of a single pass: given the spread of the first pass, the average is
    Gaussian around the truth with 1 / k of a pass's variance (Stein 1945, Annals of Mathematical Statistics 16, 243).
    Repeating until the half-width is small would select passes whose error is underestimated.

    Args:
        half_width: Half-width of the first pass; if it is not finite, the result is 1.
        wanted: Requested half-width in the same units; 0 for a single pass.
    """
    return math.ceil((half_width / wanted) ** 2) if 0 < wanted < half_width < math.inf else 1


_DEPTHS = 10.0
_SHARES = 2.0 ** -np.arange(7)  # values of lambda H; the best one falls with the number of values
_LEAST, _MOST = 1e-9, 1e6  # depths in units of the spread, in place of 0 (where the product may be 0) and infinity
_RATIO, _LAMBDAS = 2 ** (1 / 8), 641  # from 2^-40 to 2^40


def depth_beyond_doubt(values: Float[np.ndarray, " n"], false_alarm: float) -> float:
    """Returns how far below 0 the mean must be to show that the mean of the values' expectations is negative.

    Only the values' deviations from their mean are used. The result is infinite if there are too few values.

    Args:
        values: Independent values, nats.
        false_alarm: Probability f of such a mean although the mean of the expectations is not negative.
    """
    deviations = values - values.mean()
    spread = deviations.max()
    enough = _RATIO * math.log(_LAMBDAS / false_alarm)

    def excess(depth: float) -> float:
        """Returns the log of the largest product minus its threshold, which increases with the depth."""
        outcomes = (depth - deviations) / (spread + _DEPTHS * depth)
        return float(np.log1p(_SHARES[:, None] * outcomes).sum(1).max()) - enough

    if not spread > 0:
        return 0.0 if excess(1.0) > 0 else math.inf
    if not excess(_MOST * spread) > 0:
        return math.inf
    deep = spread
    while excess(deep) < 0:
        deep *= 2
    return scipy.optimize.root_scalar(excess, bracket=(_LEAST * spread, deep), rtol=1e-9).root
