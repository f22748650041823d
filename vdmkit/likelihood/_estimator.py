# SPDX-License-Identifier: Apache-2.0
"""The interface of a likelihood estimator: for every image, a random number whose mean bounds -log P(image)."""

import abc
from collections.abc import Callable
from typing import Generic, TypeVar

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Real

from vdmkit.model import DiffusionModel
from vdmkit.registry import define_kind

Plan = TypeVar("Plan")


class Estimates(eqx.Module):
    """One unbiased estimate for each image: terms in nats, whose sum bounds -log P; what it cost; whether it failed.

    `evaluations` counts calls of the network on one latent. `failed` marks a solver that did not reach its end: then
    the terms are no likelihood.
    """

    terms: dict[str, Float[Array | np.ndarray, "*batch"]]
    evaluations: Int[Array | np.ndarray, "*batch"]
    failed: Bool[Array | np.ndarray, "*batch"]

    @property
    def nats(self) -> Float[Array | np.ndarray, "*batch"]:
        """The sum of the terms: the bound on -log P, nats per image."""
        return sum(self.terms.values())  # type: ignore[return-value]


class AbstractEstimator(eqx.Module, Generic[Plan]):
    """An implementer supplies the members below. Calls with another `replicate` are independent of each other.

    All draws belong to the image's index in the test set: estimates do not depend on how it is cut into batches.

    A constructor may take as positional parameters `trained_steps`, T of the training objective, 0 if continuous, and
    its `trained_kernel` and `trained_grid`, not yet built. Without a recipe there are none: give them defaults.
    """

    @abc.abstractmethod
    def describe(self, levels: int) -> str:
        """Returns what it measures of images of so many levels, with its steps or tolerances; 0 is continuous data."""

    def check_levels(self, levels: int) -> None:
        """Raises RecipeError if it cannot measure images of so many levels; 0 is continuous data."""

    @abc.abstractmethod
    def plan(
        self, model: DiffusionModel, images: Real[np.ndarray, "n h w c"], *, precision: float, key: PRNGKeyArray
    ) -> Plan:
        """What is settled before the first estimate, such as the allocation of draws found in a pilot.

        Args:
            images: the whole test set.
            precision: the wanted half-width of the 95% Monte Carlo interval of the mean, nats; 0: the recipe's draws.

        Raises:
            RecipeError: the estimator cannot plan for a precision.
        """

    @abc.abstractmethod
    def rounds(self, plan: Plan) -> int:
        """How often a call will say `on_round`, for a progress bar."""

    def evaluations_of(self, plan: Plan) -> int:
        """How often the network was evaluated to make the plan; 0, unless an estimator says otherwise."""
        return 0

    def discretisation_error(
        self,
        model: DiffusionModel,
        images: Real[Array, "b h w c"],
        index: Int[Array, " b"],
        *,
        key: PRNGKeyArray,
    ) -> tuple[Float[np.ndarray, " b"], int] | None:
        """How far the estimates of a few images are off by the steps of a solver, nats, and the evaluations it took.

        NaN where a solve failed. None without a solver, unless an estimator says otherwise. It enters the interval, and
        a number whose error is large is not trusted.
        """
        return None

    @abc.abstractmethod
    def __call__(
        self,
        model: DiffusionModel,
        images: Real[Array, "b h w c"],
        index: Int[Array, " b"],
        plan: Plan,
        *,
        replicate: int,
        key: PRNGKeyArray,
        on_round: Callable[[], object] = lambda: None,
    ) -> Estimates:
        """Estimates for images of these numbers in the test set. `replicate` is 0 or 1."""


define_kind(
    "estimator",
    "how -log P of an image is estimated",
    AbstractEstimator,
    ("trained_steps", "trained_kernel", "trained_grid"),
)
