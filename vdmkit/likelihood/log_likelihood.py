# SPDX-License-Identifier: Apache-2.0
"""Estimates of log P of images under a model.

`log_likelihood` averages as many passes of an estimator as a precision needs. A pass (`pass_over`) gives two
independent estimates of every image, in batches on all devices and processes, and can continue after an interruption.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from itertools import cycle, islice, takewhile
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Real, UInt64

from vdmkit.arguments import check_instance, check_integer, check_not_negative, table
from vdmkit.data.identity import check_pixels, image_hashes
from vdmkit.data.sources import AbstractPixels, Pixels, select
from vdmkit.devices import (
    Arithmetic,
    arithmetic,
    devices_for,
    in_groups,
    local_mesh,
    place_batch,
    precisely,
    replicate_arrays,
)
from vdmkit.errors import UntrustedError
from vdmkit.likelihood.bound import VariationalBound
from vdmkit.likelihood.estimator import NOTHING, AbstractEstimator, Estimates, as_arguments, check_condition, rows_of
from vdmkit.likelihood.intervals import Interval, check_count, check_index, interval, passes_for
from vdmkit.likelihood.ode import SolverError
from vdmkit.losses.bound import bits_per_dim
from vdmkit.model import DiffusionModel
from vdmkit.multihost import as_first, gathered, is_alone, share_of
from vdmkit.networks.network import Conditions
from vdmkit.progress import Progress, track
from vdmkit.randomness import fold_purpose
from vdmkit.schedules import check_increasing


@runtime_checkable
class Parts(Protocol):
    """A store of the batches of a pass, so that an interrupted pass can continue."""

    def read(self, number: int) -> dict[str, np.ndarray] | None:
        """Returns the arrays of a batch by name, or None if it was not written."""
        ...

    def write(self, number: int, arrays: dict[str, Any]) -> None:
        """Writes the arrays of a batch."""
        ...


def as_arrays(estimates: Estimates) -> dict[str, Any]:
    """Returns estimates as arrays by name, for an .npz file."""
    terms = {f"term_{name}": np.asarray(values) for name, values in estimates.terms.items()}
    return {**terms, "evaluations": estimates.evaluations, "failed": estimates.failed}


def _of_arrays(arrays: dict[str, Any]) -> Estimates:
    terms = {name.removeprefix("term_"): values for name, values in arrays.items() if name.startswith("term_")}
    return Estimates(terms, arrays["evaluations"], arrays["failed"])


def sample_of(count: int, wanted: int) -> Int[np.ndarray, " m"]:
    """Returns the increasing indices of `wanted` images: all, or a random sample."""
    return np.sort(np.random.default_rng(0).permutation(count)[:wanted])


def calls_of(batch_size: int, count: int) -> int:
    """Returns how many times this process calls the estimator for each replicate, for a progress bar."""
    starts = share_of(range(0, count, min(batch_size, count)))
    return -(-len(starts) // devices_for(len(starts)))


def pass_over(
    estimator: AbstractEstimator[Any],
    model: DiffusionModel,
    pixels: Pixels,
    index: Int[np.ndarray, " m"],
    plan: Any,
    *,
    batch_size: int,
    key: PRNGKeyArray,
    condition: Conditions = NOTHING,
    kept: Parts | None = None,
    seconds: float = float("inf"),
    on_round: Callable[[], object] = lambda: None,
) -> Estimates:
    """Returns two independent estimates of each image in `index`, in its order; every array is (2, m).

    Each device measures whole batches, so the estimates do not depend on the number of devices and processes, which
    divide the batches among themselves. No batch starts after `seconds`; m is then the number of images done, at least
    2. `condition` has a row for each of `pixels`.
    """
    size, end = min(batch_size, len(index)), time.monotonic() + seconds
    starts = share_of(range(0, len(index), size))
    mesh = local_mesh(devices_for(len(starts)))
    model, plan = replicate_arrays((model, plan), mesh)
    done: dict[int, Estimates] = {}
    for at_once in in_groups(starts, mesh.size):
        if len(done) * size > 1 and time.monotonic() > end:
            break
        found = {start: kept.read(start) if kept else None for start in at_once}
        if None in found.values():
            rows = [np.resize(index[start : start + size], size) for start in at_once]
            rows = np.concatenate(list(islice(cycle(rows), mesh.size)))  # one shape, one compilation
            conditions = {name: np.asarray(values)[rows] for name, values in condition.items()}
            batch = np.ascontiguousarray(pixels[rows]), rows.astype(np.int32), conditions
            images, numbers, conditions = place_batch(batch, mesh)
            how = {"key": key, "on_round": on_round} | ({"condition": conditions} if conditions else {})
            pair = [estimator(model, images, numbers, plan, replicate=r, **how) for r in (0, 1)]
            part = jax.tree.map(lambda *both: np.stack([np.asarray(one) for one in both]), *pair)
            for i, start in enumerate(at_once):
                done[start] = jax.tree.map(lambda values, i=i: values[:, i * size : (i + 1) * size], part)
                if kept:
                    kept.write(start, as_arrays(done[start]))
        else:
            done |= {start: _of_arrays(arrays) for start, arrays in found.items() if arrays is not None}
            for _ in range(2 * estimator.rounds(plan)):
                on_round()
    return _joined(done, size, len(index))


def _joined(done: dict[int, Estimates], size: int, count: int) -> Estimates:
    """Concatenates the batches of all processes, up to the first that is missing."""
    sent = {f"{start} {name}": array for start, part in done.items() for name, array in as_arrays(part).items()}
    batches: dict[int, dict[str, Any]] = {}
    for arrays in gathered(sent):
        for words, array in arrays.items():
            start, _, name = words.partition(" ")
            batches.setdefault(int(start), {})[name] = array
    whole = takewhile(lambda start: start in batches, range(0, count, size))
    parts = [_of_arrays(batches[start]) for start in whole]
    return jax.tree.map(lambda *values: np.concatenate(values, axis=1)[:, :count], *parts)


def as_first_plan(plan: Any) -> Any:
    """Returns the plan of the first process, because rounding in a pilot may differ between machines."""
    leaves, structure = jax.tree.flatten(plan)
    arrays = {str(i): np.asarray(leaf) for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array | np.ndarray)}
    if is_alone() or not arrays:
        return plan
    for i, array in as_first(arrays).items():
        leaves[int(i)] = jnp.asarray(array) if isinstance(leaves[int(i)], jax.Array) else array
    return jax.tree.unflatten(structure, leaves)


@dataclass(frozen=True, repr=False)
class LogLikelihood:
    """Estimates of log P of n images: two independent ones of each, whose mean is reported.

    Attributes:
        estimates: Terms in nats whose sum bounds -log P, evaluations of the network and failures; every array (2, n).
        index: Increasing indices of the images in the given array.
        hashes: A hash of each image; `compare` requires equal ones.
        groups: A number for each image, the same for copies of one image.
        half_width: Half-width of the 95% Monte Carlo interval of the mean over images, nats.
        total_evaluations: Evaluations of the network, including those for planning and for the solver's error.
        solver: The error of a solver, measured on a few images; None without a solver.
        dimensions: Number of values in an image.
        estimator: Description of the estimator.
        arithmetic: Precision and devices of the measurement.
    """

    estimates: Estimates
    index: Int[np.ndarray, " n"]
    hashes: UInt64[np.ndarray, " n"]
    groups: Int[np.ndarray, " n"]
    half_width: float
    total_evaluations: int
    solver: SolverError | None
    dimensions: int
    estimator: str
    arithmetic: Arithmetic

    @property
    def nats(self) -> Float[np.ndarray, "2 n"]:
        """Returns two estimates of a bound on -log P of each image in nats."""
        return np.asarray(self.estimates.nats)

    @property
    def log_prob(self) -> Float[np.ndarray, " n"]:
        """Returns log P of each image in nats: the estimate of its lower bound."""
        return -self.nats.mean(0)

    @property
    def standard_error(self) -> Float[np.ndarray, " n"]:
        """Returns the Monte Carlo standard error of `log_prob` in nats: half the difference of the two estimates."""
        first, second = self.nats
        return abs(first - second) / 2

    @property
    def terms(self) -> dict[str, Float[np.ndarray, " n"]]:
        """Returns the terms of each image by name, in nats; their sum is -`log_prob`."""
        return {name: np.asarray(values).mean(0) for name, values in self.estimates.terms.items()}

    @property
    def evaluations(self) -> Int[np.ndarray, " n"]:
        """Returns the number of network evaluations for each image."""
        return np.asarray(self.estimates.evaluations).sum(0)

    @property
    def failed(self) -> Bool[np.ndarray, " n"]:
        """Returns whether a solver did not reach its end for each image, whose `log_prob` is then not a likelihood."""
        first, second = np.asarray(self.estimates.failed)
        return first | second

    @property
    def bits_per_dim(self) -> Interval:
        """Returns the mean of -log2 P over the images, per dimension, with its 95% half-widths.

        Raises:
            UntrustedError: a solve failed or did not converge, or a term is not finite.
        """
        if reasons := self.reasons():
            raise UntrustedError(f"not a likelihood: {' '.join(reasons)}")
        return self.mean()

    def of_first(self, count: int) -> "LogLikelihood":
        """Returns the estimates of the first images alone; fields about the whole measurement are unchanged."""
        estimates = jax.tree.map(lambda values: values[:, :count], self.estimates)
        index, hashes, groups = (values[:count] for values in (self.index, self.hashes, self.groups))
        return replace(self, estimates=estimates, index=index, hashes=hashes, groups=groups)

    def mean(self) -> Interval:
        """Returns the mean without checking whether it is a likelihood: see `reasons`."""
        found = interval(bits_per_dim(self.nats, self.dimensions), self.groups)
        found = replace(found, half_width_monte_carlo=bits_per_dim(self.half_width, self.dimensions))
        return found.with_solver(self.solver.half_width) if self.solver else found

    def reasons(self) -> list[str]:
        """Returns the reasons why the numbers are not likelihoods, as sentences."""
        reasons = []
        if failed := int(self.failed.sum()):
            count = f"{failed} of {len(self.failed)} images"
            reasons.append(
                f"the solver did not reach its end for {count}: give it more likelihood.estimator.max_steps."
            )
        for name, values in self.estimates.terms.items():
            if not np.isfinite(values).all():
                image = int(np.argwhere(~np.isfinite(values))[0, 1])
                reasons.append(f"the {name} term is not finite, first for image {image} of those measured.")
        return reasons or (self.solver.reasons() if self.solver else [])

    def __repr__(self) -> str:
        return f"LogLikelihood({self._headline()}, {self.estimator})"

    def _repr_html_(self) -> str:
        scale = bits_per_dim(1.0, self.dimensions)
        terms = [(f"{name} term", f"{scale * values.mean():.4f} bits/dim") for name, values in self.terms.items()]
        rows = [("estimator", self.estimator), *terms, ("network", f"{self.total_evaluations:,} evaluations")]
        return table(self._headline(), [*rows, *(("reason", reason) for reason in self.reasons())])

    def _headline(self) -> str:
        marked = ", NOT A LIKELIHOOD" if self.reasons() else ""
        return f"{self.mean()} bits/dim on {len(self.index):,} images{marked}"


@precisely
def log_likelihood(
    model: DiffusionModel,
    images: Real[Array | np.ndarray | AbstractPixels, "n h w c"],
    *,
    key: PRNGKeyArray,
    estimator: AbstractEstimator[Any] | None = None,
    condition: Mapping[str, Real[Array | np.ndarray, "..."]] | None = None,
    precision: float = 0.0,
    batch_size: int = 64,
    index: Int[np.ndarray, " m"] | None = None,
    plan: Any = None,
    seconds: float = math.inf,
    kept: Callable[[int], Parts] | None = None,
    progress: Progress = None,
) -> LogLikelihood:
    """Estimates log P of every image, as `vdmkit likelihood` does, without its checks of the model's components.

    All draws depend on an image's index in `images`, not on the batch size or on other images. If a precision is
    requested, the interval remains valid: see `passes_for`.

    Args:
        model: The model.
        images: Levels 0..levels - 1, or float32 if the model's data are continuous.
        key: Random key; the command uses `jax.random.key(seed)`.
        estimator: The estimator; by default the variational bound in continuous time.
        condition: Side information on the images by name, each of shape (n, ...), such as {"label": labels}.
            log P(image | condition) is then estimated. By default the network is not conditioned.
        precision: Requested half-width of the 95% Monte Carlo interval of the mean, bits/dim; 0 for the estimator's own
            number of draws.
        batch_size: Number of images in a batch.
        index: Indices of the images to measure; by default all.
        plan: One of the two plans of `plan_pair`, for a difference; by default a plan for this model alone.
        seconds: Time limit; the result then covers the images measured so far, a random sample.
        kept: Returns the store of the batches of pass 0, 1, ...; stored batches are not measured again.
        progress: None, "auto" for a bar on standard error, or an object like `vdmkit.progress.Meter`.

    Raises:
        DataError: the images differ from the model's in shape or levels, or are fewer than 2; an index is out of range
            or repeated.
        RecipeError: the schedule is not increasing, the estimator cannot plan for a precision, or an argument is
            invalid.
    """
    check_instance("model", model, DiffusionModel)
    check_instance("estimator", estimator, AbstractEstimator, optional=True)
    check_integer("batch_size", batch_size)
    check_not_negative("precision", precision)
    pixels = images if isinstance(images, AbstractPixels) else np.asarray(images)
    estimator = estimator or VariationalBound()
    check_pixels(model, pixels)
    check_increasing(model.schedule)
    conditions = check_condition(condition, len(pixels))
    index = np.arange(len(pixels)) if index is None else check_index(np.asarray(index), len(pixels))
    chosen = select(pixels, index)
    check_count(chosen)
    key, wanted = fold_purpose(key, "likelihood"), precision * model.dimensions * math.log(2)
    first_key = jax.random.fold_in(key, 0)
    given = as_arguments(estimator, rows_of(conditions, index))
    if plan is None:
        plan = estimator.plan(model, chosen, precision=wanted, key=fold_purpose(first_key, "plan"), **given)
    plan = as_first_plan(plan)
    # In random order, so that an interrupted pass is a random sample even of a sorted test set.
    order = index[np.random.default_rng(0).permutation(len(index))]

    def measured(stage: int, count: int = 1) -> Estimates:
        what = f"likelihood, pass {stage + 1} of {count}" if stage else "likelihood"
        calls = calls_of(batch_size, len(index))
        of_stage = {"key": jax.random.fold_in(key, stage), "kept": kept and kept(stage), "seconds": seconds}
        of_stage["condition"] = conditions
        with track(progress, what, 2 * estimator.rounds(plan) * calls) as advance:
            return pass_over(estimator, model, pixels, order, plan, batch_size=batch_size, on_round=advance, **of_stage)

    first = measured(0)
    half_width = interval(np.asarray(first.nats)).half_width_monte_carlo
    count = passes_for(half_width, wanted)
    total = reduce(_sum, (measured(stage, count) for stage in range(1, count)), first)
    done = order[: first.failed.shape[1]]
    places = np.argsort(done)
    averaged = {name: values / count for name, values in total.terms.items()}
    sorted_ = jax.tree.map(lambda a: np.asarray(a)[:, places], Estimates(averaged, total.evaluations, total.failed))
    solver = solver_error(estimator, model, pixels, conditions, done[places], first_key, progress)
    evaluations = int(np.sum(total.evaluations)) + estimator.evaluations_of(plan)
    hashes = image_hashes(select(pixels, done[places]))
    return LogLikelihood(
        estimates=sorted_,
        index=done[places],
        hashes=hashes,
        groups=np.unique(hashes, return_inverse=True)[1].reshape(-1),
        half_width=half_width / math.sqrt(count),
        total_evaluations=evaluations + (solver.evaluations if solver else 0),
        solver=solver,
        dimensions=model.dimensions,
        estimator=estimator.describe(model.observation.levels),
        arithmetic=arithmetic(),
    )


def _sum(a: Estimates, b: Estimates) -> Estimates:
    terms = {name: a.terms[name] + b.terms[name] for name in a.terms}
    return Estimates(terms, a.evaluations + b.evaluations, a.failed | b.failed)


def solver_error(
    estimator: AbstractEstimator[Any],
    model: DiffusionModel,
    pixels: Pixels,
    condition: Conditions,
    index: Int[np.ndarray, " m"],
    key: PRNGKeyArray,
    progress: Progress = None,
) -> SolverError | None:
    """Returns the error of an estimator's solver on a few of the images in `index`, or None without a solver."""
    if type(estimator).discretisation_error is AbstractEstimator.discretisation_error:
        return None
    few = index[sample_of(len(index), estimator.images_solved_again)]
    conditions = as_arguments(estimator, rows_of(condition, few))
    images, numbers = jnp.asarray(pixels[few]), jnp.asarray(few, jnp.int32)
    with track(progress, f"error of the solver on {len(few)} images", 1) as advance:
        found = estimator.discretisation_error(model, images, numbers, key=key, **conditions)
        advance()
    return found and SolverError(bits_per_dim(found[0], model.dimensions), found[1])
