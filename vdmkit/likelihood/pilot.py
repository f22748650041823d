# SPDX-License-Identifier: Apache-2.0
"""Plans of a bound: how its draws are allocated along gamma, for one model or for the difference of two.

A pilot makes a few draws to measure where the loss varies and how much the control variates explain. Its draws do not
enter the estimate, which is therefore unbiased.

A draw for u in cell c has the value M + (rate_c / p_c) (R - m_c), where R = L - b C is the loss minus what the control
variates explain (see `vdmkit.likelihood.allocation`). Two models share u, eps and p, and each has its own rate, b and
m, so that the mean is still its own bound. The difference of their draws is

    M - M' + (rate_c R - rate'_c R') / p_c + const_c

and has the least variance for p_c ~ sd(rate_c R - rate'_c R'), Neyman allocation for the difference. The best
coefficients do not change: least squares is linear, so b - b' of two pilots with the same draws are those of the
difference. A cell is the same part of either model's axis; their gammas are equal if the ends of the schedules are.
"""

import functools
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from vdmkit.data.sources import Pixels
from vdmkit.errors import RecipeError
from vdmkit.likelihood.allocation import (
    AbstractLoss,
    Allocation,
    Cells,
    allocate,
    neyman,
    variance_of_curves,
    variance_of_draw,
)
from vdmkit.likelihood.control_variates import Context, Controls, outputs_of
from vdmkit.likelihood.estimator import rows_of
from vdmkit.likelihood.intervals import quantile_of
from vdmkit.losses.bound import reconstruction_loss
from vdmkit.model import DiffusionModel
from vdmkit.networks.network import Condition, Conditions
from vdmkit.process import Image
from vdmkit.randomness import fold_purpose
from vdmkit.schedules import Scalar

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
    chosen, conditions = jnp.asarray(images[rows]), rows_of(condition, rows)
    gamma = _nodes(cells)
    keys = jax.random.split(key, (len(gamma), 2, _IMAGES))
    fits, curves, outputs = [], [], _outputs(model, controls.context, chosen, conditions, key)
    for i, g in enumerate(gamma):
        at_g = functools.partial(_draws, model, controls, loss, jnp.asarray(g, float))
        pair = [_in_parts(at_g, chosen, conditions, outputs[j], keys[i, j]) for j in (0, 1)]
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
    """Returns slices of images that are processed together, so that a pilot needs no more memory than the estimates."""
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
        conditioned = model.given(condition)
        key_eps, key_0, key_controls, key_loss = jax.random.split(key, 4)
        x = model.observation.encode(image)
        eps_0, eps = (jax.random.normal(k, x.shape, x.dtype) for k in (key_0, key_eps))
        of_draw = loss(conditioned, x, gamma, eps, key=key_loss)
        controlled = controls(conditioned, x, gamma, eps, output, key=key_controls)
        return of_draw, controlled, reconstruction_loss(conditioned, image, eps_0)

    return jax.vmap(one)(images, condition, outputs, keys)


def _nodes(cells: Cells) -> Float[np.ndarray, " g"]:
    """Returns at most 24 gammas, evenly spaced among the cells; for steps they are the gammas at which steps start."""
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
    # Excluded, because a control variate that is nearly always 0 would get a huge coefficient from a few small draws.
    scale = np.where(scale > _LEAST * size, scale, np.inf)
    coefficients = np.linalg.lstsq(controls / scale, loss, rcond=1e-6)[0] / scale
    left = loss - controls @ coefficients
    sd = np.sqrt((left**2).sum() / 2 / (len(loss) - controls.shape[1]))
    return coefficients, float(sd), float((reconstruction**2).mean() / 2)


_MOST = 2**20  # draws per estimate
_MARGIN = 1.3  # the variance has an error of about 10% in the pilot, and as much in a pass over many images


class Explained(eqx.Module):
    """The part of the loss explained by control variates, with coefficients that depend on gamma."""

    controls: Controls
    gamma: Float[Array, " g"]
    coefficients: Float[Array, "g controls"]

    def __call__(
        self,
        model: DiffusionModel,
        x: Image,
        gamma: Scalar,
        eps: Image,
        output: Array | None,
        *,
        key: PRNGKeyArray,
    ) -> Scalar:
        """Returns the explained part at one draw, with mean zero over eps and `key`."""
        coefficients = jax.vmap(lambda column: jnp.interp(gamma, self.gamma, column), in_axes=1)(self.coefficients)
        return coefficients @ self.controls(model, x, gamma, eps, output, key=key)


