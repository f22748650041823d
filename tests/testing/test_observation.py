# SPDX-License-Identifier: Apache-2.0
"""Conformance of decoders: registered ones pass, and wrong ones are refused with a reason."""

import equinox as eqx
import jax.numpy as jnp
import pytest

from vdmkit.conformance import check_observation
from vdmkit.decoders import AbstractObservation, CategoricalObservation
from vdmkit.errors import ConformanceError
from vdmkit.registry import registry


@pytest.mark.parametrize("name", sorted(set(registry("observation").components) - {"gaussian"}))
def test_observations(build, name):
    """Every registered decoder passes its conformance checks."""
    check_observation(build("observation", name))


class _Told(CategoricalObservation):
    """The probabilities of the levels of every value sum to slightly more than 1."""

    def log_probs(self, z_0, gamma_0, estimate):
        return super().log_probs(z_0, gamma_0, estimate) + 0.01


class _Cheaper(CategoricalObservation):
    """log_prob is half of what log_probs gives."""

    def log_prob(self, image, z_0, gamma_0, estimate):
        return super().log_prob(image, z_0, gamma_0, estimate) / 2


class _OneLevelFree(CategoricalObservation):
    """log_prob counts one level as certain, which an image need not contain."""

    def log_prob(self, image, z_0, gamma_0, estimate):
        index = image[..., None].astype(int)
        of_values = jnp.take_along_axis(self.log_probs(z_0, gamma_0, estimate), index, axis=-1)
        return jnp.where(index == 1, 0.0, of_values).sum()


class _Hidden(AbstractObservation):
    """log_prob counts half of the values, and there are no log_probs to compare with."""

    levels: int = eqx.field(static=True)

    def log_prob(self, image, z_0, gamma_0, estimate):
        log_probs = CategoricalObservation(self.levels).log_probs(z_0, gamma_0, estimate)
        of_values = jnp.take_along_axis(log_probs, image[..., None].astype(int), axis=-1)
        return of_values[:, :1].sum()

    def decode(self, z_0, gamma_0, estimate):
        return CategoricalObservation(self.levels).decode(z_0, gamma_0, estimate)


class _WiderBins(CategoricalObservation):
    """Bins that overlap, which makes likelihoods by an ODE too high."""

    @property
    def spacing(self):
        return 2.5 / self.levels


WRONG = {
    _Told: "levels of one value sum to more than 1: .* 0.0144 bits/dim too low",
    _Cheaper: "log_prob of an image is .*, and by its log_probs",
    _OneLevelFree: "log_prob of an image is .*, and by its log_probs",
    _Hidden: "sum to more than 1: what it gives is 1.1610 bits/dim too low",
    _WiderBins: "levels lie up to 0.4 apart, and its spacing says 0.5",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_observations(wrong):
    """Decoders that would make the bits/dim too low are refused."""
    with pytest.raises(ConformanceError, match=WRONG[wrong]):
        check_observation(wrong(5))
