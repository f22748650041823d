# SPDX-License-Identifier: Apache-2.0
"""The codec of a trained run: which steps it takes, and what machine it runs on."""

import hashlib
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from vdmkit.assembly import build_estimator, shapes_of_estimate
from vdmkit.compression import Codec, Layers, Profile, narrows, whole
from vdmkit.devices import arithmetic
from vdmkit.errors import RecipeError
from vdmkit.kernel import AbstractGaussianKernel, MixtureKernel
from vdmkit.likelihood import VariationalBound
from vdmkit.model import DiffusionModel
from vdmkit.run._load import Run
from vdmkit.run._manifest import packages

_FEW, _MANY = 15, 250  # steps of the mixture, and of the Gaussian kernel


@dataclass(frozen=True)
class Coding:
    """A codec, the estimator of the bound that its rate follows, and which parameters of the run it is made of."""

    codec: Codec
    bound: VariationalBound
    checkpoint: dict[str, Any]

    def header(self, chunk: int) -> dict[str, Any]:
        """Of a file with so many images in a chunk."""
        return self.codec.header(fingerprint()) | {"chunk": chunk} | self.checkpoint

    def __str__(self) -> str:
        return self.bound.describe(self.codec.layers.levels).removeprefix("variational bound, ")


def with_steps_of_codec(run: Run, overrides: Sequence[str]) -> Run:
    """The run, whose recipe's likelihood is a bound of T steps. What `overrides` leave open is as in training; of a
    model that was trained in continuous time even in gamma, of the mixture where it knows probabilities of levels."""
    prefix = "likelihood.estimator."
    filled = [f"{prefix}name=bound"]
    if not run.recipe.objective.steps:
        model = run.weighted("raw")
        mixes = shapes_of_estimate(model.prediction, model.shape).log_probs is not None
        choices = {"steps": _FEW if mixes else _MANY, "grid": "gamma", "kernel": "mixture" if mixes else "gaussian"}
        filled += [f"{prefix}{key}={value}" for key, value in choices.items() if not _says(overrides, prefix + key)]
    return replace(run, recipe=run.read_recipe([*filled, *overrides]))


def _says(overrides: Sequence[str], key: str) -> bool:
    return any(one.partition("=")[0].strip() in (key, f"{key}.name") for one in overrides)


def coding_of(run: Run, *, profile: Profile, group: int) -> Coding:
    """The codec that the recipe's bound of T steps becomes, with the parameters that likelihoods are measured with.

    Raises:
        RecipeError: there are no steps, no levels or no probabilities of them, the kernel is neither Gaussian nor the
            mixture, or a network that computes in less than float64 is to be portable.
    """
    model = run.weighted(run.recipe.likelihood.weights)
    if not model.observation.levels:
        raise RecipeError("these data are continuous: only images of levels can be compressed.")
    nothing = jnp.zeros(model.shape)
    eqx.filter_eval_shape(lambda: model.observation.log_probs(nothing, jnp.zeros(()), lambda: nothing))
    if profile == "portable" and narrows(model):
        raise RecipeError(
            "this model computes in less than float64 where float64 goes in, as jax.nn.dot_product_attention does: "
            "its files would not be portable. Use --profile host."
        )
    estimator = build_estimator(run.recipe, model.observation.levels)
    if not isinstance(estimator, VariationalBound) or not estimator.steps:
        raise RecipeError("a codec takes steps: the estimator must be the bound, with a number of steps.")
    codec = Codec(model, layers_of(model, estimator), profile, group, seed=run.recipe.seed)
    return Coding(codec, estimator, {"step": run.step, "weights": run.recipe.likelihood.weights})


def layers_of(model: DiffusionModel, bound: VariationalBound) -> Layers:
    """The steps of a bound."""
    gammas, kernel = whole(bound.gammas(model.schedule)), bound.kernel
    of_levels = (model.observation.levels, model.observation.spacing)
    if isinstance(kernel, MixtureKernel):
        return Layers(gammas, *of_levels, mixture=True)
    if not isinstance(kernel, AbstractGaussianKernel):
        raise RecipeError(f"kernel {type(kernel).__name__}: a codec is made of a Gaussian kernel, or of the mixture.")
    errors = np.asarray(jax.vmap(kernel.error)(jnp.asarray(bound.gammas(model.schedule)[1:], float)), np.float64)
    return Layers(gammas, *of_levels, log_errors=whole(np.log(errors)) if (errors > 0).all() else ())


def fingerprint() -> dict[str, str]:
    """What decides the last bit of a network's outputs on this machine."""
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
    """Its kind, and a hash of what it says it can do."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    lines = sorted({line for line in text.splitlines() if line.startswith(("model name", "flags", "Features"))})
    return f"{platform.machine()} {hashlib.sha256(chr(10).join(lines).encode()).hexdigest()[:8]}"
