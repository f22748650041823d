# SPDX-License-Identifier: Apache-2.0
"""Noise embeddings: the number that represents the noise level in a network, as a function of gamma."""

import abc
from typing import Annotated, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Gt, Le, Lt

from vdmkit.arguments import MAX_STEPS, Beta, Sigma
from vdmkit.registry import define_kind, register
from vdmkit.schedules import Scalar, Tabulated

Factor = Annotated[float, Ge(1e-3), Le(1e5)]


class AbstractNoiseEmbedding(eqx.Module):
    """A strictly increasing function of gamma, in the unit that a paper feeds to its sinusoidal or Fourier features."""

    @abc.abstractmethod
    def __call__(self, gamma: Scalar) -> Scalar:
        """Returns the number that the network embeds, such as a timestep."""


define_kind("noise_embedding", "what a network sees of gamma", AbstractNoiseEmbedding, ("gamma_range",))


@register("noise_embedding", "gamma")
class GammaEmbedding(AbstractNoiseEmbedding):
    """gamma itself, from 0 at the recipe's gamma_min to `factor` at its gamma_max (Kingma et al. 2021)."""

    gamma_range: tuple[float, float] = eqx.field(static=True)
    factor: float = eqx.field(static=True)

    def __init__(self, gamma_range: tuple[float, float] = (-13.3, 5.0), *, factor: Factor = 1000.0):
        self.gamma_range, self.factor = gamma_range, factor

    def __call__(self, gamma: Scalar) -> Scalar:
        low, high = self.gamma_range
        return self.factor * (gamma - low) / (high - low)


@register("noise_embedding", "timestep")
class TimestepEmbedding(AbstractNoiseEmbedding):
    """The index 0, ..., T - 1 in a table of betas, interpolated linearly in gamma (Ho et al. 2020, arXiv 2006.11239).

    Args:
        table: DDPM's betas, "linear", or iDDPM's, "cosine"; ignored if `betas` are given.
        steps: Number T of betas.
        betas: A custom table.
        rescaled: Whether the index is multiplied by 1,000 / T, as iDDPM's `rescale_timesteps` does.
    """

    schedule: Tabulated
    rescaled: bool = eqx.field(static=True)

    def __init__(
        self,
        *,
        table: Literal["linear", "cosine"] = "linear",
        steps: Annotated[int, Ge(2), Le(MAX_STEPS)] = 1000,
        betas: tuple[Annotated[float, Gt(0), Lt(1)], ...] | None = None,
        rescaled: bool = False,
    ):
        self.schedule = Tabulated(table=table, steps=steps, betas=betas)
        self.rescaled = rescaled

    def __call__(self, gamma: Scalar) -> Scalar:
        gammas = self.schedule.gammas()
        indices = np.arange(len(gammas)) * (1000 / len(gammas) if self.rescaled else 1.0)
        return jnp.interp(gamma, *(jnp.asarray(table, gamma.dtype) for table in (gammas, indices)))


@register("noise_embedding", "sde_time")
class SdeTimeEmbedding(AbstractNoiseEmbedding):
    """`factor` times the time of the SDE whose beta is linear (Song et al. 2021, arXiv 2011.13456, App. C).

    With B(s) = beta_min s + (beta_max - beta_min) s^2 / 2, gamma = log(exp(B) - 1) for the variance preserving SDE, and
    gamma = 2 log(2 sinh(B / 2)) for the sub-VP SDE.

    Args:
        beta_min: beta at s = 0.
        beta_max: beta at s = 1.
        sde: The SDE, which determines gamma as a function of B.
        factor: The value at s = 1.
    """

    beta_min: float = eqx.field(static=True)
    beta_max: float = eqx.field(static=True)
    sde: str = eqx.field(static=True)
    factor: float = eqx.field(static=True)

    def __init__(
        self,
        *,
        beta_min: Beta = 0.1,
        beta_max: Beta = 20.0,
        sde: Literal["vp", "sub_vp"] = "vp",
        factor: Factor = 999.0,
    ):
        self.beta_min, self.beta_max, self.sde, self.factor = beta_min, beta_max, sde, factor

    def __call__(self, gamma: Scalar) -> Scalar:
        integral = jax.nn.softplus(gamma) if self.sde == "vp" else 2 * jnp.arcsinh(jnp.exp(gamma / 2) / 2)
        root = jnp.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral)
        return self.factor * 2 * integral / (self.beta_min + root)  # this form of the root avoids cancellation


@register("noise_embedding", "log_sigma")
class LogSigmaEmbedding(AbstractNoiseEmbedding):
    """`factor` times log(sigma / unit), where sigma = exp(gamma / 2) is the noise of data in [-1, 1].

    EDM uses log(sigma) / 4 (Karras et al. 2022, arXiv 2206.00364, Table 1). NCSN++ uses log sigma for data in [0, 1],
    that is factor 1 and unit 2.
    """

    factor: float = eqx.field(static=True)
    unit: float = eqx.field(static=True)

    def __init__(self, *, factor: Factor = 0.25, unit: Sigma = 1.0):
        self.factor, self.unit = factor, unit

    def __call__(self, gamma: Scalar) -> Scalar:
        return self.factor * (gamma / 2 - float(np.log(self.unit)))
