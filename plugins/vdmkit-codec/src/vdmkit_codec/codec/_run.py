# SPDX-License-Identifier: Apache-2.0
"""The codec of a trained run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from vdmkit.errors import CodecError, RecipeError
from vdmkit.experiments import Run, RunFolder
from vdmkit.likelihood import VariationalBound
from vdmkit.recipes.build import build_estimator, shapes_of_estimate
from vdmkit_codec.codec._coding import MANY, Coding, fingerprint, make_coding, mixture_gammas
from vdmkit_codec.codec._decompress import made_with
from vdmkit_codec.compression import Codec, Profile, codec_of
from vdmkit_codec.container import Reader

_BOUND = "likelihood.estimator."


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
            steps = bound.params["steps"] if _says(overrides, "steps") else None
            gammas = mixture_gammas(model, steps)
            filled |= {"steps": str(len(gammas) - 1), "grid": f'{{name="gammas", gammas={list(gammas)}}}'}
    return _filled(run, filled, overrides)


def _filled(run: Run, filled: Mapping[str, str], overrides: Sequence[str]) -> Run:
    """Returns the run with these keys of the estimator, except those that `overrides` set."""
    others = [f"{_BOUND}{key}={value}" for key, value in filled.items() if not _says(overrides, key)]
    return replace(run, recipe=run.read_recipe([*others, *overrides]))


def _says(overrides: Sequence[str], key: str) -> bool:
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
    """Returns the codec of a file. Raises CodecError if the file needs another model or another machine."""
    made = made_with(reader)
    try:
        return codec_of(reader.header, run.weighted(made.weights), fingerprint())
    except CodecError as error:
        words = f"it was made with the {made.weights} parameters of step {made.step:,}"
        raise CodecError(
            f"{reader.path}: {error}; {words}, and this is step {run.step:,} of {run.folder.path}."
        ) from None


def step_of_file(reader: Reader, folder: RunFolder) -> int | None:
    """Returns the step of the checkpoint that a file was made with, or None if the run does not have it any more."""
    step = made_with(reader).step
    return step if (folder.checkpoints / str(step)).is_dir() else None
