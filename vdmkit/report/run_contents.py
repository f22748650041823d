# SPDX-License-Identifier: Apache-2.0
"""Contents of a run's report: its files, read without the model, plugins or JAX, and a preview of its model."""

import json
import math
import operator
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray, Real

from vdmkit.data.identity import check_fits
from vdmkit.data.sources import Images, Split, select
from vdmkit.errors import CheckpointError, DamageWarning, VdmkitError, in_one_line
from vdmkit.io import (
    MAX_JSON,
    TooMuch,
    are_intact,
    check_depth,
    check_seal,
    has_sha256,
    not_a_folder,
    read_at_most,
    read_json,
    read_measured,
)
from vdmkit.likelihood.intervals import Interval, interval
from vdmkit.losses.bound import bits_per_dim
from vdmkit.metrics.features import nearest
from vdmkit.model import DiffusionModel
from vdmkit.predictions import Estimate
from vdmkit.progress import Progress
from vdmkit.recipes.build import build_sampling
from vdmkit.recipes.document import parse_toml, read_toml
from vdmkit.recipes.schema import Recipe, changed_keys, drawn_by, leaves
from vdmkit.report.metrics import intact_lines, read_metrics
from vdmkit.sampling.sample import draw_samples, fit_into
from vdmkit.schedules import gamma_and_derivative
from vdmkit.training.checkpoints import check_unchanged, what_is_damaged

_RESOLVED, _MANIFEST, _GIVEN = "resolved.toml", "manifest.json", "recipe.toml"  # the first marks a run folder
_LINES = 2000  # longest metrics.jsonl that is shown in full
_REDO = "Delete it, or measure it again."


