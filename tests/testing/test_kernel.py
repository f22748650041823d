# SPDX-License-Identifier: Apache-2.0
"""Conformance of reverse kernels: registered ones pass, and wrong ones are refused with a reason."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from vdmkit.conformance import check_kernel
from vdmkit.errors import ConformanceError
from vdmkit.predictions import Estimate, level_values
from vdmkit.registry import registry
from vdmkit.reverse import AbstractKernel, AbstractStep, GaussianKernel


def knowledge(levels: int = 5) -> tuple[Estimate, np.ndarray, np.ndarray]:
    """Returns the estimate of a denoiser for an image of 8 x 8 values, the image, and the noise in it."""
    rng = np.random.default_rng(0)
    x = np.asarray(level_values(levels))[rng.integers(0, levels, (8, 8, 1))]
    eps, log_probs = rng.standard_normal((8, 8, 1)), rng.standard_normal((8, 8, 1, levels))
    log_probs -= np.logaddexp.reduce(log_probs, axis=-1, keepdims=True)
    share = rng.uniform(-0.2, 1.2, x.shape)  # networks may leave [0, 1]
    return Estimate(*map(jnp.asarray, (0.8 * x, eps + 0.1, log_probs, share))), x, eps


def check_steps(kernel: AbstractKernel) -> None:
    """Checks a kernel on short and long steps, at low and high noise."""
    for gamma_t, gamma_s in ((4.0, 2.0), (0.0, -0.1), (-4.0, -9.0)):
        check_kernel(kernel, *knowledge(), np.asarray(gamma_t), np.asarray(gamma_s))


@pytest.mark.costly
@pytest.mark.parametrize("name", sorted(registry("kernel").components))
def test_kernels(build, name):
    """Every registered kernel passes its conformance checks."""
    params = {"optimal_variance": {"gammas": (-5.0, 5.0), "errors": (0.1, 0.5)}}
    check_steps(build("kernel", name, **params.get(name, {})))


class _Step(AbstractStep):
    """A density that integrates to exp(`extra`), with samples whose noise is scaled by `wider`."""

    step: AbstractStep
    extra: float | Array = 0.0
    wider: float = 1.0

    def sample(self, noise):
        return self.step.sample(self.wider * noise)

    def log_prob(self, y_s):
        return self.step.log_prob(y_s) + self.extra

    def cdf(self, y_s):
        return self.step.cdf(y_s)


class _Heavy(GaussianKernel):
    """Integrates to 1.0009, which a thousand steps turn into 2.5, with a consistent KL and ratio."""

    def __call__(self, *args):
        return _Step(super().__call__(*args), extra=9e-4)

    def kl(self, *args, key):
        return super().kl(*args, key=key) - 9e-4

    def log_ratio(self, *args):
        return super().log_ratio(*args) + 9e-4


class _WiderSamples(GaussianKernel):
    def __call__(self, *args):
        return _Step(super().__call__(*args), wider=1.2)


class _NoisyHalfKl(GaussianKernel):
    """Half of the KL, with so much noise that the mean over draws does not show it."""

    def kl(self, estimate, x, *args, key):
        return super().kl(estimate, x, *args, key=key) / 2 + 9 * jax.random.normal(key, x.shape, x.dtype)


class _RatioLies(GaussianKernel):
    """Importance weights that are too large at high noise."""

    def log_ratio(self, estimate, x, eps, n, gamma_t, gamma_s):
        return super().log_ratio(estimate, x, eps, n, gamma_t, gamma_s) + jnp.where(gamma_t > 0.2, 0.1, 0.0)


class _UpperRows(GaussianKernel):
    """Counts the KL of the first six rows only, where the density is integrated."""

    def kl(self, estimate, x, *args, key):
        kl = super().kl(estimate, x, *args, key=key)
        return jnp.where(jnp.arange(len(x))[:, None, None] < 6, kl, 0.0)


class _LowerRowsHeavy(GaussianKernel):
    """Integrates to 2 for each value in the last two rows, with a consistent KL and ratio."""

    def __call__(self, *args):
        return _Step(super().__call__(*args), extra=self.extra(args[1]))

    def extra(self, x):
        return jnp.where((jnp.arange(len(x)) >= 6)[:, None, None], jnp.log(2.0), 0.0)

    def kl(self, estimate, x, *args, key):
        return super().kl(estimate, x, *args, key=key) - self.extra(x)

    def log_ratio(self, estimate, x, *args):
        return super().log_ratio(estimate, x, *args) + self.extra(x)


class _LowInFloat32(GaussianKernel):
    def kl(self, estimate, x, *args, key):
        return super().kl(estimate, x, *args, key=key) * (0.96 if x.dtype == jnp.float32 else 1.0)


WRONG = {
    _UpperRows: r"its KL\(q \|\| p\) is .* nats, and by quadrature of its density",
    _LowerRowsHeavy: r"p\(z_s given z_t\) of a value changes by 0.693 with its place in the image",
    _LowInFloat32: r"its KL\(q \|\| p\) is .* nats, and by quadrature of its density",
    _Heavy: r"p\(z_s given z_t\) integrates to 1.0009",
    _WiderSamples: "samples are not drawn from its distribution function",
    _NoisyHalfKl: r"the draws of its KL\(q \|\| p\) spread too far to be checked",
    _RatioLies: "its log p / q is 0.1 nats off that of its density",
}


@pytest.mark.costly
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_kernels(wrong):
    """Kernels that would make a T-step or importance-weighted bound too low are refused."""
    with pytest.raises(ConformanceError, match=WRONG[wrong]):
        check_steps(wrong())
