# SPDX-License-Identifier: Apache-2.0
"""Measuring a likelihood: plan, passes until the wanted precision is reached, and the reasons not to trust it."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from vdmkit.assembly import build_estimator
from vdmkit.data import Images, copies_of, groups_of, prints_of
from vdmkit.errors import UntrustedError
from vdmkit.likelihood import (
    AbstractEstimator,
    Estimates,
    ProbabilityFlow,
    check_count,
    discretisation_error,
    interval,
)
from vdmkit.objective import bits_per_dim
from vdmkit.run._arithmetic import arithmetic
from vdmkit.run._comparable import reasons_against
from vdmkit.run._conformance import Findings, check_measurement_of_run
from vdmkit.run._evaluate import check_fits
from vdmkit.run._exact import below_the_truth, exact_bound, exact_nats, impossible_below
from vdmkit.run._folder import RunFolder
from vdmkit.run._likelihood_files import leave, name_of_result
from vdmkit.run._likelihood_report import Likelihood
from vdmkit.run._load import TrainedRun
from vdmkit.run._pass import sample_of
from vdmkit.run._passes import Passes, fingerprint_of, key_of, measure_passes
from vdmkit.run._remarks import on_copies
from vdmkit.run._solver_error import SolverError
from vdmkit.run._trained_on import TrainedOn, read_trained_on

_TERMS = ("prior", "reconstruction", "diffusion", "volume", "dequantisation")  # printed first, in this order
_REFINED = 4  # images that are solved again


def measure_likelihood(run: TrainedRun, test: Images, *, allow_untrusted: bool = False) -> Likelihood:
    """Estimate -log P of the test images by the recipe's estimator, and leave the result in the run folder.

    What was measured otherwise, or of other images, stays there beside it: see `name_of_result`.
    The interval stays valid when a precision is asked for: see `vdmkit.likelihood.passes_for`.

    Raises:
        DataError: the images are not of the model's shape or number of levels, or fewer than 2.
        RecipeError: the schedule does not rise, or the estimator cannot plan for a precision.
        UntrustedError: the number is not a likelihood, and `allow_untrusted` was not given.
    """
    model, settings = run.model(run.recipe.likelihood.weights), run.recipe.likelihood
    check_fits(model, test)
    index = sample_of(len(test.pixels), settings.images or len(test.pixels))
    check_count(test.pixels[index])
    known = read_trained_on(run.folder)
    against = Findings(*map(tuple, reasons_against(run.trained_on, test, known.statistics)))
    if not allow_untrusted:
        _refuse(against.problems, run.folder)
    findings = check_measurement_of_run(run.recipe, model, test)
    if not allow_untrusted:
        findings.refuse()
    estimator = build_estimator(run.recipe, test.levels)
    passes = measure_passes(run, test, estimator, index)
    report = _report(run, test, estimator, index, passes, known, findings + against)
    if not allow_untrusted:
        _refuse(report.reasons, run.folder)
    name = name_of_result(test.identity, settings.estimator, fingerprint_of(run, test))
    leave(run.folder, name, report, index, passes.estimates)
    passes.kept.clear()  # not before: --allow-untrusted after a refusal, or the same command after a kill, needs them
    return report


def _refuse(reasons: Sequence[str], folder: RunFolder) -> None:
    """Raises UntrustedError with the reasons, if there are any."""
    if reasons:
        kept = folder.unfinished_likelihood
        by = f", from what {kept} keeps of this measurement; else delete that folder" if kept.exists() else ""
        raise UntrustedError(
            f"not a likelihood: {' '.join(reasons)} --allow-untrusted prints the number, marked as none{by}."
        )


def _report(
    run: TrainedRun,
    test: Images,
    estimator: AbstractEstimator[Any],
    index: Int[np.ndarray, " m"],
    passes: Passes,
    known: TrainedOn,
    findings: Findings,
) -> Likelihood:
    estimates, evaluations = passes.estimates, passes.evaluations
    recipe, model = run.recipe, run.model(run.recipe.likelihood.weights)
    prints = prints_of(test)
    copies, groups = copies_of(prints, known.prints), groups_of(prints, known.prints)[index]
    total = interval(bits_per_dim(np.asarray(estimates.nats), model.dimensions), groups)
    terms = {
        name: estimates.terms[name] for name in dict.fromkeys([*_TERMS, *estimates.terms]) if name in estimates.terms
    }
    solver = _solver_error(run, test, estimator, index)
    monte_carlo = bits_per_dim(passes.half_width, model.dimensions)
    width = monte_carlo + (solver.half_width if solver else 0.0)
    evaluations += solver.evaluations if solver else 0
    true_nats = exact_nats(run, test, index)
    exact = None if true_nats is None else bits_per_dim(float(true_nats.mean()), model.dimensions)
    reasons = [*findings.problems, *_reasons(estimates)]
    if solver and not reasons:
        reasons += solver.reasons()
    lowest = None
    if true_nats is not None and exact is not None and copies.exact == 0 and copies.held_out is not False:
        lowest = impossible_below(true_nats, np.asarray(estimates.nats), estimator)
        lowest = bits_per_dim(lowest, model.dimensions) - (solver.half_width if solver else 0.0)
        reasons += below_the_truth(total.value, exact, lowest, test.levels)
    return Likelihood(
        bpd=total.value,
        bpd_low=total.value - width,
        bpd_high=total.value + width,
        half_width_monte_carlo=monte_carlo,
        half_width_test_set=total.half_width_test_set,
        terms={name: bits_per_dim(float(nats.mean()), model.dimensions) for name, nats in terms.items()},
        exact=exact,
        impossible_below=lowest,
        exact_bound=exact_bound(run, test, estimator, index),
        discretisation=solver and solver.value,
        estimator=estimator.describe(),
        evaluations=evaluations,
        evaluations_per_image=evaluations / len(index),
        levels=test.levels,
        images=len(index),
        images_in_test_set=len(test.pixels),
        distinct_images=len(np.unique(groups)),
        test_images_trained_on=copies.exact,
        test_images_near_trained_on=copies.near,
        held_out=copies.held_out,
        dataset=f"{test.identity.name}/{test.identity.split}",
        sha256=test.identity.sha256,
        published=test.identity.published,
        seed=recipe.seed,
        step=run.step,
        weights=recipe.likelihood.weights,
        arithmetic=arithmetic(),
        trusted=not reasons,
        reasons=tuple(reasons),
        remarks=(*on_copies(copies, groups, len(prints)), *findings.remarks),
    )


def _solver_error(
    run: TrainedRun, test: Images, estimator: AbstractEstimator[Any], index: Int[np.ndarray, " m"]
) -> SolverError | None:
    """Measured on a few images; None without a solver."""
    if not isinstance(estimator, ProbabilityFlow):
        return None
    model, few = run.model(run.recipe.likelihood.weights), index[sample_of(len(index), _REFINED)]
    images, numbers = jnp.asarray(test.pixels[few]), jnp.asarray(few, jnp.int32)
    differences, evaluations = discretisation_error(estimator, model, images, numbers, key=key_of(run))
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
