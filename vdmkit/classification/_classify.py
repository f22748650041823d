# SPDX-License-Identifier: Apache-2.0
"""Estimates the likelihoods of images given each label, with common random numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Real

from vdmkit.arguments import check_instance, check_integer
from vdmkit.classification._bayes import Classification
from vdmkit.data.identity import check_pixels, image_hashes
from vdmkit.data.sources import AbstractPixels, Pixels, select
from vdmkit.devices import arithmetic, precisely
from vdmkit.errors import DataError, UntrustedError
from vdmkit.likelihood.bound import VariationalBound
from vdmkit.likelihood.estimator import AbstractEstimator, Estimates, as_arguments, rows_of
from vdmkit.likelihood.intervals import check_index
from vdmkit.likelihood.log_likelihood import as_first_plan, calls_of, pass_over, solver_error
from vdmkit.likelihood.ode import SolverError
from vdmkit.model import DiffusionModel
from vdmkit.networks.network import Conditions
from vdmkit.progress import Progress, track
from vdmkit.randomness import fold_purpose
from vdmkit.schedules import check_increasing


@precisely
def classify(
    model: DiffusionModel,
    images: Real[Array | np.ndarray | AbstractPixels, "n h w c"],
    *,
    frequencies: Real[Array | np.ndarray, " labels"],
    key: PRNGKeyArray,
    estimator: AbstractEstimator[Any] | None = None,
    passes: int = 4,
    batch_size: int = 64,
    index: Int[np.ndarray, " m"] | None = None,
    progress: Progress = None,
) -> Classification:
    """Compares all labels for each image by Bayes' rule, as `vdmkit classify` does.

    The draws of an image are the same for all labels, and depend on its index in `images` alone.

    Args:
        model: A model whose network reads labels.
        images: Levels 0..levels - 1, or float32 if the model's data are continuous.
        frequencies: Frequency of each label, or the number of its training images.
        key: Random key; the command uses `jax.random.key(seed)`.
        estimator: The estimator of log p(image | label); by default the variational bound in continuous time.
        passes: Number of passes of the estimator, each of two estimates of every image and label.
        batch_size: Number of images in a batch.
        index: Indices of the images to classify; by default all.
        progress: None, "auto" for a bar on standard error, or an object like `vdmkit.progress.Meter`.

    Raises:
        DataError: the images differ from the model's in shape or levels, or an index is not that of an image, or
            occurs twice, or a label has no frequency.
        RecipeError: the schedule does not rise, or an argument is not what is said here.
        UntrustedError: an estimate is not a likelihood.
    """
    check_instance("model", model, DiffusionModel)
    check_instance("estimator", estimator, AbstractEstimator, optional=True)
    check_integer("passes", passes)
    check_integer("batch_size", batch_size)
    pixels = images if isinstance(images, AbstractPixels) else np.asarray(images)
    check_pixels(model, pixels)
    check_increasing(model.schedule)
    share = check_frequencies(np.asarray(frequencies))
    estimator = estimator or VariationalBound()
    index = np.arange(len(pixels)) if index is None else np.sort(check_index(np.asarray(index), len(pixels)))
    if not len(index):
        raise DataError("images: none to classify. Give at least one.")
    key, in_turn = fold_purpose(key, "classify"), {"label": jnp.arange(len(pixels)) % len(share)}
    first_key = jax.random.fold_in(key, 0)
    plan = _plan(estimator, model, pixels, rows_of(in_turn, index), index, first_key)
    rounds = 2 * passes * len(share) * estimator.rounds(plan) * calls_of(batch_size, len(index))
    with track(progress, "classification", rounds) as advance:
        how = {"batch_size": batch_size, "on_round": advance}

        def measured(label: int, number: int) -> Estimates:
            told = {"label": jnp.full(len(pixels), label)}
            of_pass = {"condition": told, "key": jax.random.fold_in(key, number)}  # of the pass, and not of the label
            return pass_over(estimator, model, pixels, index, plan, **of_pass, **how)

        found = [[measured(label, number) for label in range(len(share))] for number in range(passes)]
    solver = solver_error(estimator, model, pixels, in_turn, index, first_key, progress)
    _refuse(found, solver)
    nats = np.concatenate([np.stack([np.asarray(one.nats) for one in row], axis=-1) for row in found])
    evaluations = sum(int(np.sum(one.evaluations)) for row in found for one in row)
    others = estimator.evaluations_of(plan) + (solver.evaluations if solver else 0)
    return Classification(
        log_joint=np.log(share) - nats,
        frequencies=share,
        index=index,
        groups=np.unique(image_hashes(select(pixels, index)), return_inverse=True)[1].reshape(-1),
        total_evaluations=evaluations + others,
        evaluations_per_label=evaluations / (len(index) * len(share)),
        solver=solver,
        estimator=estimator.describe(model.observation.levels),
        arithmetic=arithmetic(),
    )


def check_frequencies(frequencies: Real[np.ndarray, " labels"]) -> Float[np.ndarray, " labels"]:
    """Returns frequencies that sum to 1. Raises DataError if one of them is not a positive number."""
    share = np.asarray(frequencies, np.float64)
    if share.ndim != 1 or len(share) < 2:
        raise DataError(f"frequencies of shape {share.shape}: expected one for each of at least 2 labels.")
    if not (np.isfinite(share) & (share > 0)).all():
        label = int(np.flatnonzero(~(np.isfinite(share) & (share > 0)))[0])
        raise DataError(
            f"label {label} has frequency {share[label]:g}: Bayes' rule needs training images of every label."
        )
    return share / share.sum()


def _plan(
    estimator: AbstractEstimator[Any],
    model: DiffusionModel,
    pixels: Pixels,
    told: Conditions,
    index: Int[np.ndarray, " m"],
    key: PRNGKeyArray,
) -> Any:
    """Returns one plan for all labels, or their draws would differ. It is made with the labels in turn."""
    given = {"precision": 0.0, "key": fold_purpose(key, "plan"), **as_arguments(estimator, told)}
    return as_first_plan(estimator.plan(model, select(pixels, index), **given))


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
