# SPDX-License-Identifier: Apache-2.0
"""Checks of importers, on the arrays of a checkpoint."""

from pathlib import Path

import jax.numpy as jnp

from vdmkit.errors import CheckpointError
from vdmkit.importers import AbstractImporter, Arrays, Config, Weights, described, state_of
from vdmkit.testing._expect import expect


def check_importer(importer: AbstractImporter, arrays: Arrays, config: Config) -> None:
    """Checks that the configuration is a recipe whose model takes the arrays, all of them, and no others.

    Raises:
        ConformanceError: an estimate of the model is not finite, or `filled` ignores an array that is not of the model.
        VdmkitError: the recipe is not valid, or its model does not take the arrays.
    """
    made = described(importer, config, "arrays")
    model = state_of(Path("arrays"), importer, made, Weights("", dict(arrays)), config).ema_model
    estimate = model.denoise(jnp.zeros(model.shape), 0.0)
    expect(bool(jnp.isfinite(estimate.x_hat).all()), "the imported model's estimate of an image is not finite")
    try:
        importer.filled(model, {**arrays, "an array of another model": jnp.zeros(1)}, config)  # pyright: ignore
    except CheckpointError:
        return
    expect(False, "it ignores an array that is not of its model, where a CheckpointError should name it")
