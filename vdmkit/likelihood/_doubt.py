# SPDX-License-Identifier: Apache-2.0
r"""A test that an expectation is negative, valid for skewed terms: how far below zero their mean must be.

Let Y_1, ..., Y_n <= H be independent, with expectations whose mean is at least 0. Then for every lambda in [0, 1 / H]

    E prod_i (1 - lambda Y_i) = prod_i (1 - lambda E Y_i) <= (1 - lambda mean_i E Y_i)^n <= 1

by the inequality of arithmetic and geometric means, so that the product exceeds 1 / f with probability f at most
(Markov's inequality). This is the test by betting of Waudby-Smith and Ramdas 2024, J. R. Stat. Soc. B 86, 1. It uses
neither a variance nor a limit theorem. Lambda is chosen after seeing the values, which must be paid for. The log of
the product, g, is concave in lambda and 0 at 0, so that at the next smaller of M powers of r it is at least g / r; the
probability that a product at one of these exceeds M / f is at most f. So g must reach r log(M / f).

Any such test needs a bound H, because the mean may depend on values too rare to be seen. With the mean at -delta, H is

    (the largest value - the mean) + 10 delta

that is, 11 delta further above 0 than the largest value. The probability of a false alarm is at most f if values
beyond H do not contribute to the expectation. With long tails the largest value is far from the mean, and so is H:
among 10^5 samples of 600 log-normal values, log Y ~ N(0, 1) or N(0, 4), no mean was called negative at f = 9e-7. The
test needs many values: for that f at least 234, even if all are equal.
"""

import math

import numpy as np
import scipy
from jaxtyping import Float

_DEPTHS = 10.0
_SHARES = 2.0 ** -np.arange(7)  # lambda H; the best one falls with the number of values
_LEAST, _MOST = 1e-9, 1e6  # depths in units of the spread that stand for 0 (where the product may be 0) and infinity
_RATIO, _LAMBDAS = 2 ** (1 / 8), 641  # from 2^-40 to 2^40


def depth_beyond_doubt(values: Float[np.ndarray, " n"], false_alarm: float) -> float:
    """Returns how far below 0 the mean of such values must be to show that the mean of their expectations is negative.

    Only the values' deviations from their mean enter. The result is infinite if there are too few values.

    Args:
        values: Independent values, nats.
        false_alarm: Probability f of such a mean although the mean of the expectations is not negative.
    """
    deviations = values - values.mean()
    spread = deviations.max()
    enough = _RATIO * math.log(_LAMBDAS / false_alarm)

    def excess(depth: float) -> float:
        """Returns the log of the largest product minus its threshold; it rises with the depth."""
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
