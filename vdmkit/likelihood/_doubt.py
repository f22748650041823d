# SPDX-License-Identifier: Apache-2.0
r"""How far below zero a mean must lie before it is beyond doubt that its expectation does, however skewed its terms.

Let Y_1, ..., Y_n <= H be independent, with expectations whose mean is at least 0. Then for every lambda in [0, 1 / H]

    E prod_i (1 - lambda Y_i) = prod_i (1 - lambda E Y_i) <= (1 - lambda mean_i E Y_i)^n <= 1

by the inequality of arithmetic and geometric means, so that the product exceeds 1 / f with probability f at most
(Markov's inequality). This is the test by betting of Waudby-Smith and Ramdas 2024, J. R. Stat. Soc. B 86, 1. Neither a
variance nor a limit theorem enters. Lambda is chosen after the fact, which has its price. The log of the product, g, is
concave in lambda and 0 at 0: at the next smaller of M powers of r it is still g / r or more, and with probability f no
product at any of these exceeds M / f. So g must reach r log(M / f).

No test can do without a bound H: the mean may hang on values too rare to be seen. With the mean at -delta, H is here

    (the largest value - the mean) + 10 delta

that is, 11 delta further above 0 than the largest value. The false alarm is f as far as values beyond H add nothing to
their expectation. Where tails are long, the largest value is far from the mean, and so is H: of 10^5 samples of 600
log-normal values, log Y ~ N(0, 1) or N(0, 4), none was called negative at f = 9e-7. Few values are too few: were they
all equal, 234 of them would be needed for that f.
"""

import math

import numpy as np
from jaxtyping import Float
from scipy.optimize import root_scalar

_DEPTHS = 10.0
_SHARES = 2.0 ** -np.arange(7)  # lambda H: the best one is the smaller, the more values there are
_LEAST, _MOST = 1e-9, 1e6  # depths in units of the spread: as good as 0, where the product may be 0, and as infinite
_RATIO, _LAMBDAS = 2 ** (1 / 8), 641  # from 2^-40 to 2^40


def depth_beyond_doubt(values: Float[np.ndarray, " n"], false_alarm: float) -> float:
    """Returns how far below 0 the mean of such values must lie to show that their expectations' mean is negative.

    Only the values' deviations from their mean matter. Infinite if no depth would do: there are too few values.

    Args:
        values: independent, nats.
        false_alarm: f, the probability that their mean lies as deep although their expectations' mean is not negative.
    """
    deviations = values - values.mean()
    spread = deviations.max()
    enough = _RATIO * math.log(_LAMBDAS / false_alarm)

    def excess(depth: float) -> float:
        """Returns what the log of the largest product has above what is enough; it rises with the depth."""
        outcomes = (depth - deviations) / (spread + _DEPTHS * depth)
        return float(np.log1p(_SHARES[:, None] * outcomes).sum(1).max()) - enough

    if not spread > 0:
        return 0.0 if excess(1.0) > 0 else math.inf
    if not excess(_MOST * spread) > 0:
        return math.inf
    deep = spread
    while excess(deep) < 0:
        deep *= 2
    return root_scalar(excess, bracket=(_LEAST * spread, deep), rtol=1e-9).root
