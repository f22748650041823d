# SPDX-License-Identifier: Apache-2.0
"""Makes a report from estimates: the number, with reasons not to trust it and remarks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vdmkit.data import Images, TrainedOn, copies_of, groups_of, on_copies, prints_of, reasons_against, select
from vdmkit.distribution import AbstractDistribution
from vdmkit.likelihood._estimator import AbstractEstimator
from vdmkit.likelihood._exact import below_the_truth, exact_bound, impossible_below
from vdmkit.likelihood._interval import remark_on_few
from vdmkit.likelihood._log_likelihood import LogLikelihood
from vdmkit.likelihood._report import LikelihoodReport
from vdmkit.likelihood._variational import VariationalBound
from vdmkit.model import DiffusionModel
from vdmkit.objective import bits_per_dim

_TERMS = ("prior", "reconstruction", "diffusion", "volume", "dequantisation")  # printed first, in this order


@dataclass(frozen=True)
class Subject:
    """The subject of a report: a model (of `step` and `weights`), test images, an estimator, and a seed.

    `distribution` is the distribution of the images, or None if it is unknown. With `labels`, which the network is told
    of each image, its components are the labels; `label` names them, "data" or the one of all.
    """

    model: DiffusionModel
    test: Images
    estimator: AbstractEstimator[Any]
    distribution: AbstractDistribution | None
    seed: int
    step: int
    weights: str
    label: int | str | None = None
    labels: Int[np.ndarray, " n"] | None = None

    def exact_nats(self, index: Int[np.ndarray, " m"]) -> Float[np.ndarray, " m"] | None:
        """Returns -log P of images, given their labels if the network is told these; None if it is unknown."""
        distribution, pixels = self.distribution, self.test.pixels[index]
        if distribution is None or self.labels is None:
            return None if distribution is None else distribution.nats(pixels)
        nats, labels = np.empty(len(index)), self.labels[index]
        for label in np.unique(labels):
            if (component := distribution.component(int(label))) is None:
                return None
            nats[labels == label] = component.nats(pixels[labels == label])
        return nats


def report_on(
    estimate: LogLikelihood,
    subject: Subject,
    known: TrainedOn,
    *,
    problems: Sequence[str] = (),
    remarks: Sequence[str] = (),
) -> LikelihoodReport:
    """Returns the report of an estimate, in bits/dim.

    Args:
        estimate: The estimates.
        subject: The model, the images and the estimator.
        known: What is known of the training images.
        problems: Problems of the model's components, because of which the number is not trusted.
        remarks: Sentences to print beside the number.
    """
    test, prints, d = subject.test, prints_of(subject.test), subject.model.dimensions
    copies, groups = copies_of(prints, known.prints), groups_of(prints, known.prints)[estimate.index]
    mean, solver = replace(estimate, groups=groups).mean(), estimate.solver
    against, beside = reasons_against(known, test)
    unsolved = estimate.reasons() if not (problems or against) else replace(estimate, solver=None).reasons()
    reasons = [*problems, *against, *unsolved]
    exact, lowest = _truth(estimate, subject)
    if copies.exact != 0 or copies.held_out is False:
        lowest = None
    if exact is not None and lowest is not None:
        reasons += below_the_truth(mean.value, exact, lowest, test.levels)
    on_images, width = len(estimate.index), mean.half_width_monte_carlo + mean.half_width_solver
    terms, names = estimate.terms, dict.fromkeys([*_TERMS, *estimate.terms])
    return LikelihoodReport(
        bpd=mean.value,
        bpd_low=mean.value - width,
        bpd_high=mean.value + width,
        half_width_monte_carlo=mean.half_width_monte_carlo,
        half_width_test_set=mean.half_width_test_set,
        terms={name: bits_per_dim(float(terms[name].mean()), d) for name in names if name in terms},
        exact=exact,
        impossible_below=lowest,
        exact_bound=exact_bound(subject.model, select(test.pixels, estimate.index), subject.estimator),
        discretisation=solver and solver.value,
        estimator=estimate.estimator,
        evaluations=estimate.total_evaluations,
        evaluations_per_image=float(estimate.evaluations.mean()),
        evaluations_of_solver_error=solver.evaluations if solver else 0,
        are_draws=isinstance(subject.estimator, VariationalBound),
        levels=test.levels,
        images=on_images,
        images_in_test_set=len(test.pixels),
        distinct_images=len(np.unique(groups)),
        test_images_trained_on=copies.exact,
        test_images_near_trained_on=copies.near,
        held_out=copies.held_out,
        dataset=f"{test.identity.name}/{test.identity.split}",
        label=subject.label,
        sha256=test.identity.sha256,
        published=test.identity.published,
        seed=subject.seed,
        step=subject.step,
        weights=subject.weights,
        arithmetic=estimate.arithmetic,
        trusted=not reasons,
        reasons=tuple(reasons),
        remarks=(*on_copies(copies, groups, len(prints)), *beside, *remarks, *remark_on_few(estimate.nats)),
    )


def _truth(estimate: LogLikelihood, subject: Subject) -> tuple[float | None, float | None]:
    """Returns -log2 P of the images if it is known, and the least value possible for a likelihood; bits/dim."""
    d, nats = estimate.dimensions, subject.exact_nats(estimate.index)
    if nats is None:
        return None, None
    if subject.label not in (None, "data"):  # the images are not drawn from P(image | label)
        return bits_per_dim(float(nats.mean()), d), None
    lowest = bits_per_dim(impossible_below(nats, estimate.nats, subject.estimator), d)
    return bits_per_dim(float(nats.mean()), d), lowest - (estimate.solver.half_width if estimate.solver else 0.0)
