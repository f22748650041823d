# SPDX-License-Identifier: Apache-2.0
"""Measuring a likelihood: plan, passes until the wanted precision is reached, and the reasons not to trust it."""

import hashlib
import json
import math
import os
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, PRNGKeyArray

from vdmkit import __version__
from vdmkit.assembly import build_estimator
from vdmkit.data import Images
from vdmkit.errors import UntrustedError
from vdmkit.files import whole_file, write_json
from vdmkit.likelihood import (
    AbstractEstimator,
    Estimates,
    ProbabilityFlow,
    check_count,
    discretisation_error,
    interval,
)
from vdmkit.noise import check_increasing
from vdmkit.objective import bits_per_dim
from vdmkit.randomness import fold_purpose
from vdmkit.recipe import flat
from vdmkit.report import progress
from vdmkit.run._comparable import reasons_against
from vdmkit.run._evaluate import check_fits
from vdmkit.run._exact import below_the_truth, exact_bound, exact_value
from vdmkit.run._likelihood_report import Likelihood
from vdmkit.run._load import TrainedRun
from vdmkit.run._manifest import device, packages
from vdmkit.run._pass import Kept, as_arrays, batch_of, pass_over, sample_of
from vdmkit.run._solver_error import SolverError
from vdmkit.run._trained_on import count_trained_on, read_hashes

_TERMS = ("prior", "reconstruction", "diffusion", "volume", "dequantisation")  # printed first, in this order
_REFINED = 4  # images that are solved again
_ASK_FOR_MORE = 0.9  # of the precision that missed: the next pass should not miss again


def measure_likelihood(run: TrainedRun, test: Images, *, allow_untrusted: bool = False) -> Likelihood:
    """Estimate -log P of the test images by the recipe's estimator, and leave the result in the run folder.

    The interval stays valid when a precision is asked for: the number of draws is planned on a pilot whose draws
    are not used, and a pass that misses the precision is thrown away whole, so no pass knows when it will end.

    Raises:
        DataError: the images are not of the model's shape or number of levels, or fewer than 2.
        RecipeError: the schedule does not rise, or the estimator cannot plan for a precision.
        UntrustedError: the number is not a likelihood, and `allow_untrusted` was not given.
    """
    model, settings = run.model(run.recipe.likelihood.weights), run.recipe.likelihood
    check_fits(model, test)
    check_increasing(model.schedule)
    estimator = build_estimator(run.recipe, test.levels)
    index = sample_of(len(test.pixels), settings.images or len(test.pixels))
    check_count(test.pixels[index])
    estimates, evaluations, kept = _passes(run, test, estimator, index)
    report = _report(run, test, estimator, index, estimates, evaluations)
    if report.reasons and not allow_untrusted:
        raise UntrustedError(
            f"not a likelihood: {' '.join(report.reasons)} --allow-untrusted prints the number, marked as none."
        )
    _leave(run, report, index, estimates)
    kept.clear()  # not before: --allow-untrusted after a refusal, or the same command after a kill, needs them
    return report


def _passes(
    run: TrainedRun, test: Images, estimator: AbstractEstimator[Any], index: Int[np.ndarray, " m"]
) -> tuple[Estimates, int, Kept]:
    """The pass that reached the precision, the network evaluations of all of them and their pilots, its batches."""
    settings, evaluations, stage = run.recipe.likelihood, 0, 0
    wanted = settings.precision
    while True:
        estimates, spent, kept = _pass(run, test, estimator, index, wanted, stage)
        evaluations += spent
        reached = bits_per_dim(
            interval(np.asarray(estimates.nats)).half_width_monte_carlo, math.prod(test.pixels.shape[1:])
        )
        if not settings.precision or not reached > settings.precision:
            return estimates, evaluations, kept
        print(f"+/- {reached:.4g} with this pass, +/- {settings.precision:g} wanted: once more", file=sys.stderr)
        wanted *= _ASK_FOR_MORE * settings.precision / reached
        stage += 1


