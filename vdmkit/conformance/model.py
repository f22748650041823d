# SPDX-License-Identifier: Apache-2.0
"""Checks of the components of one model, with its own parameters, on latents of the images to be measured."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from vdmkit.conformance.checking import check_derivative, compiled_fast, in_float64
from vdmkit.conformance.components import Scales, check_scales, gammas_between, scales_at
from vdmkit.conformance.decoders import Latent, check_decoder
from vdmkit.conformance.predictions import check_estimate, check_outputs, check_prediction_derivative, outputs_of
from vdmkit.conformance.reverse import check_kernel
from vdmkit.decoders import AbstractObservation
from vdmkit.errors import ConformanceError, VdmkitError
from vdmkit.model import DiffusionModel
from vdmkit.predictions import AbstractPrediction, Estimate
from vdmkit.process import AbstractPath, Image, diffuse
from vdmkit.reverse import AbstractKernel
from vdmkit.schedules import check_increasing, ends_of

_IMAGES, _LEVELS_OF_NOISE = 2, 4
_ROUNDING = 1e-3  # relative to a latent's scale, in float32


class Latents(eqx.Module):
    """n latents z = alpha x + sigma eps of images, from gamma_1 to gamma_0, with the model's outputs and estimates."""

    image: Real[Any, "n h w c"]
    x: Float[Any, "n h w c"]
    eps: Float[Any, "n h w c"]
    gamma: Float[Any, " n"]
    z: Float[Any, "n h w c"]
    shown: Float[Any, "n h w c"]
    output: Float[Any, "n h w c k"]
    estimate: Estimate
    scales: Scales


def latents_of(model: DiffusionModel, images: Real[Any, "m h w c"]) -> Latents:
    """Returns latents of the first two images, each at four noise levels between the ends of the schedule."""
    dtype, (gamma_0, gamma_1) = jnp.zeros(()).dtype, ends_of(model.schedule)
    image = np.repeat(images[:_IMAGES], _LEVELS_OF_NOISE, axis=0)
    gamma = np.tile(np.linspace(gamma_1, gamma_0, _LEVELS_OF_NOISE, dtype=dtype), len(image) // _LEVELS_OF_NOISE)
    eps = np.random.default_rng(0).standard_normal(image.shape).astype(dtype)
    # The network is compiled separately, so that its own check reuses the compilation.
    x, z, shown = _diffused(model.observation, model.path, model.prediction, image, gamma, eps)
    output = outputs_of(model.network, shown, gamma)
    estimate, scales = _read(model.prediction, model.path, output, z, gamma)
    x, z, shown, output, estimate, scales = jax.tree.map(np.asarray, (x, z, shown, output, estimate, scales))
    return Latents(image, x, eps, gamma, z, shown, output, estimate, scales)


@compiled_fast
def _diffused(
    observation: AbstractObservation,
    path: AbstractPath,
    prediction: AbstractPrediction,
    images: Any,
    gammas: Any,
    eps: Any,
) -> tuple[Array, Array, Array]:
    def one(image: Array, gamma: Array, eps: Array) -> tuple[Array, Array, Array]:
        x = observation.encode(image)
        z = diffuse(path, gamma, x, eps)
        return x, z, prediction.network_input(z, gamma, path)

    return jax.vmap(one)(images, gammas, eps)


@compiled_fast
def _read(
    prediction: AbstractPrediction, path: AbstractPath, output: Array, z: Array, gamma: Any
) -> tuple[Estimate, Scales]:
    one = lambda output, z, gamma: (prediction(output, z, gamma, path), scales_at(path, gamma))  # noqa: E731
    return jax.vmap(one)(output, z, gamma)


def checks_of_model(model: DiffusionModel, latents: Latents) -> dict[str, Callable[[], object]]:
    """Returns the checks of the model's components by kind. Each raises ConformanceError or RecipeError.

    The check of the observation returns the result of `check_decoder_of_model`.
    """
    outputs = (*model.shape, model.prediction.outputs)

    def prediction() -> None:
        check_estimate(latents.estimate, latents.z, latents.gamma, latents.scales, tolerance=_ROUNDING)
        for at in range(_LEVELS_OF_NOISE):
            given = latents.output[at], latents.z[at], latents.gamma[at]
            check_prediction_derivative(model.prediction, *given, model.path)

    return {
        "schedule": lambda: check_increasing(model.schedule),
        "path": lambda: check_scales(model.path, gammas_between(model.schedule)),
        "prediction": prediction,
        "network": lambda: check_outputs(model.network, latents.shown, latents.gamma, outputs),
        "observation": lambda: check_decoder_of_model(model, latents),
    }


def check_derivative_of_model(model: DiffusionModel, latents: Latents) -> None:
    """Checks JAX's d eps_hat / dz of the model against difference quotients at every noise level.

    Likelihoods by an ODE depend on this derivative; bounds do not.

    Raises:
        ConformanceError: they differ, or the derivative does not exist.
    """
    with jax.enable_x64(True):
        for at in range(_LEVELS_OF_NOISE):
            wide, z, gamma = in_float64((model, latents.z[at], latents.gamma[at]))
            try:
                check_derivative(_EpsHat(wide, gamma), z, what="eps_hat by the network")
            except VdmkitError:
                raise
            except Exception as error:  # JAX raises errors of many types
                reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
                raise ConformanceError(
                    f"it cannot be differentiated, so that likelihoods by an ODE are not possible ({reason})."
                ) from error


class _EpsHat(eqx.Module):
    """eps_hat of a model as a function of the latent."""

    model: DiffusionModel
    gamma: Float[Any, ""]

    def __call__(self, z: Image) -> Image:
        return self.model.denoise(z, jnp.asarray(self.gamma), {}).eps_hat


def check_decoder_of_model(model: DiffusionModel, latents: Latents) -> bool:
    """Runs `check_decoder` at an image's latent z_0; returns whether the sum over all images could be checked.

    Raises:
        ConformanceError: as in `check_decoder`.
    """
    if not model.observation.levels:
        return False  # a density, which is not integrated
    last = _LEVELS_OF_NOISE - 1
    gamma_0 = latents.gamma[last]
    y = latents.x[last] + np.exp(gamma_0 / 2) * latents.eps[last]
    estimate = jax.tree.map(lambda leaf: leaf[last], latents.estimate)
    return check_decoder(model.observation, Latent(latents.image[last], y, gamma_0, estimate))


def check_kernel_of_model(kernel: AbstractKernel, latents: Latents) -> None:
    """Runs `check_kernel` on steps of several sizes from latents of a model.

    Raises:
        ConformanceError: as in `check_kernel`.
        RecipeError: the estimate lacks what the kernel needs.
    """
    rise = latents.gamma[0] - latents.gamma[_LEVELS_OF_NOISE - 1]
    for number, steps in ((0, 10), (1, 100), (2, 10)):
        estimate, x, eps, gamma_t = jax.tree.map(
            lambda leaf, i=number: leaf[i], (latents.estimate, latents.x, latents.eps, latents.gamma)
        )
        check_kernel(kernel, estimate, x, eps, gamma_t, gamma_t - rise / steps)
