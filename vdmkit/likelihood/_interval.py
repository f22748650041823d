# SPDX-License-Identifier: Apache-2.0
"""Error bars: how far a mean over test images may be off, and how much of that is Monte Carlo."""

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
    quantile = float(stdtrit(n - 1, 0.975))
    test_set, monte_carlo, both = (
        quantile * float(np.sqrt(v)) for v in (max(both - monte_carlo, 0.0), monte_carlo, both)
    )
    return Interval(float(means.mean()), both, test_set, monte_carlo)