@dataclass(frozen=True)
class RunContents:
    """The files of a run folder, and a preview of its model.

    Attributes:
        path: The folder.
        name: The name of the run on the page.
        texts: The JSON files as text, by their path in the folder.
        preview: Preview of the model and its data; None if the model was not loaded.
        reason: Why the model could not be loaded.
    """

    path: Path
    name: str
    texts: Mapping[str, str]
    preview: "Preview | None" = None
    reason: str = ""

    def json(self, name: str) -> Any:
        """Returns the contents of a JSON file, or None if there is no such file."""
        return json.loads(self.texts[name]) if name in self.texts else None

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """Returns the resolved recipe's values by dotted key."""
        return dict(leaves(parse_toml(read_toml(self.path / _RESOLVED))))

    @property
    def given_recipe(self) -> str:
        """Returns the recipe as the user wrote it, or '', with a DamageWarning, if the file has changed."""
        path, sha256 = self.path / _GIVEN, self.manifest.get("kept", {}).get(_GIVEN)
        if sha256 and not has_sha256(path, sha256):
            _warn_left_out(path, "changed or missing")
            return ""
        return _text(path)

    @property
    def manifest(self) -> dict[str, Any]:
        """Returns manifest.json."""
        return {"newest_checkpoint": None, **self.json(_MANIFEST)}

    @property
    def dimensions(self) -> int:
        """Returns the number of values in an image."""
        return count_values(self.manifest["shape"])

    @cached_property
    def metrics(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Returns the steps and values of each logged metric by name."""
        return read_metrics(self.path)

    @property
    def metrics_text(self) -> str:
        """Returns the lines of metrics.jsonl, or every n-th line of a long file below a note."""
        lines = [line.strip() for line in intact_lines(self.path)]
        every = -(-len(lines) // _LINES) or 1
        few = [] if every == 1 else [f"# every {every}th of {len(lines):,} lines"]
        return "\n".join([*few, *lines[::every]])

    @cached_property
    def likelihoods(self) -> list["Result"]:
        """Returns the measured likelihoods, sorted by name."""
        names = sorted(Path(name) for name in self.texts if name.startswith("likelihood/"))
        reports = [(name, self.json(str(name))) for name in names]
        return [
            Result(name.stem, report, _arrays((self.path / name).with_suffix(".npz")))
            for name, report in reports
            if "bpd" in report
        ]

    @property
    def report(self) -> dict[str, Any] | None:
        """Returns the report of the last evaluation, or else of a likelihood; None if there is neither."""
        return self.json("evaluation.json") or next((one.report for one in self.likelihoods), None)

    def command(self, *words: str) -> list[str]:
        """Returns a vdmkit command in which the word "RUN" is replaced by the path of the run folder."""
        return ["vdmkit", *(str(self.path) if word == "RUN" else word for word in words)]


def read_contents(path: Path) -> RunContents:
    """Reads a run folder.

    Raises:
        CheckpointError: the folder is not a run, or one of its JSON files is damaged.
    """
    if reason := not_a_folder(path):
        raise CheckpointError(f"{path}: {reason}. Give the folder of a run.")
    if not (path / _RESOLVED).is_file():
        raise CheckpointError(f"{path}: not a run folder: it has no {_RESOLVED}.")
    if not (path / _MANIFEST).is_file():
        raise CheckpointError(f"{path}: has no {_MANIFEST}. Put a copy of it back, or run the recipe again.")
    try:
        manifest = read_json(path / _MANIFEST, dict[str, Any])
        check_seal(manifest)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path / _MANIFEST}: cannot be read ({error}). Put a copy of it back.") from error
    kept = manifest.get("kept")
    if isinstance(kept, dict) and (sha256 := kept.get(_RESOLVED)):
        check_unchanged(path / _RESOLVED, sha256, "Run the recipe again, which writes a new one.")
    damaged = set[Path]()
    for folder in path.glob("checkpoints/[0-9]*"):
        if reason := what_is_damaged(folder, ".json"):
            _warn_left_out(folder, reason)
            damaged.add(folder)
    files = sorted(one for one in path.rglob("*.json") if damaged.isdisjoint(one.parents))
    return RunContents(path, path.resolve().name, {str(one.relative_to(path)): _checked_json(one) for one in files})


def count_values(shape: Any) -> int:
    """Returns the number of values in an image of this shape. Raises TypeError or ValueError if it is not a shape."""
    height, width, channels = map(operator.index, shape)  # Python would also multiply a list or a string
    return height * width * channels


def _checked_json(path: Path) -> str:
    text = _text(path)
    try:
        found = json.loads(text)
        check_depth(found)
    except (ValueError, RecursionError, TooMuch) as error:
        raise CheckpointError(f"{path}: is not JSON that vdmkit writes ({error}). {_REDO}") from error
    if isinstance(found, dict) and not are_intact(found):
        raise CheckpointError(f"{path}: its numbers are not those that were written. {_REDO}")
    return text


def _text(path: Path) -> str:
    try:
        return read_at_most(path, MAX_JSON).decode(errors="replace") if path.is_file() else ""
    except TooMuch as error:
        raise CheckpointError(f"{path}: {error}. {_REDO}") from error


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        _warn_left_out(path, "missing")
        return {}
    try:
        return read_measured(path)
    except Exception as error:  # of many types
        raise CheckpointError(f"{path}: damaged ({in_one_line(error)}). {_REDO}") from error


def _warn_left_out(path: Path, reason: str) -> None:
    warnings.warn(f"{path}: {reason}, and left out.", DamageWarning, stacklevel=2)


@dataclass(frozen=True)
class Result:
    """A measured likelihood: its report as JSON, and the arrays with a value for each image, if they were kept."""

    name: str
    report: dict[str, Any]
    arrays: Mapping[str, np.ndarray]


def best_pairs(pairs: Iterable[tuple[Result, Result]], dimensions: int) -> list[tuple[Result, Result, Interval]]:
    """Returns comparable pairs and their differences: per estimator and weights, the pair with the most evaluations.

    Two results of one `vdmkit compare` are preferred, because they share their noise. Choosing by the estimated errors
    would bias these downwards.
    """

    def effort(pair: tuple[Result, Result]) -> tuple[bool, int]:
        first, second = (result.report for result in pair)
        shared = first.get("compared_by") is not None and first["compared_by"] == second.get("compared_by")
        return shared, first["evaluations"] + second["evaluations"]

    found: dict[tuple[str, ...], tuple[Result, Result]] = {}
    for pair in pairs:
        if are_comparable(*pair):
            first, second = (result.report for result in pair)
            kind = first["estimator"], first["weights"], second["weights"]
            found[kind] = max(found.get(kind, pair), pair, key=effort)
    return [(*pair, difference(*pair, dimensions)) for pair in found.values()]


def are_comparable(first: Result, second: Result) -> bool:
    """Returns whether two results are trusted likelihoods of the same distinct images by the same estimator."""
    one, other = first.report, second.report
    same = all(one[key] == other[key] for key in ("sha256", "estimator", "label", "images", "levels"))
    trusted = all(report["trusted"] and report["images"] == report["distinct_images"] for report in (one, other))
    kept = all("index" in result.arrays for result in (first, second))
    return same and trusted and kept and np.array_equal(first.arrays["index"], second.arrays["index"])


def difference(first: Result, second: Result, dimensions: int) -> Interval:
    """Returns first minus second in bits/dim, as `vdmkit.compare` does, from the arrays of both."""
    nats = [sum(array for name, array in one.arrays.items() if name.startswith("term_")) for one in (first, second)]
    found = interval(bits_per_dim(np.asarray(nats[0] - nats[1], np.float64), dimensions))
    return found.with_solver(math.fsum(_solver_error(one.report) for one in (first, second)))


def _solver_error(report: dict[str, Any]) -> float:
    if report["discretisation"] is None:
        return 0.0
    return max(0.0, report["bpd_high"] - report["bpd"] - report["half_width_monte_carlo"])


SAMPLES = 8
_SCHEDULE_POINTS, _CHAIN_STEPS = 201, 8
_COMPARED = 100_000  # training images


@dataclass(frozen=True)
class Preview:
    """Preview of a model and its data.

    Attributes:
        step: Step of the checkpoint.
        changed: Recipe keys whose values are not vdmkit's defaults.
        levels: Number of levels of the images.
        schedule: t, gamma(t) and its derivative.
        samples: Samples, or None if they could not be drawn.
        test: The test images, or None if they are missing.
        reasons: Why something could not be shown, in sentences.
    """

    step: int
    changed: frozenset[str]
    levels: int
    schedule: Float[np.ndarray, "3 n"]
    samples: "Samples | None" = None
    test: Images | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Samples:
    """A few samples, the training images nearest to them, and the chain that leads to the first.

    `chain` holds gamma, z and x_hat at some of its steps; `distance` is the root mean square difference in levels.
    Every `every`-th training image was compared.
    """

    images: Real[np.ndarray, "n h w c"]
    chain: list[tuple[float, Float[np.ndarray, "h w c"], Float[np.ndarray, "h w c"]]]
    how: str
    steps: int
    nearest: Real[np.ndarray, "n h w c"] | None = None
    distance: Float[np.ndarray, " n"] | None = None
    every: int = 1


def preview_model(
    model: DiffusionModel,
    recipe: Recipe,
    load: Callable[[Split], Images],
    *,
    step: int,
    key: PRNGKeyArray,
    progress: Progress = None,
) -> Preview:
    """Computes the preview of a model and its data. Failures are listed as reasons, and the rest is still shown.

    Args:
        model: The model, with the weights to preview.
        recipe: Its recipe, whose settings of sampling are used within `sampling.minutes`.
        load: A function that loads training or test images.
        step: Step of the checkpoint, for the record.
        key: Random key of the samples.
        progress: None, "auto" for a bar on standard error, or an object like `vdmkit.progress._track.Meter`.
    """
    t = np.linspace(0, 1, _SCHEDULE_POINTS)
    gamma, slope = jax.vmap(lambda t: gamma_and_derivative(model.schedule, t))(jnp.asarray(t, jnp.float32))
    schedule = np.stack([t, np.asarray(gamma, np.float64), np.asarray(slope, np.float64)])
    found = Preview(step, frozenset(changed_keys(recipe)), model.observation.levels, schedule)
    try:
        samples = _draw(model, recipe, key, progress)
        found = replace(found, samples=samples)
        test = load("test")
        check_fits(model, test)
        found = replace(found, test=test)
        train = load("train")
        check_fits(model, train)
    except VdmkitError as error:
        return replace(found, reasons=(str(error),))
    every = -(-len(train.pixels) // _COMPARED)  # compares evenly spaced images of a large training set
    some = select(train.pixels, np.arange(0, len(train.pixels), every))
    index, distance = nearest(samples.images, some)
    return replace(found, samples=replace(samples, nearest=some[index], distance=distance, every=every))


def _draw(model: DiffusionModel, recipe: Recipe, key: PRNGKeyArray, progress: Progress) -> Samples:
    config = build_sampling(recipe)
    count, steps = fit_into(model, config, SAMPLES, seconds=60 * recipe.sampling.minutes)
    config = replace(config, steps=steps)
    gammas = np.asarray(config.gammas(model.schedule), np.float64).tolist()
    estimates = list[tuple[np.ndarray, np.ndarray]]()  # x_hat and eps_hat of the first sample

    def keep(estimate: Estimate) -> None:
        estimates.append((np.asarray(estimate.x_hat[0]), np.asarray(estimate.eps_hat[0])))

    images = draw_samples(model, config, count, key=key, progress=progress, on_step=keep)
    chain = []
    for i in np.unique(np.linspace(0, steps - 1, _CHAIN_STEPS).round().astype(int)).tolist():
        alpha, sigma = (float(of(jnp.asarray(gammas[i], jnp.float32))) for of in (model.path.alpha, model.path.sigma))
        x_hat, eps_hat = estimates[i]
        chain.append((gammas[i], alpha * x_hat + sigma * eps_hat, x_hat))
    return Samples(images, chain, str(replace(drawn_by(recipe), steps=steps)), steps)
