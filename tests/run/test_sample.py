# SPDX-License-Identifier: Apache-2.0
"""Samples of a run do not depend on how many are drawn."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import vdmkit
from vdmkit.model import DiffusionModel
from vdmkit.networks import AbstractNetwork
from vdmkit.predictions import Eps
from vdmkit.process import AbstractPath, KarrasGrid
from vdmkit.recipes import load_recipe
from vdmkit.recipes.build import build_sampling
from vdmkit.sampling import Ancestral
from vdmkit.sampling.sample import SamplingConfig, draw_samples, fit_into, sample
from vdmkit.schedules import Karras, Tabulated

RECIPES = Path(vdmkit.__file__).parents[1] / "recipes"


class OnlyImage(AbstractNetwork):
    """eps_hat for a data distribution of one image x."""

    x: Array
    path: AbstractPath

    def __call__(self, z, gamma, condition, *, key=None):
        y = z * self.path.scale(gamma) / self.path.alpha(gamma)
        return ((y - self.x) * jnp.exp(-gamma / 2))[..., None]


def drawn(model, count, seed):
    return sample(model, count=count, steps=2, key=jax.random.key(seed))


@pytest.mark.costly
def test_the_first_images_do_not_depend_on_how_many(tiny_model):
    """The first images do not depend on the count, even across batches (70 take more than one)."""
    many = drawn(tiny_model, 70, 0)
    assert many.shape == (70, *tiny_model.shape)
    np.testing.assert_array_equal(drawn(tiny_model, 3, 0), many[:3])
    assert not np.array_equal(many[64:], many[:6])
    assert not np.array_equal(drawn(tiny_model, 3, 1), many[:3])


@pytest.mark.costly
@pytest.mark.parametrize(
    ("seconds", "fitting"),
    [(1000.0, (16, 100)), (100.0, (8, 100)), (20.0, (1, 100)), (2.5, (1, 20)), (0.0, (1, 1))],
)
def test_what_fits_into_the_time(tiny_model, monkeypatch, seconds, fitting):
    """If the time is short, first the number of images and then the number of steps is reduced."""
    ticks = iter([0.0, 50.0, 50.0, 51.0])  # compilation, then one second for a step of 8 images
    monkeypatch.setattr(sys.modules["vdmkit.sampling.sample"], "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    config = SamplingConfig(sampler=Ancestral(), steps=100)
    assert fit_into(tiny_model, config, 16, seconds=seconds) == fitting


def test_the_last_step_may_lead_to_an_image():
    """With end="image", grids have the published noise levels and a last step to zero noise.

    EDM's 18 steps are its 18 sigmas and 0 (Karras et al. 2022, Table 1), and DDPM's are its 1,000 betas.
    """
    edm = SamplingConfig(sampler=Ancestral(), steps=18, grid=KarrasGrid(), end="image").gammas(Karras())
    sigmas = np.exp(np.asarray(edm) / 2)
    np.testing.assert_allclose(sigmas[[0, 1, 2, 16, 17, 18]], [80, 57.586, 40.786, 0.0075, 0.002, 0], atol=6e-4)
    ddpm = SamplingConfig(sampler=Ancestral(), steps=1000, end="image").gammas(Tabulated())
    np.testing.assert_allclose(ddpm[:-1], Tabulated().gammas()[::-1], atol=1e-4)
    assert np.isneginf(ddpm[-1])
    assert len(SamplingConfig(sampler=Ancestral(), steps=1, end="image").gammas(Karras())) == 2


IN_CI = [pytest.param(name, marks=pytest.mark.system) for name in ("digits/score_sde_ve", "digits/ddpm")]


@pytest.mark.costly
@pytest.mark.parametrize("name", ["digits/edm", *IN_CI])
def test_a_known_image_is_drawn(name):
    """For a denoiser of a single image, every sampler, grid and last step of a recipe draws that image."""
    recipe = load_recipe(RECIPES / f"{name}.toml")
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 1)).astype(np.uint8)
    path, schedule = recipe.model.path.build(), recipe.model.schedule.build()
    observation = recipe.model.observation.build(levels=256)
    network = OnlyImage(observation.encode(jnp.asarray(image)), path)
    model = DiffusionModel(
        schedule=schedule, path=path, prediction=Eps(), network=network, observation=observation, shape=image.shape
    )
    images = draw_samples(model, replace(build_sampling(recipe), steps=30), 3, key=jax.random.key(0))
    np.testing.assert_array_equal(images, np.broadcast_to(image, (3, *image.shape)))
