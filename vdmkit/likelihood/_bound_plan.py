# SPDX-License-Identifier: Apache-2.0
r"""Plans of a bound: where its draws fall along gamma, for one model, or for the difference of two.

A draw for u in cell c has the value M + (rate_c / p_c) (R - m_c), with the loss R = L - b C that the control variates
leave (see `_allocation`). Two models share u, eps and p, and each has its own rate, b and m, so that each keeps its
bound as the mean. The difference of their draws is

    M - M' + (rate_c R - rate'_c R') / p_c + const_c

and has the least variance for p_c ~ sd(rate_c R - rate'_c R'), Neyman's rule for the difference. The best coefficients
need no change: least squares is linear, so b - b' of two pilots with the same draws are those of the difference.
A cell is the same part of either model's axis; their gammas are equal if the ends of the schedules are.
"""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vdmkit.errors import RecipeError
from vdmkit.likelihood._allocation import Allocation, Cells, allocate, neyman, variance_of_curves, variance_of_draw
from vdmkit.likelihood._context import Context
from vdmkit.likelihood._controls import Controls
from vdmkit.likelihood._interval import quantile_of
from vdmkit.likelihood._loss import AbstractLoss
from vdmkit.likelihood._pilot import Pilot
from vdmkit.model import DiffusionModel
from vdmkit.typing import Image, Scalar

_MOST = 2**20  # draws per estimate
_MARGIN = 1.3  # the errors of the variance are about 10% in the pilot, and as much in a pass of many images


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
        """Returns the context of the control variates, which costs an evaluation in each replicate."""
        return None if self.explained is None else self.explained.controls.context


class Piloted(eqx.Module):
    """A model's cells, loss and control variates, with what its pilot found."""

    cells: Cells
    loss: AbstractLoss
    controls: Controls
    pilot: Pilot

    def at_cells(self, values: Float[np.ndarray, " g"]) -> Float[np.ndarray, " c"]:
        """Returns values at the pilot's gammas, interpolated to the cells."""
        return np.interp(self.cells.low + self.cells.width / 2, self.pilot.gamma, values)

    @property
    def rates(self) -> Float[np.ndarray, " g"]:
        """Returns the rates of the cells at the pilot's gammas."""
        return np.interp(self.pilot.gamma, self.cells.low + self.cells.width / 2, self.cells.rate)


def sd_of_difference(first: Piloted, second: Piloted) -> Float[np.ndarray, " g"]:
    """Returns the standard deviation of R - (rate' / rate) R' at the first pilot's gammas, of pilots with one key."""
    mine, others = (curves[0] - curves[1] for curves in (first.pilot.curves, second.pilot.curves))
    left = mine - (second.rates / first.rates)[:, None] * others
    return np.sqrt((left**2).sum(1) / 2 / (left.shape[1] - first.pilot.coefficients.shape[1]))


def even_plans(parts: Sequence[tuple[Cells, AbstractLoss]], strata: int) -> list[BoundPlan]:
    """Returns plans of models that share their draws, from their cells and losses, without a pilot."""
    cells = parts[0][0]
    nothing, ends = np.zeros_like(cells.rate), neyman(cells, np.zeros_like(cells.rate))
    of_draws = np.asarray(strata), np.asarray(np.nan)
    return [BoundPlan(loss, allocate(cells, nothing, ends), None, *of_draws, 0) for cells, loss in parts]


def fitted_plans(
    found: Sequence[Piloted], sd: Float[np.ndarray, " g"], strata: int, precision: float, count: int
) -> list[BoundPlan]:
    """Returns plans of models that share their draws.

    Args:
        found: What is known of each model.
        sd: Standard deviation, at the first pilot's gammas, of that whose variance is to be least; relative to the
            first model's rates.
        strata: Draws per replicate, without a precision.
        precision: Wanted half-width of each model's mean over the images in nats, or 0.
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
