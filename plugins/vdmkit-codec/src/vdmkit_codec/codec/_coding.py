# SPDX-License-Identifier: Apache-2.0
"""Makes the codec of a trained model from the steps of a bound, and identifies the machine."""

import hashlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from vdmkit.devices import arithmetic, packages
from vdmkit.errors import RecipeError
from vdmkit.kernel import AbstractGaussianKernel, MixtureKernel
from vdmkit.likelihood import VariationalBound
from vdmkit.model import DiffusionModel
from vdmkit.registry import Choice
from vdmkit_codec.compression import Codec, Layers, Profile, narrows, whole

FEW, MANY = 15, 250  # default steps of the mixture, and of the Gaussian kernel


@dataclass(frozen=True)
class Coding:
    """A codec, the estimator of the bound that is its expected rate, and the run's parameters that it uses."""

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
        RecipeError: the bound has no steps, the data have no levels, the model does not give their probabilities, the
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

    Its steps, by default 15 of the mixture or 250 of the Gaussian, are even in gamma.
    """
    nothing = jnp.zeros(model.shape)
    mixes = eqx.filter_eval_shape(lambda: model.denoise(nothing, jnp.zeros(()), {}).log_probs) is not None
    kernel = Choice("kernel", "mixture" if mixes else "gaussian")
    return VariationalBound(steps=steps or (FEW if mixes else MANY), kernel=kernel, grid=Choice("grid", "gamma"))


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