class BoundPlan(eqx.Module):
    """The loss, and the results of the pilot: allocation, explained part, draws per replicate.

    `variance` (nats^2) is the predicted variance of one estimate of one image; NaN without a pilot.
    """

    loss: AbstractLoss
    allocation: Allocation
    explained: Explained | None
    draws: Int[np.ndarray, ""]
    variance: Float[np.ndarray, ""]
    evaluations: int = eqx.field(static=True)

    @property
    def context(self) -> Context | None:
        """Returns the context of the control variates, which costs one evaluation in each replicate."""
        return None if self.explained is None else self.explained.controls.context


class Piloted(eqx.Module):
    """A model's cells, loss and control variates, with the results of its pilot."""

    cells: Cells
    loss: AbstractLoss
    controls: Controls
    pilot: Pilot

    def at_cells(self, values: Float[np.ndarray, " g"]) -> Float[np.ndarray, " c"]:
        """Interpolates values at the pilot's gammas to the cells."""
        return np.interp(self.cells.low + self.cells.width / 2, self.pilot.gamma, values)

    @property
    def rates(self) -> Float[np.ndarray, " g"]:
        """Returns the rates of the cells, interpolated to the pilot's gammas."""
        return np.interp(self.pilot.gamma, self.cells.low + self.cells.width / 2, self.cells.rate)


def sd_of_difference(first: Piloted, second: Piloted) -> Float[np.ndarray, " g"]:
    """Returns the standard deviation of R - (rate' / rate) R' at the first pilot's gammas; both pilots share a key."""
    mine, others = (curves[0] - curves[1] for curves in (first.pilot.curves, second.pilot.curves))
    left = mine - (second.rates / first.rates)[:, None] * others
    return np.sqrt((left**2).sum(1) / 2 / (left.shape[1] - first.pilot.coefficients.shape[1]))


def even_plans(parts: Sequence[tuple[Cells, AbstractLoss]], strata: int) -> list[BoundPlan]:
    """Returns plans without a pilot for models that share their draws, from their cells and losses."""
    cells = parts[0][0]
    nothing, ends = np.zeros_like(cells.rate), neyman(cells, np.zeros_like(cells.rate))
    of_draws = np.asarray(strata), np.asarray(np.nan)
    return [BoundPlan(loss, allocate(cells, nothing, ends), None, *of_draws, 0) for cells, loss in parts]


def fitted_plans(
    found: Sequence[Piloted], sd: Float[np.ndarray, " g"], strata: int, precision: float, count: int
) -> list[BoundPlan]:
    """Returns plans fitted to pilots, for models that share their draws.

    Args:
        found: Pilot of each model.
        sd: Standard deviation, at the first pilot's gammas, of the quantity whose variance is minimised, relative to
            the first model's rates.
        strata: Draws per replicate if no precision is requested.
        precision: Requested half-width of each model's mean over the images in nats, or 0.
        count: Number of images.

    Raises:
        RecipeError: the precision needs too many draws.
    """
    ends = neyman(found[0].cells, found[0].at_cells(sd))
    allocations = [allocate(one.cells, one.at_cells(one.pilot.mean), ends) for one in found]

    def variance(number: int, strata: int) -> float:
        one, allocation = found[number], allocations[number]
        of_draw = variance_of_draw(one.cells, one.at_cells(one.pilot.sd), ends) + one.pilot.reconstruction_variance
        return of_draw / strata + variance_of_curves(allocation, one.pilot.gamma, one.pilot.curves, strata)

    if precision:
        wanted = 2 * count * (precision / quantile_of(count)) ** 2  # two replicates of each image
        strata = _fewest(lambda strata: all(_MARGIN * variance(i, strata) <= wanted for i in range(len(found))))
    return [
        BoundPlan(
            one.loss,
            allocation,
            Explained(one.controls, *(jnp.asarray(a, float) for a in (one.pilot.gamma, one.pilot.coefficients))),
            np.asarray(strata),
            np.asarray(variance(number, strata)),
            one.pilot.evaluations,
        )
        for number, (one, allocation) in enumerate(zip(found, allocations, strict=True))
    ]


def _fewest(enough: Callable[[int], bool]) -> int:
    """Returns the smallest number that is enough, by bisection. Raises RecipeError if it exceeds the maximum."""
    high = 1
    while not enough(high):
        high *= 2
        if high > _MOST:
            raise RecipeError(f"that precision would take more than {2 * _MOST:,} evaluations an image. Ask for less.")
    low = high // 2  # not enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
