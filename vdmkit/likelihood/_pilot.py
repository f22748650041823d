# SPDX-License-Identifier: Apache-2.0
"""A pilot: a few draws that measure where the loss varies, and how much the control variates explain.

Its draws do not enter the estimate, which is therefore unbiased.
"""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray

from vdmkit.data import Pixels
from vdmkit.likelihood._allocation import Cells
from vdmkit.likelihood._condition import rows_of
from vdmkit.likelihood._context import Context, outputs_of
from vdmkit.likelihood._controls import Controls
from vdmkit.likelihood._loss import AbstractLoss
from vdmkit.model import DiffusionModel
from vdmkit.networks import Condition, Conditions
from vdmkit.objective import reconstruction_loss
from vdmkit.randomness import fold_purpose

_IMAGES, _NODES, _AT_ONCE = 48, 24, 16
_LEAST = 0.1  # size of a control variate relative to that of the loss
MOST_EVALUATIONS = 2 * _IMAGES * _NODES


class Pilot(eqx.Module):
    """Mean loss, coefficients of the control variates and remaining standard deviation at some gammas.

    `curves` are two independent draws of the loss of n images at each gamma, minus what the control variates explain.
    """

    gamma: Float[np.ndarray, " g"]
    mean: Float[np.ndarray, " g"]
    coefficients: Float[np.ndarray, "g controls"]
    sd: Float[np.ndarray, " g"]
    curves: Float[np.ndarray, "2 g n"]
    reconstruction_variance: float
    evaluations: int = eqx.field(static=True)


def run_pilot(
    model: DiffusionModel,
    images: Pixels,
    condition: Conditions,
    controls: Controls,
    cells: Cells,
    loss: AbstractLoss,
    *,
    key: PRNGKeyArray,
) -> Pilot:
    """Makes two draws of the loss for each of some images, in some of the cells."""
    order = np.random.default_rng(0).permutation(len(images))
    rows = np.resize(order, _IMAGES)
    chosen, told = jnp.asarray(images[rows]), rows_of(condition, rows)
    gamma = _nodes(cells)
    keys = jax.random.split(key, (len(gamma), 2, _IMAGES))
    fits, curves, outputs = [], [], _outputs(model, controls.context, chosen, told, key)
    for i, g in enumerate(gamma):
        at_g = functools.partial(_draws, model, controls, loss, jnp.asarray(g, float))
        pair = [_in_parts(at_g, chosen, told, outputs[j], keys[i, j]) for j in (0, 1)]
        mean = (pair[0][0] + pair[1][0]).mean() / 2
        fits.append((mean, *_fit(*(first - second for first, second in zip(*pair, strict=True)))))
        curves.append([of_draw - controlled @ fits[-1][1] for of_draw, controlled, _ in pair])
    mean, coefficients, sd, variance = (np.asarray(column) for column in zip(*fits, strict=True))
    evaluations = 2 * _IMAGES * (len(gamma) + (controls.context is not None))
    return Pilot(gamma, mean, coefficients, sd, np.stack(curves, axis=1), float(variance.mean()), evaluations)


def _outputs(
    model: DiffusionModel, context: Context | None, images: Array, condition: Conditions, key: PRNGKeyArray
) -> list[np.ndarray | None]:
    """Returns the outputs that the draws of each image share, for both draws of the pilot; None without a context."""
    if context is None:
        return [None, None]
    keys = jax.random.split(fold_purpose(key, "context"), (2, len(images)))
    parts = _parts_of(len(images))
    return [
        np.concatenate([np.asarray(outputs_of(model, context, images[p], rows_of(condition, p), of[p])) for p in parts])
        for of in keys
    ]


def _parts_of(count: int) -> list[slice]:
    """Returns the parts of so many images that are made at once, or a pilot would need more memory than estimates."""
    return [slice(start, start + _AT_ONCE) for start in range(0, count, _AT_ONCE)]


def _in_parts(
    draws: Callable[[Array, Conditions, Array | None, Key[Array, " m"]], tuple[Array, ...]],
    images: Array,
    condition: Conditions,
    outputs: np.ndarray | None,
    keys: Key[Array, " b"],
) -> tuple[np.ndarray, ...]:
    found = [
        draws(images[p], rows_of(condition, p), None if outputs is None else jnp.asarray(outputs[p]), keys[p])
        for p in _parts_of(len(images))
    ]
    return jax.tree.map(lambda *values: np.concatenate(values).astype(np.float64), *found)


@eqx.filter_jit
def _draws(
    model: DiffusionModel,
    controls: Controls,
    loss: AbstractLoss,
    gamma: Array,
    images: Array,
    condition: Conditions,
    outputs: Array | None,
    keys: Key[Array, " b"],
) -> tuple[Array, Array, Array]:
    def one(image: Array, condition: Condition, output: Array | None, key: PRNGKeyArray) -> tuple[Array, Array, Array]:
        told = model.given(condition)
        key_eps, key_0, key_controls, key_loss = jax.random.split(key, 4)
        x = model.observation.encode(image)
        eps_0, eps = (jax.random.normal(k, x.shape, x.dtype) for k in (key_0, key_eps))
        of_draw = loss(told, x, gamma, eps, key=key_loss)
        controlled = controls(told, x, gamma, eps, output, key=key_controls)
        return of_draw, controlled, reconstruction_loss(told, image, eps_0)

    return jax.vmap(one)(images, condition, outputs, keys)


def _nodes(cells: Cells) -> Float[np.ndarray, " g"]:
    """Returns at most 24 gammas, evenly among the cells; for steps they are the gammas where steps start."""
    count = min(_NODES, len(cells.low))
    share = (np.arange(count) + 0.5) / count
    if cells.width.any():
        low, high = cells.low[0], cells.low[-1] + cells.width[-1]
        return low + (high - low) * share
    return cells.low[(share * len(cells.low)).astype(int)]


def _fit(
    loss: Float[np.ndarray, " n"], controls: Float[np.ndarray, "n controls"], reconstruction: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " controls"], float, float]:
    """Returns coefficients, remaining sd and the reconstruction's variance, from differences of two draws per image."""
    scale, size = (np.sqrt((values**2).mean(0)) for values in (controls, loss))
    # A control variate that is nearly always 0 would get a huge coefficient from its rare small draws
    scale = np.where(scale > _LEAST * size, scale, np.inf)
    coefficients = np.linalg.lstsq(controls / scale, loss, rcond=1e-6)[0] / scale
    left = loss - controls @ coefficients
    sd = np.sqrt((left**2).sum() / 2 / (len(loss) - controls.shape[1]))
    return coefficients, float(sd), float((reconstruction**2).mean() / 2)
