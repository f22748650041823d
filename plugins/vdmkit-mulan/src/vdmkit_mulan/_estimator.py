# SPDX-License-Identifier: Apache-2.0
"""The bound of test images under MuLAN with its error bar, by vdmkit's estimates of two replicates of each image."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, Real

import vdmkit
from vdmkit import DiffusionModel
from vdmkit.arguments import check_integer
from vdmkit.data import Pixels
from vdmkit.likelihood import AbstractEstimator, Estimates, Interval, LogLikelihood
from vdmkit.likelihood.estimator import mean_of_draws
from vdmkit.randomness import fold_purpose, fold_replicate
from vdmkit_mulan._bound import Draws, LatentTerm, terms
from vdmkit_mulan._latent import TERMS, largest_kl
from vdmkit_mulan._model import Mulan, MulanError


def log_likelihood(
    model: Mulan,
    images: Real[Array | np.ndarray, "n h w c"],
    *,
    key: PRNGKeyArray,
    draws: int = 8,
    latent_term: LatentTerm = largest_kl,
    **options: Any,
) -> LogLikelihood:
    """Estimates the bound on -log P of every image, in the terms of `vdmkit_mulan.terms`.

    Args:
        model: The model.
        images: Levels 0..255.
        key: Random key.
        draws: Network evaluations of each of an image's two estimates, at evenly spaced times from a random start.
        latent_term: `largest_kl`, or `kl_of_one` for the authors' number, which need not be a bound.
        options: `precision`, `batch_size`, `progress` and others of `vdmkit.log_likelihood`.

    Raises:
        DataError: the images differ from the model's in shape or levels, or are fewer than 2.
        RecipeError: `draws` is not an integer from 1 on.
    """
    return vdmkit.log_likelihood(model.vdm, images, key=key, estimator=MulanBound(draws, latent_term), **options)


def bits_per_dim(
    model: Mulan, images: Real[Array | np.ndarray, "n h w c"], *, key: PRNGKeyArray, **options: Any
) -> Interval:
    """Returns the mean of the bound on -log2 P per dimension with its 95% half-widths; see `log_likelihood`."""
    return log_likelihood(model, images, key=key, **options).bits_per_dim


class MulanBound(AbstractEstimator[None]):
    """The bound in four terms, each with fresh latents and noise at every time."""

    draws: int = eqx.field(static=True)
    latent_term: LatentTerm = eqx.field(static=True)

    def __check_init__(self) -> None:
        check_integer("draws", self.draws)

    def describe(self, levels: int) -> str:
        return f"MuLAN's variational bound, continuous time, latent term {self.latent_term.__name__}"

    def plan(self, model: DiffusionModel, images: Pixels, *, precision: float, key: PRNGKeyArray, **_: Any) -> None:
        """Returns None, since only the number of passes sets the precision. Raises MulanError for a different model."""
        _mulan_in(model)

    def rounds(self, plan: None) -> int:
        return self.draws

    def __call__(
        self,
        model: DiffusionModel,
        images: Real[Array, "b h w c"],
        index: Int[Array, " b"],
        plan: None,
        *,
        replicate: int,
        key: PRNGKeyArray,
        on_round: Callable[[], object] = lambda: None,
        **_: Any,
    ) -> Estimates:
        mulan, n = _mulan_in(model), len(images)
        numbers = (np.asarray([replicate, k], np.int32) for k in range(self.draws))
        terms = mean_of_draws((_one_draw(self, mulan, images, index, number, key) for number in numbers), on_round)
        return Estimates(terms, np.full(n, self.draws), np.zeros(n, bool))


def _mulan_in(model: DiffusionModel) -> Mulan:
    """Returns the MuLAN model whose `vdm` this is."""
    if not isinstance(model.network, Mulan):
        raise MulanError("MulanBound measures models of MuLAN: give it `model.vdm` of a `vdmkit_mulan.Mulan`.")
    return model.network


@eqx.filter_jit
def _one_draw(
    estimator: MulanBound, model: Mulan, images: Array, index: Array, draw: Array | np.ndarray, key: PRNGKeyArray
) -> dict[str, Array]:
    replicate, k = draw

    def one(image: Array, index: Array) -> dict[str, Array]:
        of_replicate = fold_replicate(key, "bound", index, replicate)
        u = jax.random.uniform(fold_purpose(of_replicate, "time"), dtype=float)
        key_0, key_eps, key_latent, _ = jax.random.split(jax.random.fold_in(of_replicate, k), 4)
        eps_0, eps = (jax.random.normal(k, image.shape, float) for k in (key_0, key_eps))
        size = TERMS, model.latent
        gammas = jax.random.gamma(key_latent, 1 / model.ones, size, float)
        draws = Draws((u + k) / estimator.draws, eps, eps_0, gammas)
        return terms(model, image, draws, latent_term=estimator.latent_term)

    return jax.vmap(one)(images, index)
