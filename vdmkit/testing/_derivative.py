# SPDX-License-Identifier: Apache-2.0
"""Derivatives against finite differences: what sees a gradient that is stopped, or replaced by another."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vdmkit.testing._compile import compiled_fast
from vdmkit.testing._expect import expect

_STEPS = np.array([1e-2, 1e-3, 1e-4, 1e-5])
_TOLERANCE = 1e-2  # of the derivative; a part of a network whose gradient is stopped is worth more
_ROUNDING = 1e-6  # of outputs, over the step: what a difference quotient in float32 does not show


class Quotients(eqx.Module):
    """Of f at a point, along directions v and w: <w, f(point +- h v)> for every h, and its gradient."""

    values: Float[Array, "2 steps"]
    norm: Float[Array, ""]  # of the gradient
    found: Float[Array, ""]  # the gradient along v


def check_derivative(function: Callable[[Array], Array], at: Float[np.ndarray, "*n"], *, what: str) -> None:
    """The gradient of `function` by JAX gives its difference quotient along a random direction.

    Args:
        function: a pytree, such as an Equinox module, is compiled once.
        what: names the function in the message, as in "eps_hat".

    Raises:
        ConformanceError: the gradient is another.
    """
    check_quotients(compiled_fast(quotients)(function, at), what=what)


def quotients(function: Callable[[Array], Array], at: Float[Any, "*n"]) -> Quotients:
    """Along directions that are the same for all points of a shape.

    Reverse mode shows what forward mode does: it is its transpose, or the only one that there is.
    """
    rng, out = np.random.default_rng(0), eqx.filter_eval_shape(function, at)
    v, w = (jnp.asarray(rng.standard_normal(shape), at.dtype) for shape in (at.shape, out.shape))
    gradient = jax.grad(lambda at: (w * function(at)).sum())(at)
    sides = jnp.asarray([1.0, -1.0], at.dtype)[:, None] * jnp.asarray(_STEPS, at.dtype)
    moved = at + sides.reshape(-1, *[1] * at.ndim) * v
    values = jax.vmap(lambda point: (w * function(point)).sum())(moved)
    return Quotients(values.reshape(2, -1), jnp.sqrt((gradient**2).sum()), (gradient * v).sum())


def check_quotients(given: Quotients, *, what: str) -> None:
    """The best of four step lengths counts, so that what computes in float32, or varies fast, is no worse off.

    Raises:
        ConformanceError: the gradient along v is not the difference quotient.
    """
    values, norm, found = (np.asarray(one, np.float64) for one in (given.values, given.norm, given.found))
    wanted = (values[0] - values[1]) / (2 * _STEPS)
    off = np.where(np.isfinite(wanted), abs(found - wanted), np.inf)
    allowed = _TOLERANCE * np.maximum(norm, abs(wanted)) + _ROUNDING * abs(values).max()
    best = int(np.argmin(off / (allowed + 1e-300)))
    expect(
        off[best] <= allowed[best],
        f"the derivative of {what} by JAX is {float(found):.4g} along a direction where the difference quotient is "
        f"{wanted[best]:.4g}: a gradient is stopped or replaced",
    )
