# SPDX-License-Identifier: Apache-2.0
"""Chooses the steps of a bound: the given ones, else those of training, else the paper's; and describes them."""

from typing import Annotated

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vdmkit.errors import RecipeError
from vdmkit.kernel import AbstractKernel
from vdmkit.noise import AbstractGrid
from vdmkit.registry import Choice

Kernel = Annotated[Choice | AbstractKernel, "kernel"]
Grid = Annotated[Choice | AbstractGrid, "grid"]
_ROUNDING = 1e-3  # nats per dimension
PAPERS_KERNEL, EVEN_IN_TIME = Choice("kernel", "gaussian"), Choice("grid", "uniform")


def kernel_and_grid(
    steps: int, given: tuple[Kernel | None, Grid | None], trained_steps: int, trained: tuple[Kernel, Grid]
) -> tuple[Kernel, Grid]:
    """Returns kernel and grid of T = `steps`: the given ones, else those of training with this T, else the paper's.

    A kernel that reads variances is that of every T: the network gives those of any step.
    """
    kernel, grid = trained if steps == trained_steps > 0 else (PAPERS_KERNEL, EVEN_IN_TIME)
    if trained_steps and getattr(Choice.of("kernel", trained[0]).component.target, "reads_variances", False):
        kernel = trained[0]
    return given[0] or kernel, given[1] or grid


def describe_steps(steps: int, kernel: Kernel, grid: Grid) -> str:
    """Describes T, the kernel and the grid in words; T = 0 is continuous time, without kernel and grid."""
    if not steps:
        return "continuous time"
    return f"T = {steps} steps, kernel {Choice.of('kernel', kernel)}, grid {Choice.of('grid', grid)}"


def describe_bound(steps: int, kernel: Kernel, grid: Grid) -> str:
    """Describes the variational bound of these steps, in the same words for all reports."""
    return f"variational bound, {describe_steps(steps, kernel, grid)}"


def check_rounding(gamma: Float[np.ndarray, " steps_plus_1"]) -> None:
    """Raises RecipeError if the rounding of eps - eps_hat, times expm1(gamma_t - gamma_s), changes a T-step bound."""
    nats = np.expm1(np.diff(gamma)).sum() / 2 * float(jnp.finfo(jnp.zeros(()).dtype).eps) ** 2  # of each dimension
    if not nats < _ROUNDING:
        raise RecipeError(
            f"T = {len(gamma) - 1} steps from gamma = {gamma[0]:g} to {gamma[-1]:g} are too few for the rounding of "
            f"{jnp.zeros(()).dtype}. Take more steps, or JAX_ENABLE_X64=1."
        )
