# SPDX-License-Identifier: Apache-2.0
"""The codec of a trained run."""

from collections.abc import Sequence
from dataclasses import replace

from vdmkit.assembly import build_estimator, shapes_of_estimate
from vdmkit.errors import CodecError, RecipeError
from vdmkit.likelihood import VariationalBound
from vdmkit.run import Run, RunFolder
from vdmkit_codec.codec._coding import FEW, MANY, Coding, fingerprint, make_coding
from vdmkit_codec.codec._decompress import made_with
from vdmkit_codec.compression import Codec, Profile, codec_of
from vdmkit_codec.container import Reader


def with_steps_of_codec(run: Run, overrides: Sequence[str]) -> Run:
    """Returns the run with the likelihood of its recipe set to a bound of T steps.

    Steps that `overrides` do not set are those of training; for training in continuous time they are even in gamma,
    with the mixture kernel if the model gives probabilities of levels.
    """
    prefix = "likelihood.estimator."
    filled = [f"{prefix}name=bound"]
    if not run.recipe.objective.steps:
        model = run.weighted("raw")
        mixes = shapes_of_estimate(model.prediction, model.shape).log_probs is not None
        choices = {"steps": FEW if mixes else MANY, "grid": "gamma", "kernel": "mixture" if mixes else "gaussian"}
        filled += [f"{prefix}{key}={value}" for key, value in choices.items() if not _says(overrides, prefix + key)]
    return replace(run, recipe=run.read_recipe([*filled, *overrides]))


def _says(overrides: Sequence[str], key: str) -> bool:
    return any(one.partition("=")[0].strip() in (key, f"{key}.name") for one in overrides)


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
