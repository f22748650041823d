# SPDX-License-Identifier: Apache-2.0
"""exp and Phi of + - * / alone."""

import numpy as np
from scipy.special import ndtr
from vdmkit_codec.distributions import exact_exp, exact_normal_cdf


def test_exp() -> None:
    """exact_exp agrees with exp up to 2^10 roundings of 1e-16."""
    x = np.linspace(-100, 100, 20_001)
    np.testing.assert_allclose(exact_exp(x), np.exp(x), rtol=5e-13, atol=0)


def test_phi() -> None:
    """exact_normal_cdf agrees with scipy's up to the rounding of its series."""
    x = np.linspace(-8, 8, 20_001)
    np.testing.assert_allclose(exact_normal_cdf(x), ndtr(x), rtol=0, atol=2e-13)


def test_same_bits_in_another_arithmetic() -> None:
    """numpy computes the same bits as Python's floats do, one operation at a time."""

    def exp(x: float) -> float:
        size, total = abs(x) / 1024, 1.0
        for n in range(14, 0, -1):
            total = 1 + size / n * total
        for _ in range(10):
            total *= total
        return 1 / total if x < 0 else total

    def phi(x: float) -> float:
        term = total = x
        for n in range(1, 200):
            term = term * x * x / (2 * n + 1)
            total += term
        return 0.5 + total * exp(-x * x / 2) * 0.3989422804014327

    x = np.random.default_rng(0).uniform(-8, 8, 997)
    assert exact_exp(x).tolist() == [exp(value) for value in x.tolist()]
    assert exact_normal_cdf(x).tolist() == [phi(value) for value in x.tolist()]


def test_ends() -> None:
    """exp(0) and Phi(0) are exact, and values beyond the window are finite."""
    assert exact_exp(np.zeros(1)) == 1
    assert exact_normal_cdf(np.zeros(1)) == 0.5
    assert np.isfinite(exact_exp(np.array([-100.0, 100.0]))).all()
