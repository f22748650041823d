# SPDX-License-Identifier: Apache-2.0
"""A fingerprint, 16 hexadecimal digits, of everything that the numbers of a measurement depend on."""

import hashlib
import json
from dataclasses import asdict

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from vdmkit import __version__
from vdmkit.data import Images
from vdmkit.devices import arithmetic, packages
from vdmkit.recipe import flat
from vdmkit.run._load import Run

_MEASURED_BY = ("seed", "model.", "objective.", "likelihood.")  # keys of the recipe


def fingerprint_of(run: Run, test: Images, stage: object = 0) -> str:
    """Returns the fingerprint for a run and its test images.

    Args:
        run: The run.
        test: The test images.
        stage: A JSON value that identifies the measurement among those of the run.
    """
    facts = [
        {key: value for key, value in flat(run.recipe).items() if key.startswith(_MEASURED_BY)},
        run.plugins,
        packages(),
        run.step,
        _sha256_of_arrays(run.weighted(run.recipe.likelihood.weights)),
        [test.identity.sha256, test.pixels.shape, test.levels],
        stage,
        asdict(arithmetic()),
        __version__,
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _sha256_of_arrays(tree: PyTree) -> str:
    """Returns the SHA-256 of the parameters: a run of other data may have the same recipe, step and folder."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
