# SPDX-License-Identifier: Apache-2.0
"""exp and the normal distribution function by + - * / alone, whose results IEEE 754 defines exactly.

The versions in libm and numpy differ between processors, and one different count in a table corrupts a whole file.
"""

import numpy as np
from jaxtyping import Float

_HALVINGS = 10
_TERMS = 14  # terms of exp on [-0.1, 0]; the remainder is below 1e-24
_RISING = 32  # terms that may rise, for |x| <= 8
_SERIES = 200  # terms of the normal distribution function, up to 8 standard deviations


def exact_exp(x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Returns exp(x) for |x| up to 100, to a relative accuracy of about 1e-13, the same bits on every machine."""
    size = np.abs(x) / 2**_HALVINGS
    total = np.ones_like(size)
    for n in range(_TERMS, 0, -1):
        total = 1 + size / n * total
    for _ in range(_HALVINGS):
        total = total * total
    return np.where(x < 0, 1 / total, total)


def exact_normal_cdf(x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Returns Phi(x) for |x| up to 8, to about 1e-13, the same bits on every machine.

    Phi(x) = 1/2 + phi(x) sum_n x^(2n+1) / (1 3 5 ... (2n+1)) (Marsaglia 2004, Journal of Statistical Software 11, 4).
    """
    term = total = np.asarray(x, np.float64)
    for n in range(1, _SERIES):
        term = term * x * x / (2 * n + 1)
        before, total = total, total + term
        if n > _RISING and np.array_equal(before, total):
            break  # later terms are smaller
    return 0.5 + total * exact_exp(-x * x / 2) * 0.3989422804014327
