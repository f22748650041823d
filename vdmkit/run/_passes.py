# SPDX-License-Identifier: Apache-2.0
"""The passes over test images that a wanted precision takes, and their average."""

import hashlib
import json
import math
import sys
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, PRNGKeyArray

from vdmkit import __version__
from vdmkit.data import Images
from vdmkit.likelihood import AbstractEstimator, Estimates, interval, passes_for
from vdmkit.objective import bits_per_dim
from vdmkit.randomness import fold_purpose
from vdmkit.recipe import flat
from vdmkit.report import progress
from vdmkit.run._arithmetic import arithmetic
from vdmkit.run._load import TrainedRun
from vdmkit.run._manifest import packages
from vdmkit.run._pass import Kept, batch_of, pass_over

_MEASURED_BY = ("seed", "model.", "objective.", "likelihood.")  # keys of the recipe


@dataclass(frozen=True)
class Passes:
    """The average of passes, every array (2, m).

    `half_width` is of the 95% Monte Carlo interval of the mean over images, nats. `evaluations` counts those of the
    network in all passes and their pilot. `kept` holds their batches.
    """

    estimates: Estimates
    half_width: float
    evaluations: int
    kept: Kept


def measure_passes(
    run: TrainedRun, test: Images, estimator: AbstractEstimator[Any], index: Int[np.ndarray, " m"]
) -> Passes:
    """Returns one pass over the images, or with the recipe's precision as many as it takes: see `passes_for`.

    Raises:
        RecipeError: the estimator cannot plan for a precision.
    """
    settings, model = run.recipe.likelihood, run.model(run.recipe.likelihood.weights)
    wanted = settings.precision * model.dimensions * math.log(2)
    key = fold_purpose(key_of(run), "plan")
    plan = estimator.plan(model, test.pixels[index], precision=wanted, key=key)
    if wanted:
        print(
            f"planned for +/- {settings.precision:.4g}: {2 * estimator.rounds(plan):,} evaluations an image",
            file=sys.stderr,
        )
    first = _pass(run, test, estimator, index, plan, 0)
    half_width = interval(np.asarray(first.nats)).half_width_monte_carlo
    count = passes_for(half_width, wanted)
    if count > 1:
        found = bits_per_dim(half_width, model.dimensions)
        print(f"+/- {found:.4g} with this pass: {count - 1:,} more of the same, and their mean", file=sys.stderr)
    others = (_pass(run, test, estimator, index, plan, stage) for stage in range(1, count))
    total = reduce(_sum, others, first)
    terms = {name: values / count for name, values in total.terms.items()}
    estimates = Estimates(terms, total.evaluations, total.failed)
    evaluations = int(np.sum(total.evaluations)) + getattr(plan, "evaluations", 0)
    return Passes(estimates, half_width / math.sqrt(count), evaluations, _kept(run, test, 0))


def key_of(run: TrainedRun, stage: int = 0) -> PRNGKeyArray:
    """Returns the key of a pass: stage 0 is the first."""
    return jax.random.fold_in(fold_purpose(jax.random.key(run.recipe.seed), "likelihood"), stage)


def _pass(
    run: TrainedRun,
    test: Images,
    estimator: AbstractEstimator[Any],
    index: Int[np.ndarray, " m"],
    plan: Any,
    stage: int,
) -> Estimates:
    settings = run.recipe.likelihood
    batches = -(-len(index) // batch_of(settings.batch_size, len(index)))
    with progress("likelihood", 2 * estimator.rounds(plan) * batches) as advance:
        return pass_over(
            estimator,
            run.model(settings.weights),
            test.pixels,
            index,
            plan,
            batch_size=settings.batch_size,
            key=key_of(run, stage),
            kept=_kept(run, test, stage),
            on_round=advance,
        )


def _sum(a: Estimates, b: Estimates) -> Estimates:
    terms = {name: a.terms[name] + b.terms[name] for name in a.terms}
    return Estimates(terms, a.evaluations + b.evaluations, a.failed | b.failed)


def _kept(run: TrainedRun, test: Images, stage: int) -> Kept:
    """Returns the folder of a pass, named by all that its numbers depend on."""
    return Kept(run.folder.unfinished_likelihood / fingerprint_of(run, test, stage))


def fingerprint_of(run: TrainedRun, test: Images, stage: object = 0) -> str:
    """Returns 16 hexadecimal digits that stand for all that the numbers of a pass depend on.

    Args:
        stage: tells the pass from others of the run, as JSON does.
    """
    facts = [
        {key: value for key, value in flat(run.recipe).items() if key.startswith(_MEASURED_BY)},
        run.plugins,
        packages(),
        run.step,
        [test.identity.sha256, test.pixels.shape, test.levels],
        stage,
        asdict(arithmetic()),
        __version__,
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
