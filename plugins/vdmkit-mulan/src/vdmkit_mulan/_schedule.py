# SPDX-License-Identifier: Apache-2.0
r"""A gamma for every pixel, given the latent z (Sahoo et al. 2023, arXiv 2312.13236; code `poly_fixedend`).

    gamma(z, t) = gamma_min + (gamma_max - gamma_min) f(t) / f(1),    f(t) = int_0^t (a s^2 + b s + c)^2 ds

    a, b, c = MLP(z),    c > 1e-3

It rises in t for all coefficients, from the same gamma_min to the same gamma_max at all pixels.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.networks.layers import Dense
from vdmkit.process import Image
from vdmkit.schedules import Scalar

Latent = Float[Array, " m"]
Coefficients = tuple[Image, Image, Image]
LEAST_C = 1e-3
POINTS = 1000
"""Times between which the length of the curve is summed; `at_length` returns one of them."""


class PolynomialSchedule(eqx.Module):
    """gamma(z, t) as a polynomial of fifth degree in t, whose coefficients are functions of z; see above."""

    dense_1: Dense
    dense_2: Dense
    dense_out_a: Dense
    dense_out_b: Dense
    dense_out_c: Dense
    shape: tuple[int, int, int] = eqx.field(static=True)
    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(self, shape: tuple[int, int, int], latent: int, gamma_range: tuple[float, float], key: PRNGKeyArray):
        width, keys = math.prod(shape), jax.random.split(key, 5)
        self.dense_1 = Dense(latent, width, keys[0])
        self.dense_2 = Dense(width, width, keys[1])
        self.dense_out_a = Dense(width, width, keys[2], initializer=jax.nn.initializers.zeros)
        self.dense_out_b = Dense(width, width, keys[3])
        self.dense_out_c = Dense(width, width, keys[4])
        self.shape, (self.gamma_min, self.gamma_max) = shape, gamma_range

    def coefficients(self, z: Latent) -> Coefficients:
        """Returns a, b and c of every pixel."""
        h = jax.nn.silu(self.dense_2(jax.nn.silu(self.dense_1(z))))
        a, b, c = (layer(h).reshape(self.shape) for layer in (self.dense_out_a, self.dense_out_b, self.dense_out_c))
        return a, b, LEAST_C + jax.nn.softplus(c)

    def __call__(self, z: Latent, t: Scalar) -> Image:
        """Returns gamma(z, t) of every pixel."""
        coefficients = self.coefficients(z)
        share = _integral(coefficients, t) / _integral(coefficients, jnp.ones_like(t))
        return self.gamma_min + (self.gamma_max - self.gamma_min) * share

    def derivative(self, z: Latent, t: Scalar) -> Image:
        """Returns d gamma / dt of every pixel, (gamma_max - gamma_min) (a t^2 + b t + c)^2 / f(1)."""
        a, b, c = coefficients = self.coefficients(z)
        rate = (a * t**2 + b * t + c) ** 2 / _integral(coefficients, jnp.ones_like(t))
        return (self.gamma_max - self.gamma_min) * rate

    def at_length(self, z: Latent, u: Scalar) -> tuple[Scalar, Scalar]:
        """Returns the time at which the curve t -> gamma(z, t) has gone the share u of its length, and that length.

        Uniform u give times in which the curve goes at constant speed |d gamma / dt|; the authors call it inverse
        sampling. The time is the nearest of `POINTS`, and the length the sum of trapezoids between them.
        """
        times = jnp.linspace(0, 1, POINTS, dtype=u.dtype)
        speed = jax.vmap(lambda t: jnp.linalg.norm(self.derivative(z, t).ravel()))(times)
        pieces = (speed[1:] + speed[:-1]) / (2 * (POINTS - 1))
        gone = jnp.append(0, jnp.cumsum(pieces))
        return times[jnp.argmin(abs(gone - u * gone[-1]))], gone[-1]


def _integral(coefficients: Coefficients, t: Scalar) -> Image:
    """Returns f(t), the integral of (a s^2 + b s + c)^2 from 0 to t."""
    a, b, c = coefficients
    return t * (c**2 + t * (b * c + t * ((b**2 + 2 * a * c) / 3 + t * (a * b / 2 + t * a**2 / 5))))
