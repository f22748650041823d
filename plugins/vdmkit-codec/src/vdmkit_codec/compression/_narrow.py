# SPDX-License-Identifier: Apache-2.0
"""Checks whether a model keeps float64: some functions, such as a softmax, may compute in float32."""

from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Jaxpr, JaxprEqn

from vdmkit.model import DiffusionModel
from vdmkit.process import Image
from vdmkit.schedules import Scalar
from vdmkit_codec.compression._network import in_precision


def narrows(model: DiffusionModel) -> bool:
    """Returns whether the path from float64 latents to coded probabilities contains a narrower float."""

    def said(model: DiffusionModel, y: Image, gamma: Scalar) -> tuple:
        observed = model.observation.log_probs(y, gamma, lambda: model.estimate(y, gamma))
        return observed, model.denoise(model.path.alpha(gamma) * y, gamma, {})

    with jax.enable_x64(True):
        wide = in_precision(model, "float64")
        traced, *_ = eqx.filter_make_jaxpr(said)(wide, jnp.zeros(model.shape, float), jnp.zeros((), float))
    return any(_is_narrowing(equation) for equation in _equations(traced.jaxpr))


def _equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """Yields the equations, including those of called functions."""
    for equation in jaxpr.eqns:
        yield equation
        for leaf in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(leaf, "jaxpr", leaf)
            if isinstance(inner, Jaxpr):
                yield from _equations(inner)


def _is_narrowing(equation: JaxprEqn) -> bool:
    wide = np.dtype(np.float64)
    given, made = (
        {var.aval.dtype for var in some if isinstance(var.aval, ShapedArray)}
        for some in (equation.invars, equation.outvars)
    )
    return wide in given and any(jnp.issubdtype(kind, jnp.floating) and kind != wide for kind in made)
