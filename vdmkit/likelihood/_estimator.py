# SPDX-License-Identifier: Apache-2.0
"""The interface of likelihood estimators: for every image, a random number whose mean bounds -log P(image)."""

import abc
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Real

from vdmkit.data import Pixels
from vdmkit.devices import in_flight
from vdmkit.model import DiffusionModel
from vdmkit.networks import Conditions
from vdmkit.registry import define_kind

Plan = TypeVar("Plan")
NOTHING: Conditions = {}


class Estimates(eqx.Module):
    """One unbiased estimate for each image: terms in nats whose sum bounds -log P, its cost, and whether it failed.

    `evaluations` counts calls of the network on one latent. `failed` is true if a solver did not reach its end; the
    terms are then not a likelihood.
    """

    terms: dict[str, Float[Array | np.ndarray, "*batch"]]
    evaluations: Int[Array | np.ndarray, "*batch"]
    failed: Bool[Array | np.ndarray, "*batch"]

    @property
    def nats(self) -> Float[Array | np.ndarray, "*batch"]:
        """Returns the sum of the terms, the bound on -log P in nats per image."""
        return sum(self.terms.values())  # type: ignore[return-value]


class AbstractEstimator(eqx.Module, Generic[Plan]):
    """An estimator of -log P; an implementer supplies the abstract members below.

    Calls with different `replicate` must be independent. All draws must depend on the image's index in the test set,
    so that estimates do not depend on the division into batches. Methods without the parameter `condition` are allowed
    and cannot measure images given their labels.

    A constructor may take as positional parameters `trained_steps`, T of the training objective (0 if continuous), and
    its `trained_kernel` and `trained_grid`, not yet built. They need defaults, for use without a recipe.
    """

    @abc.abstractmethod
    def describe(self, levels: int) -> str:
        """Describes what it measures for images with `levels` (0 is continuous), with its steps or tolerances."""

    def check_levels(self, levels: int) -> None:
        """Raises RecipeError if it cannot measure images with `levels`; 0 is continuous data."""

    @abc.abstractmethod
    def plan(
        self,
        model: DiffusionModel,
        images: Pixels,
        *,
        precision: float,
        key: PRNGKeyArray,
        condition: Conditions = NOTHING,
    ) -> Plan:
        """Prepares the estimates, for example by an allocation of draws found in a pilot.

        Args:
            model: The model.
            images: The whole test set.
            precision: Wanted half-width of the 95% Monte Carlo interval of the mean, nats; 0 for the recipe's draws.
            key: Random key.
            condition: Side information on the images, such as their labels.

        Raises:
            RecipeError: the estimator cannot plan for a precision.
        """

    def plan_pair(
        self,
        models: tuple[DiffusionModel, DiffusionModel],
        images: Pixels,
        *,
        precision: float,
        key: PRNGKeyArray,
        conditions: tuple[Conditions, Conditions] = (NOTHING, NOTHING),
    ) -> tuple[Plan, Plan]:
        """Prepares estimates of two models on the same images, whose difference is wanted; arguments as of `plan`.

        Each estimate must remain one of its own model. By default each model has the plan that it has alone.
        """
        first, second = (
            self.plan(model, images, precision=precision, key=key, **({"condition": told} if told else {}))
            for model, told in zip(models, conditions, strict=True)
        )
        return first, second

    @abc.abstractmethod
    def rounds(self, plan: Plan) -> int:
        """Returns how often a call will call `on_round`, for a progress bar."""

    def evaluations_of(self, plan: Plan) -> int:
        """Returns the number of network evaluations that the plan took, by default 0."""
        return 0

    @property
    def images_solved_again(self) -> int:
        """Returns the number of images on which `discretisation_error` is measured."""
        return 4

    def discretisation_error(
        self,
        model: DiffusionModel,
        images: Real[Array, "b h w c"],
        index: Int[Array, " b"],
        *,
        key: PRNGKeyArray,
        condition: Conditions = NOTHING,
    ) -> tuple[Float[np.ndarray, " b"], int] | None:
        """Returns a solver's discretisation error for a few images in nats, and the evaluations that this took.

        The error is NaN for a failed solve. By default the result is None, for estimators without a solver. The error
        enters the interval, and a number with a large error is not trusted.
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
        condition: Conditions = NOTHING,
        on_round: Callable[[], object] = lambda: None,
    ) -> Estimates:
        """Returns estimates for images with these indices in the test set. `replicate` is 0 or 1.

        With side information on the images it estimates log P(image | condition), by `model.given` for each image. The
        draws must not depend on it.
        """


def mean_of_draws(
    draws: Iterable[Mapping[str, Float[Array, " b"]]], on_round: Callable[[], object]
) -> dict[str, Float[Array | np.ndarray, " b"]]:
    """Returns each term's mean over draws of a batch in float64; the device is at work on the next ones meanwhile."""
    sums, count = dict[str, Any](), 0
    for draw in in_flight(draws):
        sums = {name: sums.get(name, 0.0) + np.asarray(term, np.float64) for name, term in draw.items()}
        count += 1
        on_round()
    return {name: total / count for name, total in sums.items()}


define_kind(
    "estimator",
    "how -log P of an image is estimated",
    AbstractEstimator,
    ("trained_steps", "trained_kernel", "trained_grid"),
)
