# SPDX-License-Identifier: Apache-2.0
"""The codec of a model, from the steps of a bound or from a trained run, and the machine's fingerprint."""

import hashlib
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge
from pydantic import BaseModel, ValidationError

from vdmkit.devices import arithmetic, packages
from vdmkit.errors import CodecError, RecipeError
from vdmkit.experiments import RunFolder
from vdmkit.experiments.load import Run
from vdmkit.likelihood import VariationalBound
from vdmkit.model import DiffusionModel
from vdmkit.recipes.build import build_estimator, shapes_of_estimate
from vdmkit.registry import Choice
from vdmkit.reverse import AbstractGaussianKernel, MixtureKernel
from vdmkit.schedules import ends_of
from vdmkit_codec.codec import Codec, Profile, codec_of
from vdmkit_codec.container import Reader
from vdmkit_codec.layers import Layers, whole
from vdmkit_codec.network import narrows

MANY = 250  # default steps of the Gaussian kernel
_WIDTH = 0.8  # of the mixture's steps, in gamma
_HIGHEST = math.log(2)  # gamma at a signal-to-noise ratio of 1/2, beyond which one step is enough


@dataclass(frozen=True)
class Coding:
    """A codec, the estimator of the bound that is its expected rate, and the checkpoint that it uses."""

    codec: Codec
    bound: VariationalBound
    checkpoint: dict[str, Any]

    def header(self, chunk: int) -> dict[str, Any]:
        """Returns the header of a file with `chunk` images in a chunk."""
        return self.codec.header(fingerprint()) | {"chunk": chunk} | self.checkpoint

    def __str__(self) -> str:
        return self.bound.describe(self.codec.layers.levels).removeprefix("variational bound, ")


def make_coding(
    model: DiffusionModel,
    bound: VariationalBound,
    *,
    profile: Profile,
    group: int,
    seed: int,
    checkpoint: dict[str, Any],
) -> Coding:
    """Returns the codec of a model whose expected rate is a bound of T steps.

    Args:
        model: The model.
        bound: The estimator of the bound.
        profile: "portable" or "host", see `Codec`.
        group: Number of images in a call of the network.
        seed: Seed of the initial bits of a chunk.
        checkpoint: The parameters' step and weights, for the header of files.

    Raises:
        RecipeError: the bound has no steps, the data have no levels, the model does not give level probabilities, the
            kernel is neither Gaussian nor the mixture, or the profile is portable and the network does not compute in
            float64.
    """
    if not model.observation.levels:
        raise RecipeError("these data are continuous: only images with levels can be compressed.")
    at = jnp.zeros(model.shape), jnp.zeros(())
    eqx.filter_eval_shape(lambda: model.observation.log_probs(*at, lambda: model.estimate(*at)))
    if profile == "portable" and narrows(model):
        raise RecipeError(
            "this model computes in less than float64 where float64 goes in, as jax.nn.dot_product_attention does: "
            "its files would not be portable. Use --profile host."
        )
    if not bound.steps:
        raise RecipeError("a codec takes steps: the estimator must be the bound, with a number of steps.")
    return Coding(Codec(model, layers_of(model, bound), profile, group, seed=seed), bound, checkpoint)


def default_bound(model: DiffusionModel, steps: int | None = None) -> VariationalBound:
    """Returns the bound of the mixture kernel if the model gives probabilities of levels, else of the Gaussian one.

    The mixture kernel has the steps of `mixture_gammas`; the Gaussian one has by default 250 steps, even in gamma.
    """
    nothing = jnp.zeros(model.shape)
    if eqx.filter_eval_shape(lambda: model.denoise(nothing, jnp.zeros(()), {}).log_probs) is None:
        kernel, grid = Choice("kernel", "gaussian"), Choice("grid", "gamma")
        return VariationalBound(steps=steps or MANY, kernel=kernel, grid=grid)
    gammas = mixture_gammas(model, steps)
    grid = Choice("grid", "gammas", {"gammas": gammas})
    return VariationalBound(steps=len(gammas) - 1, kernel=Choice("kernel", "mixture"), grid=grid)


def mixture_gammas(model: DiffusionModel, steps: int | None = None) -> tuple[float, ...]:
    """Returns the increasing gammas of the mixture kernel's steps, by default with a spacing of about 0.8.

    They are even from the gamma at which the noise is the distance between levels to a signal-to-noise ratio of 1/2,
    with one step to either end of the schedule: with less noise the level is nearly known, with more noise nearly
    nothing is. If these exceed the schedule, all steps are even.
    """
    first, last = (float(gamma) for gamma in ends_of(model.schedule))
    low, high = max(first, 2 * math.log(model.observation.spacing)), min(last, _HIGHEST)
    outer = (low > first) + (high < last)
    inner = max(1, round((high - low) / _WIDTH)) if steps is None else steps - outer
    if high <= low or inner < 1:
        return tuple(np.linspace(first, last, inner + outer + 1).tolist())
    return tuple(np.unique([first, *np.linspace(low, high, inner + 1), last]).tolist())