def _pass(
    run: TrainedRun,
    test: Images,
    estimator: AbstractEstimator[Any],
    index: Int[np.ndarray, " m"],
    precision: float,
    stage: int,
) -> tuple[Estimates, int, Kept]:
    """One pass planned for `precision` (bits/dim), and the network evaluations that it and its pilot took."""
    settings, model = run.recipe.likelihood, run.model(run.recipe.likelihood.weights)
    key = _key(run, stage)
    nats = precision * model.dimensions * math.log(2)
    plan = estimator.plan(model, test.pixels[index], precision=nats, key=fold_purpose(key, "plan"))
    rounds = estimator.rounds(plan)
    if precision:
        print(f"planned for +/- {precision:.4g}: {2 * rounds:,} evaluations an image", file=sys.stderr)
    kept = Kept(run.folder.unfinished_likelihood / fingerprint(run, test, stage))
    batches = -(-len(index) // batch_of(settings.batch_size, len(index)))
    with progress("likelihood", 2 * rounds * batches) as advance:
        estimates = pass_over(
            estimator,
            model,
            test.pixels,
            index,
            plan,
            batch_size=settings.batch_size,
            key=key,
            kept=kept,
            on_round=advance,
        )
    return estimates, int(np.sum(estimates.evaluations)) + getattr(plan, "evaluations", 0), kept


def _key(run: TrainedRun, stage: int) -> PRNGKeyArray:
    return jax.random.fold_in(fold_purpose(jax.random.key(run.recipe.seed), "likelihood"), stage)


def fingerprint(run: TrainedRun, test: Images, of_pass: object) -> str:
    """Of all that the numbers of a pass depend on; `of_pass` tells it from others, as JSON does."""
    facts = [
        flat(run.recipe),
        run.plugins,
        packages(),
        run.step,
        test.identity.sha256,
        of_pass,
        device(),
        str(jnp.zeros(()).dtype),
        __version__,
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _report(
    run: TrainedRun,
    test: Images,
    estimator: AbstractEstimator[Any],
    index: Int[np.ndarray, " m"],
    estimates: Estimates,
    evaluations: int,
) -> Likelihood:
    recipe, model = run.recipe, run.model(run.recipe.likelihood.weights)
    total = interval(bits_per_dim(np.asarray(estimates.nats), model.dimensions))
    terms = {
        name: estimates.terms[name] for name in dict.fromkeys([*_TERMS, *estimates.terms]) if name in estimates.terms
    }
    solver = _solver_error(run, test, estimator, index)
    width = total.half_width_monte_carlo + (solver.half_width if solver else 0.0)
    evaluations += solver.evaluations if solver else 0
    exact = exact_value(run, test, index)
    seen = count_trained_on(test.pixels, read_hashes(run.folder.trained_on))
    reasons = [*reasons_against(run.trained_on, test), *_reasons(estimates)]
    if solver and not reasons:
        reasons += solver.reasons()
    if exact is not None and seen == 0:
        reasons += below_the_truth(exact, total.value + width, len(index) * model.dimensions)
    return Likelihood(
        bpd=total.value,
        bpd_low=total.value - width,
        bpd_high=total.value + width,
        half_width_monte_carlo=total.half_width_monte_carlo,
        half_width_test_set=total.half_width_test_set,
        terms={name: bits_per_dim(float(nats.mean()), model.dimensions) for name, nats in terms.items()},
        exact=exact,
        exact_bound=exact_bound(run, test, estimator, index),
        discretisation=solver and solver.value,
        estimator=estimator.describe(),
        evaluations=evaluations,
        evaluations_per_image=evaluations / len(index),
        levels=test.levels,
        images=len(index),
        images_in_test_set=len(test.pixels),
        test_images_trained_on=seen,
        dataset=f"{test.identity.name}/{test.identity.split}",
        sha256=test.identity.sha256,
        published=test.identity.published,
        seed=recipe.seed,
        step=run.step,
        weights=recipe.likelihood.weights,
        precision=str(jnp.zeros(()).dtype),
        device=device(),
        trusted=not reasons,
        reasons=tuple(reasons),
    )


def _solver_error(
    run: TrainedRun, test: Images, estimator: AbstractEstimator[Any], index: Int[np.ndarray, " m"]
) -> SolverError | None:
    """Measured on a few images; None without a solver."""
    if not isinstance(estimator, ProbabilityFlow):
        return None
    model, few = run.model(run.recipe.likelihood.weights), index[sample_of(len(index), _REFINED)]
    images, numbers = jnp.asarray(test.pixels[few]), jnp.asarray(few, jnp.int32)
    differences, evaluations = discretisation_error(estimator, model, images, numbers, key=_key(run, 0))
    return SolverError(bits_per_dim(differences, model.dimensions), evaluations)


def _reasons(estimates: Estimates) -> list[str]:
    """Why the number would not be a likelihood, in sentences."""
    reasons = []
    failed = int(np.asarray(estimates.failed).any(0).sum())
    if failed:
        count = f"{failed} of {estimates.failed.shape[1]} images"
        reasons.append(f"the solver did not reach its end for {count}: give it more likelihood.estimator.max_steps.")
    for name, values in estimates.terms.items():
        if not np.isfinite(values).all():
            image = int(np.argwhere(~np.isfinite(values))[0, 1])
            reasons.append(f"the {name} term is not finite, first for image {image} of those measured.")
    return reasons


def _leave(run: TrainedRun, report: Likelihood, index: Int[np.ndarray, " m"], estimates: Estimates) -> None:
    if not os.access(run.folder.path, os.W_OK):
        print(f"{run.folder.path}: may not be written, so nothing is kept there.", file=sys.stderr)
        return
    nats = np.asarray(estimates.nats)
    facts = {"index": index, "nats": nats.mean(0), "standard_error": abs(nats[0] - nats[1]) / 2}
    with whole_file(run.folder.likelihood_of_images) as part, part.open("wb") as file:
        np.savez(file, **facts, **as_arrays(estimates))
    write_json(run.folder.likelihood, report.as_json())
    print(f"written to {run.folder.likelihood}, every image's to {run.folder.likelihood_of_images}", file=sys.stderr)
