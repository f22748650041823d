# SPDX-License-Identifier: Apache-2.0
"""Checks of derivatives against finite differences, which detect a stopped or replaced gradient."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vdmkit.testing._compile import compiled_fast
from vdmkit.testing._expect import expect
from vdmkit.typing import Scalar

_STEPS = np.array([1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
_TOLERANCE = 1e-4  # relative to the derivative; the best step is off by 1e-6 in float64, and by more at a kink of ReLU
_ROUNDING = 1e-6  # relative to outputs, over the step: the error of a difference quotient in float32


class Quotients(eqx.Module):
    """Values <w, f(point +- h v)> for every step length h, along directions v and w, and the gradient."""

    values: Float[Array, "2 steps"]
    norm: Scalar  # norm of the gradient
    found: Scalar  # the gradient along v


def check_derivative(function: Callable[[Array], Array], at: Float[np.ndarray, "*n"], *, what: str) -> None:
    """Checks the gradient of `function` by JAX against its difference quotient along a random direction.

    Args:
        function: The function; a pytree, such as an Equinox module, is compiled once.
        at: The point.
        what: Name of the function in the message, such as "eps_hat".

    Raises:
        ConformanceError: the gradient and the quotient differ.
    """
    check_quotients(compiled_fast(quotients)(function, at), what=what)


def quotients(function: Callable[[Array], Array], at: Float[Any, "*n"]) -> Quotients:
    """Computes quotients along directions that are the same for all points of a shape.

    The gradient is by reverse mode, which is the transpose of forward mode, or the only one that is defined.
    """
    rng, out = np.random.default_rng(0), eqx.filter_eval_shape(function, at)
    v, w = (jnp.asarray(rng.standard_normal(shape), at.dtype) for shape in (at.shape, out.shape))
    gradient = jax.grad(lambda at: (w * function(at)).sum())(at)
    sides = jnp.asarray([1.0, -1.0], at.dtype)[:, None] * jnp.asarray(_STEPS, at.dtype)
    moved = at + sides.reshape(-1, *[1] * at.ndim) * v
    values = jax.vmap(lambda point: (w * function(point)).sum())(moved)
    return Quotients(values.reshape(2, -1), jnp.sqrt((gradient**2).sum()), (gradient * v).sum())


def check_quotients(given: Quotients, *, what: str) -> None:
    """Checks quotients by the best of the step lengths, to allow for kinks and for fast variation.

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
        f"the derivative of {what} by JAX is {float(found):.6g} along a direction where the difference quotient is "
        f"{wanted[best]:.6g}: a gradient is stopped or replaced",
    )
