# SPDX-License-Identifier: Apache-2.0
"""Published figures, changed keys, nearest images, and the preview of a model."""

import re
import tomllib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import jax
import numpy as np
import pytest

import vdmkit
from vdmkit.data.sources import identified
from vdmkit.errors import DataError
from vdmkit.metrics.features import nearest
from vdmkit.recipes import load_recipe
from vdmkit.recipes.loading import overrides_between
from vdmkit.recipes.schema import changed_keys, flat
from vdmkit.report.run_contents import preview_model
from vdmkit.report.sections import published
from vdmkit.schedules import ends_of

FLOW = "probability-flow ODE, Tsit5, rtol 1e-05, atol 1e-05, hutchinson divergence, {}: a bound on -log P"


@pytest.mark.parametrize(
    ("data", "estimator", "bpds"),
    [
        ("CIFAR-10", "variational bound, continuous time", {2.65, 2.49}),
        ("CIFAR-10", "variational bound, T = 100 steps, kernel gaussian, grid uniform", {2.90}),
        ("CIFAR-10", "variational bound, T = 100 steps, kernel gaussian, grid gamma", set()),
        (None, "variational bound, continuous time", set()),
        ("CIFAR-10", "variational bound, T = 3999 steps, kernel learned_range, grid uniform", {3.17, 2.94}),
        ("CIFAR-10", FLOW.format("uniform dequantisation"), {3.13, 2.99}),
        ("CIFAR-10", FLOW.format("truncated normal dequantisation"), {2.56, 2.42}),
        ("CIFAR-10", FLOW.format("uniform dequantisation with 20 importance samples"), set()),
    ],
)
def test_only_comparable_figures_are_shown(likelihood, data, estimator, bpds):
    """Published figures are those of the same version of the data and the same estimator."""
    report = replace(likelihood, published=data, dataset="cifar10/test", estimator=estimator)
    assert {row["bpd"] for row in published(report.as_json())} == bpds


def test_the_figures_of_the_documentation_are_shown():
    """published.toml has every figure in bits/dim of docs/literature.md."""
    rows = tomllib.loads((files("vdmkit.report") / "published.toml").read_text())["figures"]
    page = (Path(vdmkit.__file__).parents[1] / "docs/literature.md").read_text()
    page = "".join(line for line in page.splitlines(keepends=True) if "| plugin `" not in line)  # not runs
    cells = re.findall(r"^\|.*\| ([^|]* bits/dim[^|]*) \|[^|]*\|$", page, re.MULTILINE)
    stated = {float(value) for cell in cells for value in re.findall(r"(?<!FID )\b\d\.\d\d\b", cell)}
    assert len(stated) > 10
    assert stated <= {row["bpd"] for row in rows}


def test_changed_keys(digits_toml):
    """Exactly the keys that differ from the defaults, or have none, are changed keys."""
    recipe = load_recipe(digits_toml, ["training.log_every=100", "sampling.sampler.kernel.name=mixture"])
    changed = changed_keys(recipe)
    assert {"model.schedule.gamma_min", "optimizer.clip_norm", "sampling.sampler.kernel.name", "data.name"} <= changed
    assert not {"training.log_every", "model.schedule.gamma_max", "model.path.name", "sampling.sampler.name"} & changed
    assert changed <= flat(recipe).keys()


def test_overrides_between_recipes_lead_from_one_to_the_other(digits_toml):
    """Overrides between two recipes turn the first into the second within the given prefixes."""
    given = ["likelihood.estimator.name=ode", "likelihood.estimator.draws=4", "seed=7", "sampling.steps=3"]
    before, after = load_recipe(digits_toml), load_recipe(digits_toml, given)
    found = overrides_between(before, after, "likelihood.", "seed")
    assert load_recipe(digits_toml, [*found, "sampling.steps=3"]) == after
    assert not any(text.startswith("sampling") for text in found)


def test_nearest_images():
    """The nearest image and its distance are exact."""
    images = np.random.default_rng(0).integers(0, 17, (50, 8, 8, 1)).astype(np.uint8)
    samples = images[[31, 4]].copy()
    samples[1, 0, 0, 0] = (int(samples[1, 0, 0, 0]) + 8) % 17
    step = abs(int(samples[1, 0, 0, 0]) - int(images[4, 0, 0, 0]))
    index, distance = nearest(samples, images)
    assert index.tolist() == [31, 4]
    np.testing.assert_allclose(distance, [0, step / 8], rtol=1e-12)  # the root of 64 values; float64


@pytest.mark.costly
def test_what_a_model_shows(tiny_model, tiny_images, digits_toml):
    """Schedule, samples and chain are those of the model; missing or unfitting data is a reason, not an error."""
    recipe = load_recipe(digits_toml, ["sampling.steps=3"])

    def load(split):
        if split == "train":
            raise DataError("train: missing.")
        return tiny_images

    seen = preview_model(tiny_model, recipe, load, step=5, key=jax.random.key(1))
    t, gamma, slope = seen.schedule
    assert (gamma[0], gamma[-1]) == pytest.approx(ends_of(tiny_model.schedule))
    np.testing.assert_allclose(np.trapezoid(slope, t), gamma[-1] - gamma[0], rtol=1e-5)  # float32
    assert seen.reasons == ("train: missing.",)
    assert [round(gamma, 3) for gamma, _, _ in seen.samples.chain] == [5.0, 1.333, -2.333]
    assert seen.samples.nearest is None
    again = preview_model(tiny_model, recipe, lambda split: tiny_images, step=5, key=jax.random.key(1))
    np.testing.assert_array_equal(again.samples.images, seen.samples.images)
    assert again.samples.nearest.shape == again.samples.images.shape
    others = identified(np.zeros((3, 4, 4, 1), np.uint8), 17, name="others", split="train")
    (reason,) = preview_model(tiny_model, recipe, lambda split: others, step=5, key=jax.random.key(1)).reasons
    assert reason.startswith("others: images of (height, width, channels, levels) (4, 4, 1, 17); the model")


def test_levels_do_not_overflow():
    """Differences of levels do not wrap around at 256."""
    images = identified(np.array([[[[0]]], [[[250]]]], np.uint8), 256, name="a", split="train").pixels
    index, _ = nearest(np.array([[[[255]]]], np.uint8), images)
    assert index.tolist() == [1]
