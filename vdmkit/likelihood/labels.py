# SPDX-License-Identifier: Apache-2.0
"""Estimates of log p(image | label) for every label with common random numbers, for classification by Bayes' rule."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Real

from vdmkit.arguments import check_instance, check_integer
from vdmkit.data.identity import check_pixels, image_hashes
from vdmkit.data.sources import AbstractPixels, select
from vdmkit.devices import Arithmetic, arithmetic, precisely
from vdmkit.errors import DataError, UntrustedError
from vdmkit.likelihood.bound import VariationalBound
from vdmkit.likelihood.estimator import AbstractEstimator, Estimates, as_arguments, rows_of
from vdmkit.likelihood.intervals import check_index
from vdmkit.likelihood.log_likelihood import as_first_plan, calls_of, pass_over, solver_error
from vdmkit.likelihood.ode import SolverError
from vdmkit.model import DiffusionModel
from vdmkit.progress import Progress, track
from vdmkit.randomness import fold_purpose
from vdmkit.schedules import check_increasing


@dataclass(frozen=True, repr=False)
class LabelLogLikelihoods:
    """Independent estimates of log p(image | label), for every image and every label.

    Attributes:
        log_prob: R estimates of each in nats, (R, n, labels).
        index: Increasing indices of the images in the given array.
        groups: A number for each image; copies of an image share it.
        total_evaluations: Evaluations of the network, including those for planning and for the solver's error.
        evaluations_per_label: Evaluations for one image and label, all estimates together.
        solver: Error of the ODE solver, measured on a few images; None without a solver.
        estimator: Description of the estimator.
        arithmetic: Precision and devices of the measurement.
    """

    log_prob: Float[np.ndarray, "r n labels"]
    index: Int[np.ndarray, " n"]
    groups: Int[np.ndarray, " n"]
    total_evaluations: int
    evaluations_per_label: float
    solver: SolverError | None
    estimator: str
    arithmetic: Arithmetic

    def __repr__(self) -> str:
        r, n, labels = self.log_prob.shape
        return f"LabelLogLikelihoods({n:,} images, {labels} labels, {r} estimates of each)"


@precisely
def label_log_likelihoods(
    model: DiffusionModel,
    images: Real[Array | np.ndarray | AbstractPixels, "n h w c"],
    *,
    labels: int,
    key: PRNGKeyArray,
    estimator: AbstractEstimator[Any] | None = None,
    passes: int = 4,
    batch_size: int = 64,
    index: Int[np.ndarray, " m"] | None = None,
    progress: Progress = None,
) -> LabelLogLikelihoods:
    """Estimates log p(image | label) of each image given each of the `labels` labels.

    The draws for an image are the same for all labels, so most of the Monte Carlo error cancels in differences between
    labels. They depend only on the key and the image's index in `images`.

    Args:
        model: A model whose network uses labels.
        images: Levels 0..levels - 1, or float32 if the model's data are continuous.
        labels: Number of labels.
        key: Random key.
        estimator: Estimator of log p(image | label); by default the variational bound in continuous time.
        passes: Number of passes of the estimator. Each gives two estimates for every image and label.
        batch_size: Number of images in a batch.
        index: Indices of the images to measure; by default all.
        progress: None, "auto" for a bar on standard error, or an object like `vdmkit.progress._track.Meter`.

    Raises:
        DataError: The images differ from the model's in shape or levels, or an index is out of range or repeated.
        RecipeError: The schedule is not increasing, or an argument is invalid.
        UntrustedError: An estimate is not a likelihood.
    """
    check_instance("model", model, DiffusionModel)
    check_instance("estimator", estimator, AbstractEstimator, optional=True)
    check_integer("passes", passes)
    check_integer("batch_size", batch_size)
    pixels = images if isinstance(images, AbstractPixels) else np.asarray(images)
    check_pixels(model, pixels)
    check_increasing(model.schedule)
    estimator = estimator or VariationalBound()
    index = np.arange(len(pixels)) if index is None else np.sort(check_index(np.asarray(index), len(pixels)))
    if not len(index):
        raise DataError("images: there are none. Give at least one.")
    key = fold_purpose(key, "classify")
    first_key = jax.random.fold_in(key, 0)
    # A single plan, because one plan per label would change the draws. The pilot's images cycle through the labels.
    in_turn = {"label": jnp.arange(len(pixels)) % labels}
    condition = as_arguments(estimator, rows_of(in_turn, index))
    plan = estimator.plan(model, select(pixels, index), precision=0.0, key=fold_purpose(first_key, "plan"), **condition)
    plan = as_first_plan(plan)
    rounds = 2 * passes * labels * estimator.rounds(plan) * calls_of(batch_size, len(index))
    found: list[list[Estimates]] = []
    with track(progress, "classification", rounds) as advance:
        for number in range(passes):
            pass_key = jax.random.fold_in(key, number)  # the same for all labels
            found.append(
                [
                    pass_over(
                        estimator,
                        model,
                        pixels,
                        index,
                        plan,
                        condition={"label": jnp.full(len(pixels), label)},
                        key=pass_key,
                        batch_size=batch_size,
                        on_round=advance,
                    )
                    for label in range(labels)
                ]
            )
    solver = solver_error(estimator, model, pixels, in_turn, index, first_key, progress)
    _refuse(found, solver)
    evaluations = sum(int(np.sum(one.evaluations)) for row in found for one in row)
    return LabelLogLikelihoods(
        log_prob=-np.concatenate([np.stack([np.asarray(one.nats) for one in row], axis=-1) for row in found]),
        index=index,
        groups=np.unique(image_hashes(select(pixels, index)), return_inverse=True)[1].reshape(-1),
        total_evaluations=evaluations + estimator.evaluations_of(plan) + (solver.evaluations if solver else 0),
        evaluations_per_label=evaluations / (len(index) * labels),
        solver=solver,
        estimator=estimator.describe(model.observation.levels),
        arithmetic=arithmetic(),
    )


def _refuse(found: list[list[Estimates]], solver: SolverError | None) -> None:
    """Raises UntrustedError for estimates that are not likelihoods."""
    every = [one for row in found for one in row]
    if any(np.asarray(one.failed).any() for one in every):
        raise UntrustedError(
            "not likelihoods: the solver did not reach its end for an image and a label. Give it more "
            "likelihood.estimator.max_steps."
        )
    for label, one in enumerate(found[0]):
        if not all(np.isfinite(values).all() for values in one.terms.values()):
            raise UntrustedError(f"not likelihoods: a term is not finite given label {label}.")
    if not all(np.isfinite(one.nats).all() for one in every):
        raise UntrustedError("not likelihoods: a term is not finite.")
    if solver and (reasons := solver.reasons()):
        raise UntrustedError(f"not likelihoods: {' '.join(reasons)}")
