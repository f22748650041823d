# SPDX-License-Identifier: Apache-2.0
"""The bound of independent pixels by quadrature, against its known values and against Monte Carlo."""

import jax
import numpy as np
import pytest

from vdmkit.data import GaussianData, MixtureData
from vdmkit.decoders import CategoricalObservation
from vdmkit.errors import RecipeError
from vdmkit.likelihood import exact as _quadrature
from vdmkit.likelihood.exact import exact_terms, terms_of_images
from vdmkit.model import DiffusionModel
from vdmkit.networks import NoNetwork
from vdmkit.process import VariancePreserving
from vdmkit.schedules import FixedLinear
from vdmkit.toy_data import Exact

SOURCE = GaussianData(shape=(1, 3, 1), levels=5, mean=0.1, sd_max=0.5, sd_min=0.15, test_count=2000)
DISTRIBUTION, IMAGES = SOURCE.distribution, SOURCE.load("test").pixels
LOG_PROBS = DISTRIBUTION.log_probs()[0]
WIDE = np.array([-12.0, 20.0])


@pytest.fixture(scope="module")
def continuous():
    return exact_terms(DISTRIBUTION, WIDE, continuous=True)


def test_continuous_bound_between_wide_ends_is_minus_log_p_of_every_level(continuous) -> None:
    """The continuous bound is -log p for every level of every pixel (pointwise I-MMSE)."""
    # The ends: x^2 SNR_1 / 2 < 1e-9; levels are 161 sigma_0 apart. Quadrature: 1e-9 at the least probable.
    np.testing.assert_allclose(continuous.total, -LOG_PROBS, rtol=0, atol=1e-8)


def test_an_image_is_the_sum_of_its_pixels(continuous) -> None:
    """An image's bound is the sum over its pixels at their levels."""
    total = terms_of_images(continuous, IMAGES).total
    np.testing.assert_allclose(total, DISTRIBUTION.nats(IMAGES), rtol=0, atol=1e-7)  # 3 pixels with 1e-8 each


def test_bound_of_t_steps_exceeds_the_continuous_one_by_its_closed_form(continuous) -> None:
    """The T-step diffusion loss is the continuous one times (exp(h) - 1) / h.

    Where the loss is smooth and vanishes at both ends, its sum over a grid of step h is its integral, so this factor, 1
    + h / 2 + ..., holds for every level.
    """
    for steps in (64, 128):
        h = 32 / steps
        found = exact_terms(DISTRIBUTION, np.linspace(*WIDE, steps + 1))
        # exp(-2 pi w / h) of a trapezoid sum of step h, w about pi / 2, relative to terms that can be far smaller
        np.testing.assert_allclose(found.diffusion, continuous.diffusion * np.expm1(h) / h, rtol=1e-4)
        np.testing.assert_array_equal(found.prior, continuous.prior)
        np.testing.assert_array_equal(found.reconstruction, continuous.reconstruction)


def test_more_steps_are_a_tighter_bound_that_never_crosses_minus_log_p() -> None:
    """The expected T-step bound is above the entropy and approaches its limit as 1 / T."""
    probs, ends = np.exp(LOG_PROBS), (-5.0, 3.0)  # ends at which all three terms matter
    limit = (probs * exact_terms(DISTRIBUTION, np.array(ends), continuous=True).total).sum()
    entropy = -(probs * LOG_PROBS).sum()
    assert limit > entropy + 1e-3
    steps = [4, 8, 16, 32, 64, 128]
    gaps = np.array([(probs * exact_terms(DISTRIBUTION, np.linspace(*ends, T + 1)).total).sum() - limit for T in steps])
    assert (np.diff(gaps) < 0).all()
    assert gaps[-1] > 0
    np.testing.assert_allclose(gaps[-2] / gaps[-1], 2, rtol=2 / steps[-2])  # O(1 / T); the second order is as large


@pytest.mark.costly
@pytest.mark.parametrize("steps", [0, 10])
def test_monte_carlo_agrees_term_by_term(steps: int, quick_key, bound_of_images) -> None:
    """Every term of the Monte Carlo bound has the expectation computed by quadrature, for both kinds of time."""
    ends = (-4.0, 2.0)
    model = DiffusionModel(
        schedule=FixedLinear(gamma_min=ends[0], gamma_max=ends[1]),
        path=VariancePreserving(),
        prediction=Exact(DISTRIBUTION),
        network=NoNetwork(1),
        observation=CategoricalObservation(DISTRIBUTION.levels),
        shape=DISTRIBUTION.shape,
    )
    found = bound_of_images(model, IMAGES, draws=20, steps=steps, batch_size=len(IMAGES), key=quick_key)
    table = exact_terms(DISTRIBUTION, np.linspace(*ends, max(steps, 1) + 1), continuous=not steps)
    expected = terms_of_images(table, IMAGES)
    np.testing.assert_allclose(found.prior, np.broadcast_to(expected.prior, (2, len(IMAGES))), rtol=1e-12)
    for term in ("reconstruction", "diffusion"):
        errors = (getattr(found, term) - getattr(expected, term)).mean(0)
        standard_error = errors.std(ddof=1) / np.sqrt(len(errors))
        assert abs(errors.mean()) < 4 * standard_error, term  # false alarm 6e-5 each
        assert 0 < standard_error < 0.02 * getattr(expected, term).mean()  # the errors are not zero, and small


def test_dependent_pixels_and_falling_schedules_are_refused() -> None:
    """Mixtures, whose pixels are dependent, and gammas that fall are refused."""
    with pytest.raises(RecipeError, match="3 components"):
        exact_terms(MixtureData().distribution, WIDE)
    with pytest.raises(RecipeError, match="that rise"):
        exact_terms(DISTRIBUTION, WIDE[::-1])


def test_float32_changes_nothing(continuous) -> None:
    """The exact terms are computed in float64 even where JAX uses float32."""
    with jax.enable_x64(False):
        again = exact_terms(DISTRIBUTION, WIDE, continuous=True)
    jax.tree.map(np.testing.assert_array_equal, again, continuous)


def test_pixels_share_their_exponentials(monkeypatch) -> None:
    """The number of exponentials hardly grows with the pixels: an oracle's likelihood takes 0.4 s, not 11 s."""
    exp, count = np.exp, []
    monkeypatch.setattr(np, "exp", lambda x: count.append(np.size(x)) or exp(x))

    def exponentials(shape: tuple[int, int, int]) -> int:
        count.clear()
        exact_terms(GaussianData(shape=shape, levels=9).distribution, np.linspace(-5, 5, 5))
        return sum(count)

    # 16 times the pixels; only P(l) itself, as many as one of the 181 values of eps, grows with them
    assert exponentials((4, 4, 1)) < 1.1 * exponentials((1, 1, 1))


def test_improbable_levels_are_as_exact(monkeypatch) -> None:
    """Both ways to compute the sums agree, and levels of probability 1e-300 and less give finite values."""
    source = GaussianData(shape=(1, 2, 1), levels=5, sd_max=0.5, sd_min=0.012)
    log_probs, grid = source.distribution.log_probs()[0], np.linspace(-9, 9, 40)
    assert log_probs.min(-1).ravel()[0] > -600 > log_probs.min() > -2000
    found = exact_terms(source.distribution, grid).diffusion
    monkeypatch.setattr(_quadrature, "_STEEP", 0.0)
    np.testing.assert_allclose(found, exact_terms(source.distribution, grid).diffusion, rtol=1e-12)  # float64
    assert np.isfinite(found).all()
