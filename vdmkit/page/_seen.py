# SPDX-License-Identifier: Apache-2.0
"""What a page shows of a run beyond its files: the schedule, some samples and their chain, and the run's images."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray, Real

from vdmkit.data._comparable import check_fits
from vdmkit.data._pixels import select
from vdmkit.data._source import Images, Split
from vdmkit.errors import VdmkitError
from vdmkit.model import DiffusionModel
from vdmkit.predictions import Estimate
from vdmkit.progress import Progress
from vdmkit.quality._nearest import nearest
from vdmkit.recipes.build import build_sampling
from vdmkit.recipes.schema import Recipe, changed_keys, drawn_by
from vdmkit.sampling.sample import draw_samples, fit_into
from vdmkit.schedules import gamma_and_derivative

SAMPLES = 8
_POINTS, _SHOWN = 201, 8  # of the schedule; of the chain
_COMPARED = 100_000  # training images


@dataclass(frozen=True)
class Samples:
    """A few samples, the training images nearest to them, and the chain that leads to the first.

    `chain` holds gamma, z and x_hat at some of its steps; `distance` is the root mean square difference in levels.
    One in `every` training images was compared.
    """

    images: Real[np.ndarray, "n h w c"]
    chain: list[tuple[float, Float[np.ndarray, "h w c"], Float[np.ndarray, "h w c"]]]
    how: str
    steps: int
    nearest: Real[np.ndarray, "n h w c"] | None = None
    distance: Float[np.ndarray, " n"] | None = None
    every: int = 1


@dataclass(frozen=True)
class Seen:
    """What a model and its data show.

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
    samples: Samples | None = None
    test: Images | None = None
    reasons: tuple[str, ...] = field(default_factory=tuple)


def look(
    model: DiffusionModel,
    recipe: Recipe,
    load: Callable[[Split], Images],
    *,
    step: int,
    key: PRNGKeyArray,
    progress: Progress = None,
) -> Seen:
    """Returns what a model and its data show. What fails is named among the reasons, so that the rest is shown.

    Args:
        model: The model, with the weights to look at.
        recipe: Its recipe, whose settings of sampling are used within `sampling.minutes`.
        load: A function that loads training or test images.
        step: Step of the checkpoint, for the record.
        key: Random key of the samples.
        progress: None, "auto" for a bar on standard error, or an object like `vdmkit.progress.Meter`.
    """
    seen = Seen(step, frozenset(changed_keys(recipe)), model.observation.levels, _schedule(model))
    try:
        seen = replace(seen, samples=_samples(model, recipe, key, progress))
        seen = replace(seen, test=_fitting(model, load("test")))
        train = _fitting(model, load("train"))
    except VdmkitError as error:
        return replace(seen, reasons=(str(error),))
    return replace(seen, samples=seen.samples and _beside(seen.samples, train))


def _fitting(model: DiffusionModel, images: Images) -> Images:
    """Returns images, if they are like those of the model."""
    check_fits(model, images)
    return images


def _schedule(model: DiffusionModel) -> Float[np.ndarray, "3 n"]:
    t = np.linspace(0, 1, _POINTS)
    gamma, slope = jax.vmap(lambda t: gamma_and_derivative(model.schedule, t))(jnp.asarray(t, jnp.float32))
    return np.stack([t, np.asarray(gamma, np.float64), np.asarray(slope, np.float64)])


def _samples(model: DiffusionModel, recipe: Recipe, key: PRNGKeyArray, progress: Progress) -> Samples:
    config = build_sampling(recipe)
    count, steps = fit_into(model, config, SAMPLES, seconds=60 * recipe.sampling.minutes)
    config = replace(config, steps=steps)
    gammas = np.asarray(config.gammas(model.schedule), np.float64).tolist()
    estimates = list[tuple[np.ndarray, np.ndarray]]()

    def keep(estimate: Estimate) -> None:
        estimates.append((np.asarray(estimate.x_hat[0]), np.asarray(estimate.eps_hat[0])))

    images = draw_samples(model, config, count, key=key, progress=progress, on_step=keep)
    shown = np.unique(np.linspace(0, steps - 1, _SHOWN).round().astype(int))
    chain = [(gammas[i], _latent(model, gammas[i], *estimates[i]), estimates[i][0]) for i in shown.tolist()]
    how = str(replace(drawn_by(recipe), steps=steps))
    return Samples(images, chain, how, steps)


def _latent(model: DiffusionModel, gamma: float, x_hat: np.ndarray, eps_hat: np.ndarray) -> np.ndarray:
    """Returns z = alpha x_hat + sigma eps_hat."""
    alpha, sigma = (float(of(jnp.asarray(gamma, jnp.float32))) for of in (model.path.alpha, model.path.sigma))
    return alpha * x_hat + sigma * eps_hat


def _beside(samples: Samples, train: Images) -> Samples:
    """Adds the nearest training images; of very many, evenly spaced ones are compared."""
    every = -(-len(train.pixels) // _COMPARED)
    some = select(train.pixels, np.arange(0, len(train.pixels), every))
    index, distance = nearest(samples.images, some)
    return replace(samples, nearest=some[index], distance=distance, every=every)
