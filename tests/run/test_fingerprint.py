# SPDX-License-Identifier: Apache-2.0
"""The fingerprint of a result depends exactly on what its number depends on."""

import importlib.metadata

from vdmkit.data import Images
from vdmkit.experiments import RunFolder
from vdmkit.experiments.load import Run
from vdmkit.experiments.measure import fingerprint_of
from vdmkit.plugins import plugin_packages
from vdmkit.recipes import load_recipe
from vdmkit.recipes.build import state_like


def test_packages_that_a_model_does_not_use_change_no_name(tiny_images: Images, tmp_path, monkeypatch):
    """The fingerprint depends on the versions of exactly the packages that the model uses."""

    def name(*overrides: str) -> str:
        recipe = load_recipe("digits", ["model.network.name=none", *overrides])
        return fingerprint_of(Run(RunFolder(tmp_path), recipe, state_like(recipe, (8, 8, 1), 17), 7, ()), tiny_images)

    other = ("model.schedule.name=laplace",)
    before, used = name(), name(*other)
    version = importlib.metadata.version
    newer = dict.fromkeys(plugin_packages(), "99")
    assert newer
    monkeypatch.setattr(importlib.metadata, "version", lambda package: newer.get(package) or version(package))
    assert name() == before
    assert name(*other) != used
