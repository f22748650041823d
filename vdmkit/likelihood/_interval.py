# SPDX-License-Identifier: Apache-2.0
"""Error bars: how far a mean over test images may be off, and how much of that is Monte Carlo."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% half-widths: from the finite test set, from Monte Carlo, and both together."""

    value: float
    half_width: float
    half_width_test_set: float
    half_width_monte_carlo: float

    @property
    def low(self) -> float:
        return self.value - self.half_width

    @property
    def high(self) -> float:
        return self.value + self.half_width


def interval(replicates: Float[np.ndarray, "2 n"]) -> Interval:
    """The mean over n >= 2 images, each estimated twice with independent draws.

    The spread of the images' means holds both errors; half the squared difference of an image's two estimates
    measures the Monte Carlo part alone. What is left of the first after the second is the finite test set's: nothing,
    where by chance the second comes out larger.
    """
    first, second = replicates
    means = (first + second) / 2
    n = len(means)
    both = means.var(ddof=1) / n
    monte_carlo = ((first - second) ** 2 / 4).mean() / n
    quantile = quantile_of(n)
    test_set, monte_carlo, both = (
        quantile * float(np.sqrt(v)) for v in (max(both - monte_carlo, 0.0), monte_carlo, both)
    )
    return Interval(float(means.mean()), both, test_set, monte_carlo)


def quantile_of(images: int) -> float:
    """Returns the half-width of a 95% interval of a mean over n >= 2 images, in standard errors: Student's quantile."""
    return float(stdtrit(images - 1, 0.975))


def passes_for(half_width: float, wanted: float) -> int:
    """Returns how many passes like the first to average, so that their half-width is the wanted one: at least 1.

    The half-width of the average of k passes is the first one's divided by sqrt(k). Because it is the first one's
    whatever the others give, it covers as often as that of a single pass: given the spread of the first pass, the
    average is Gaussian about the truth with 1 / k of a pass's variance (Stein 1945, Annals of Mathematical Statistics
    16, 243). To measure again until the half-width comes out small would select passes that look better than they are.

    Args:
        half_width: the first pass's; where it is not finite, one pass is all.
        wanted: in the same units; 0 asks for nothing.
    """
    return math.ceil((half_width / wanted) ** 2) if 0 < wanted < half_width < math.inf else 1
