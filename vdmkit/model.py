# SPDX-License-Identifier: Apache-2.0
"""The diffusion model, a single pytree for training, likelihoods, sampling and checkpoints."""

from collections.abc import Callable, Mapping
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, Real

from vdmkit.arguments import check_instance, check_integer
from vdmkit.decoders import AbstractObservation, CategoricalObservation
from vdmkit.errors import ConformanceError, RecipeError
from vdmkit.networks.network import Condition
from vdmkit.networks.wrappers import Conditioned
from vdmkit.predictions import AbstractPrediction, Estimate
from vdmkit.process import AbstractPath, Image, VariancePreserving, diffuse
from vdmkit.schedules import AbstractSchedule, Scalar

Compute = Literal["bfloat16"]
"""A type in which a network may compute, other than that of its parameters."""


class DiffusionModel(eqx.Module):
    """A diffusion model: schedule gamma(t), path (alpha, sigma), network with its prediction, decoder p(x | z_0).

    Args:
        schedule: The noise schedule gamma(t).
        prediction: The meaning of the network's output, such as eps or v.
        network: Any callable pytree with the signature of `AbstractNetwork`; it returns an array of shape
            (h, w, c, `prediction.outputs`).
        shape: (h, w, c) of an image.
        levels: Number of levels of a pixel, for the paper's categorical observation.
        observation: The decoder p(x | z_0), given instead of `levels`.
        path: alpha and sigma as functions of gamma; variance preserving by default, as in the paper.

    Raises:
        RecipeError: an argument is invalid.
    """

    schedule: AbstractSchedule
    path: AbstractPath
    prediction: AbstractPrediction
    network: Callable[..., Array]
    observation: AbstractObservation
    shape: tuple[int, int, int] = eqx.field(static=True)

    def __init__(
        self,
        *,
        schedule: AbstractSchedule,
        prediction: AbstractPrediction,
        network: Callable[..., Array],
        shape: tuple[int, int, int],
        levels: int | None = None,
        observation: AbstractObservation | None = None,
        path: AbstractPath | None = None,
    ):
        if levels is not None and observation is None:
            observation = CategoricalObservation(levels)
        elif levels is not None or observation is None:
            raise RecipeError("DiffusionModel: give the number of levels, or an observation, and not both.")
        self.schedule, self.prediction, self.network, self.shape = schedule, prediction, network, _checked(shape)
        self.path = VariancePreserving() if path is None else path
        self.observation = observation
        if not callable(network):
            raise RecipeError(f"network: expected a function of a latent, gamma and a condition, found {network!r}.")
        kinds = (AbstractSchedule, AbstractPrediction, AbstractPath, AbstractObservation)
        for name, kind in zip(("schedule", "prediction", "path", "observation"), kinds, strict=True):
            check_instance(name, getattr(self, name), kind)

    def diffuse(
        self, image: Real[Array | np.ndarray, "h w c"], gamma: Scalar, *, key: PRNGKeyArray
    ) -> tuple[Image, Image]:
        """Returns z = alpha x + sigma eps, a draw from q(z | image) at gamma, and its noise eps ~ N(0, I)."""
        x = self.observation.encode(jnp.asarray(image))
        eps = jax.random.normal(key, x.shape, x.dtype)
        return diffuse(self.path, gamma, x, eps), eps

    def denoise(
        self,
        z: Image,
        gamma: Scalar | float,
        condition: Condition | None = None,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Estimate:
        """Returns the estimates x_hat and eps_hat for one latent z at gamma.

        This method works under `jax.jit` and `jax.vmap`.

        Args:
            z: The latent.
            gamma: Its noise level.
            condition: Side information on the image by name, such as its label.
            key: Random key for dropout; without a key, dropout is off.

        Raises:
            ConformanceError: the network's output does not have the shape (h, w, c, `prediction.outputs`).
        """
        gamma = jnp.asarray(gamma)
        shown = self.prediction.network_input(z, gamma, self.path)
        output = jnp.asarray(self.network(shown, gamma, condition or {}, key=key))
        _check_output(output, (*z.shape, self.prediction.outputs))
        output = output.astype(jnp.promote_types(output.dtype, z.dtype))  # a network may compute in bfloat16
        return self.prediction(output, z, gamma, self.path)

    def estimate(self, y: Image, gamma: Scalar) -> Estimate:
        """Returns the estimates from y = z / alpha."""
        return self.denoise(self.path.alpha(gamma) * y, gamma)

    def x_hat(self, y: Image, gamma: Scalar) -> Image:
        """Returns the estimate of the data from y = z / alpha."""
        return self.estimate(y, gamma).x_hat

    def computing_in(self, compute: Compute | None) -> "DiffusionModel":
        """Returns the model with the network's parameters cast to `compute`, the type in which its layers then compute.

        In vdmkit's layers, the statistics of group norms, softmax, Fourier features, the embedding of gamma and the
        output of the last convolution stay in float32, as does everything outside of the network. Gradients flow to
        the parameters through the cast. If `compute` is None, the model is returned unchanged.
        """
        if compute is None:
            return self
        cast = lambda leaf: leaf.astype(compute) if eqx.is_inexact_array(leaf) else leaf  # noqa: E731
        return eqx.tree_at(lambda of: of.network, self, jax.tree.map(cast, self.network))

    def given(self, condition: Mapping[str, Real[Array | np.ndarray, "..."] | int | np.number]) -> "DiffusionModel":
        """Returns the model conditioned on side information: with {"label": 3}, the model of p(x | label = 3)."""
        if not condition:
            return self
        conditioned = Conditioned(self.network, {name: jnp.asarray(value) for name, value in condition.items()})
        return eqx.tree_at(lambda of: of.network, self, conditioned)

    @property
    def dimensions(self) -> int:
        """Returns the number of values (pixels times channels) in one image."""
        height, width, channels = self.shape
        return height * width * channels


def _checked(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Returns the shape as three ints. Raises RecipeError unless it is (h, w, c)."""
    if not isinstance(shape, tuple | list) or len(shape) != 3:
        raise RecipeError(f"shape: expected (height, width, channels), found {shape!r}.")
    for size in shape:
        check_integer("shape", size)
    height, width, channels = map(int, shape)
    return height, width, channels


def _check_output(output: Array, expected: tuple[int, ...]) -> None:
    """Raises ConformanceError unless the output has the expected shape: broadcasting would give a wrong likelihood."""
    if jnp.shape(output) != expected:
        raise ConformanceError(
            f"the network's output has shape {jnp.shape(output)}: expected (h, w, c, outputs of the prediction) = "
            f"{expected}."
        )
