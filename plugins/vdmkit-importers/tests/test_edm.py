# SPDX-License-Identifier: Apache-2.0
"""EDM's networks in the preconditionings of Score-SDE, VPPrecond and VEPrecond, whose outputs are EDM's own.

`edm_preconditionings.npz` holds those of shared/reference/networks/edm-ddpmpp/golden.npz.
"""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vdmkit_importers import EdmImporter

from vdmkit.importers import read_weights
from vdmkit.importers.loader import described, state_of

NETWORKS = Path(__file__).parents[3] / "tests" / "reference" / "networks"
PICKLE = NETWORKS / "edm-ddpmpp" / "network-snapshot-000001.pkl"


@pytest.mark.costly
@pytest.mark.parametrize("name", ["vp", "ve"])
def test_preconditionings_of_score_sde(name):
    """D(x; sigma) would be another, because the network is told another label or its output means something else."""
    with np.load(Path(__file__).with_name("edm_preconditionings.npz")) as file:
        golden = dict(file)
    importer, weights = EdmImporter(), read_weights(PICKLE)
    config = {**(importer.configuration(weights.config, None) or {}), "class_name": f"{name.upper()}Precond"}
    made = described(importer, config, "a file", ["data.name=npz", "data.path=x.npz"])
    model = state_of(PICKLE, importer, made, weights, config).model

    @eqx.filter_jit
    def denoised(model, x, gamma, augment):
        return jax.vmap(lambda *one: model.denoise(*one[:2], {"augment": one[2]}).x_hat)(x, gamma, augment)

    x, gamma = golden["x"].transpose(0, 2, 3, 1), jnp.asarray(2 * np.log(golden["sigma"]), jnp.float32)
    with jax.default_matmul_precision("highest"):
        found = denoised(model, x, gamma, golden["augment_labels"])
    expected = golden[f"out_{name}"].transpose(0, 2, 3, 1)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
