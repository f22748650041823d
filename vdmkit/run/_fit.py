# SPDX-License-Identifier: Apache-2.0
"""A schedule fitted to a trained model, whose network stays as it is."""

from dataclasses import dataclass, replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vdmkit.choice import Choice
from vdmkit.errors import RecipeError
from vdmkit.model import DiffusionModel
from vdmkit.noise import Pinned
from vdmkit.objective import bits_per_dim
from vdmkit.profile import Curve, best_rate, fine, rate_of, variance
from vdmkit.recipe import Recipe
from vdmkit.run._convert import save_as, started_anew
from vdmkit.run._folder import RunFolder
from vdmkit.run._load import TrainedRun

_PIECES, _FLOOR = 64, 0.01


@dataclass(frozen=True)
class Fit:
    """Variance of one draw of the bound's estimate, (bits/dim)^2, on test images: before, after, and the least."""

    before: float
    after: float
    least: float

    def __str__(self) -> str:
        return f"variance {self.before:.4f} before, {self.after:.4f} after, {self.least:.4f} at best, (bits/dim)^2"


def check_fit(run: TrainedRun, folder: RunFolder) -> None:
    """Before what takes minutes.

    Raises:
        CheckpointError: the folder is in use.
        RecipeError: the run is of T steps, whose bound would change.
    """
    folder.check_new("--fit")
    if run.recipe.objective.steps:
        raise RecipeError(f"--fit: the run is of T = {run.recipe.objective.steps} steps, whose bound would change.")


def fit_schedule(run: TrainedRun, train: Curve, test: Curve, folder: RunFolder) -> Fit:
    """Make `folder` a run of the same model with a schedule of straight pieces, fitted on training images.

    Between the same ends, gamma' ~ 1 / sqrt(M_2): see `vdmkit.profile`. The bound in continuous time is the same.

    Raises:
        CheckpointError, RecipeError: as `check_fit`.
    """
    check_fit(run, folder)
    before = run.model("ema").schedule
    schedule = fitted(train, before.gamma_min, before.gamma_max)
    model, ema = (_with(old, schedule) for old in (run.state.model, run.state.ema_model))
    recipe = _recipe(run.recipe, schedule)
    state = started_anew(recipe, model, ema, run.state.step)
    save_as(run, recipe, state, recipe.data.build().load("train"), folder, f"Schedule fitted to {run.folder.path.name}")
    unit = float(bits_per_dim(1.0, model.dimensions)) ** 2
    rates = (rate_of(before, fine(test)), rate_of(schedule, fine(test)), best_rate(test))
    return Fit(*(unit * variance(test, rate) for rate in rates))


def fitted(curve: Curve, gamma_min: float, gamma_max: float) -> Pinned:
    """The best schedule of straight pieces between the ends of the curve. Networks are told of the other two."""
    shares = np.diff(_knots(curve)) / (curve.gamma[-1] - curve.gamma[0])
    logits = np.log(np.maximum(shares - _FLOOR / _PIECES, 1e-6))
    pinned = Choice("schedule", "pinned", _params(gamma_min, gamma_max)).build(key=None)
    ends = jnp.asarray(curve.gamma[[0, -1]], float)
    where = lambda p: (p.interior.logits, p.learned_ends)  # noqa: E731
    return eqx.tree_at(where, pinned, (jnp.asarray(logits, float), ends))


def _knots(curve: Curve) -> Float[np.ndarray, " n_plus_1"]:
    """gamma at even times."""
    gamma, rate = fine(curve), best_rate(curve)
    time = np.concatenate([[0], np.cumsum(np.diff(gamma) * (1 / rate[:-1] + 1 / rate[1:]) / 2)])
    return np.interp(np.arange(_PIECES + 1) / _PIECES, time / time[-1], gamma)


def _params(gamma_min: float, gamma_max: float) -> dict[str, object]:
    ends = {"gamma_min": gamma_min, "gamma_max": gamma_max}
    interior = Choice("schedule", "piecewise_linear", {**ends, "pieces": _PIECES, "floor": _FLOOR})
    return {"interior": interior, **ends, "ends": "learned"}


def _with(model: DiffusionModel, schedule: Pinned) -> DiffusionModel:
    return eqx.tree_at(lambda m: m.schedule, model, schedule)


def _recipe(trained: Recipe, schedule: Pinned) -> Recipe:
    choice = Choice("schedule", "pinned", _params(schedule.gamma_min, schedule.gamma_max))
    return replace(trained, model=replace(trained.model, schedule=choice))