def layers_of(model: DiffusionModel, bound: VariationalBound) -> Layers:
    """Returns the steps of a bound as layers of a codec."""
    gammas, kernel = whole(bound.gammas(model.schedule)), bound.kernel
    of_levels = (model.observation.levels, model.observation.spacing)
    if isinstance(kernel, MixtureKernel):
        return Layers(gammas, *of_levels, mixture=True)
    if not isinstance(kernel, AbstractGaussianKernel):
        raise RecipeError(f"kernel {type(kernel).__name__}: a codec needs a Gaussian kernel, or the mixture.")
    errors = np.asarray(jax.vmap(kernel.error)(jnp.asarray(bound.gammas(model.schedule)[1:], float)), np.float64)
    return Layers(gammas, *of_levels, log_errors=whole(np.log(errors)) if (errors > 0).all() else ())


def fingerprint() -> dict[str, str]:
    """Returns the facts on which the last bits of a network's outputs depend on this machine."""
    made_with, computed = packages(), arithmetic()
    flags = [os.environ.get("XLA_FLAGS", "")]
    flags += [f"matmul_precision={computed.matmul_precision}"] if computed.matmul_precision != "default" else []
    versions = ", ".join(f"{name} {made_with[name]}" for name in ("jax", "jaxlib", "numpy"))
    return {
        "versions": versions,
        "device": computed.device,
        "processor": _processor(),
        "flags": " ".join(filter(None, flags)),
    }


def _processor() -> str:
    """Returns the kind of processor, and a hash of its features."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    lines = sorted({line for line in text.splitlines() if line.startswith(("model name", "flags", "Features"))})
    return f"{platform.machine()} {hashlib.sha256(chr(10).join(lines).encode()).hexdigest()[:8]}"


_BOUND = "likelihood.estimator."


class MadeWith(BaseModel):
    """The checkpoint in a file's header."""

    step: Annotated[int, Ge(0)]
    weights: Literal["ema", "raw"]


def with_steps_of_codec(run: Run, overrides: Sequence[str]) -> Run:
    """Returns the run with the likelihood of its recipe set to a bound of T steps.

    Steps that `overrides` do not set are those of training. For training in continuous time they are those of
    `mixture_gammas` for the kernel mixture, the default if the model gives probabilities of levels, and otherwise even
    in gamma.
    """
    filled = {"name": "bound"}
    if not run.recipe.objective.steps:
        model = run.weighted(run.recipe.likelihood.weights)
        mixes = shapes_of_estimate(model.prediction, model.shape).log_probs is not None
        filled |= {"kernel": "mixture" if mixes else "gaussian", "steps": str(MANY), "grid": "gamma"}
        bound = _filled(run, filled, overrides).recipe.likelihood.estimator
        if bound.params["kernel"].name == "mixture":
            steps = bound.params["steps"] if _is_set(overrides, "steps") else None
            gammas = mixture_gammas(model, steps)
            filled |= {"steps": str(len(gammas) - 1), "grid": f'{{name="gammas", gammas={list(gammas)}}}'}
    return _filled(run, filled, overrides)


def _filled(run: Run, filled: Mapping[str, str], overrides: Sequence[str]) -> Run:
    """Returns the run with these keys of the estimator, except those that `overrides` set."""
    others = [f"{_BOUND}{key}={value}" for key, value in filled.items() if not _is_set(overrides, key)]
    return replace(run, recipe=run.read_recipe([*others, *overrides]))


def _is_set(overrides: Sequence[str], key: str) -> bool:
    return any(one.partition("=")[0].strip() in (_BOUND + key, f"{_BOUND}{key}.name") for one in overrides)


def coding_of(run: Run, *, profile: Profile, group: int) -> Coding:
    """Returns the codec of the recipe's bound of T steps, with the parameters that likelihoods use.

    Raises:
        RecipeError: as in `make_coding`.
    """
    weights = run.recipe.likelihood.weights
    model = run.weighted(weights)
    estimator = build_estimator(run.recipe, model.observation.levels)
    if not isinstance(estimator, VariationalBound):
        raise RecipeError("a codec takes steps: the estimator must be the bound, with a number of steps.")
    checkpoint = {"step": run.step, "weights": weights}
    return make_coding(model, estimator, profile=profile, group=group, seed=run.recipe.seed, checkpoint=checkpoint)


def codec_of_file(run: Run, reader: Reader) -> Codec:
    """Returns the codec of a file. Raises CodecError if the file needs a different model or machine."""
    made = made_with(reader)
    try:
        return codec_of(reader.header, run.weighted(made.weights), fingerprint())
    except CodecError as error:
        words = f"it was made with the {made.weights} parameters of step {made.step:,}"
        raise CodecError(f"{reader.path}: {error}; {words}, not of step {run.step:,} of {run.folder.path}.") from None


def made_with(reader: Reader) -> MadeWith:
    """Returns the step and the weights in a file's header. Raises CodecError if they are missing."""
    try:
        return MadeWith.model_validate(reader.header)
    except ValidationError as error:
        raise CodecError(f"{reader.path}: its header does not name the checkpoint that it was made with.") from error


def step_of_file(reader: Reader, folder: RunFolder) -> int | None:
    """Returns the step of the checkpoint that a file was made with, or None if the run no longer has it."""
    step = made_with(reader).step
    return step if (folder.checkpoints / str(step)).is_dir() else None
