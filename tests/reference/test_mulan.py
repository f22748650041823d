# SPDX-License-Identifier: Apache-2.0
"""MuLAN, by the plugin vdmkit-mulan, against the authors' outputs; see networks/README.md.

In float64 the largest difference was 5e-13. In float32, times of 1000 tau and Fourier features cost 2e-5 of the output
of a U-Net, and twice that of its square. `relative_error` is in the Euclidean norm.
"""

import functools
import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import vdmkit_mulan
from vdmkit_mulan import Draws, Mulan

from vdmkit.errors import CheckpointError
from vdmkit.importers.loader import read_imported

HERE = Path(__file__).parent

EXACT = 1e-9
FLOAT32 = 1e-5
"""Of what is no output of a U-Net."""
OF_NETWORKS = 5e-5
"""Of what comes out of a U-Net."""


def relative_error(found, expected) -> float:
    return float(np.linalg.norm(np.asarray(found, np.float64) - expected) / np.linalg.norm(expected))


class Folder:
    """The arrays of a folder, and the model with its weights in the current precision."""

    def __init__(self, path, suffix: str):
        self.path, self.suffix = path, suffix
        self.config = json.loads((path / "config.json").read_text())
        with np.load(path / "golden.npz") as file:
            self.golden = dict(file)

    def model(self, vdm_type: str = "mulan_velocity", **fields: object) -> Mulan:
        return vdmkit_mulan.load(self.path / "weights.npz", {**self.config, **fields}, vdm_type)

    def given(self, name: str) -> jax.Array:
        """Returns an input in the current precision."""
        return jnp.asarray(self.golden[name], float)

    def expected(self, name: str) -> np.ndarray:
        return self.golden[name + self.suffix].astype(np.float64)

    @property
    def gammas(self) -> jax.Array:
        """Returns draws of gamma at the latents, images first."""
        return jnp.moveaxis(self.given("gamma_noise"), 1, 0)

    @functools.cached_property
    def latents(self) -> tuple[jax.Array, jax.Array]:
        """Latents z and logits."""
        return self.latents_of(self.model())

    def latents_of(self, model: Mulan) -> tuple[jax.Array, jax.Array]:
        of_one = lambda image, gammas: vdmkit_mulan.draw_latent(model, model.vdm.observation.encode(image), gammas)  # noqa: E731
        return eqx.filter_jit(jax.vmap(of_one))(jnp.asarray(self.golden["images"]), self.gammas)


@pytest.fixture(params=[pytest.param(False, marks=pytest.mark.costly), True], ids=["float32", "float64"])
def folder(request, mulan):
    with jax.enable_x64(request.param):
        yield Folder(mulan, "_f64" if request.param else "")


@pytest.fixture
def tolerance(folder) -> float:
    return EXACT if folder.suffix else FLOAT32


def test_the_latent(folder, tolerance):
    """The encoder, the noise of the logits and the choice of the k largest equal the authors'."""
    z, logits = folder.latents
    assert relative_error(logits, folder.expected("logits")) < (tolerance if folder.suffix else OF_NETWORKS)
    np.testing.assert_allclose(z, folder.expected("embedding"), rtol=tolerance, atol=tolerance)
    kl = jax.vmap(lambda logits: vdmkit_mulan.kl_of_one(logits, 1))(logits)
    assert relative_error(kl, folder.expected("kl_z")) < (tolerance if folder.suffix else OF_NETWORKS)


def test_gamma_of_every_pixel(folder, tolerance):
    """The coefficients, values and derivatives of gamma equal the authors' at every pixel."""
    schedule, z, t = folder.model().schedule, jnp.asarray(folder.expected("embedding"), float), folder.given("t")
    for name, found in zip("abc", jax.vmap(schedule.coefficients)(z), strict=True):
        assert relative_error(found.reshape(len(z), -1), folder.expected(f"coef_{name}")) < tolerance, name
    grid = jax.vmap(lambda t: jax.vmap(lambda z: schedule(z, t))(z))(jnp.linspace(0, 1, 11))
    slope = jax.vmap(lambda z, t: jax.jvp(lambda t: schedule(z, t), (t,), (jnp.ones_like(t),))[1])(z, t)
    derivative = jax.vmap(schedule.derivative)(z, t)
    found = {"gamma_t": jax.vmap(schedule)(z, t), "dgamma_dt": slope, "grad_t_formula": derivative, "gamma_grid": grid}
    for name, values in found.items():
        expected = folder.expected(name)
        assert relative_error(values.reshape(expected.shape), expected) < tolerance, name


def test_times_of_even_length(folder, tolerance):
    """Times drawn uniformly along the length of the curve of gamma, and the length, equal the authors'."""
    schedule, z = folder.model().schedule, jnp.asarray(folder.expected("embedding"), float)
    time, length = jax.vmap(schedule.at_length)(z, folder.given("inverse_targets"))
    np.testing.assert_allclose(time, folder.expected("inverse_t"), rtol=tolerance, atol=tolerance)
    assert relative_error(length, folder.expected("inverse_scale")) < tolerance


PREDICTIONS = {
    "epsilon": ("mulan_epsilon", {}),
    "velocity": ("mulan_velocity", {"velocity_from_epsilon": False}),
    "velocity_from_epsilon": ("mulan_velocity", {"velocity_from_epsilon": True}),
}


@pytest.mark.costly
def test_losses(folder, tolerance):
    """Every term of the bound equals the authors', for every prediction."""
    images = jnp.asarray(folder.golden["images"])
    t = (folder.given("t0") + jnp.arange(len(images)) / len(images)) % 1
    draws = Draws(t, folder.given("eps"), folder.given("eps_0"), folder.gammas)
    predictions = {name: folder.model(kind, **fields).prediction for name, (kind, fields) in PREDICTIONS.items()}

    @eqx.filter_jit
    def terms(model):  # compiled together, for one evaluation of the U-Net
        models = [eqx.tree_at(lambda model: model.prediction, model, one) for one in predictions.values()]
        of_one = functools.partial(vdmkit_mulan.terms, latent_term=vdmkit_mulan.kl_of_one)
        return [jax.vmap(of_one, (None, 0, 0))(model, images, draws) for model in models]

    of_networks = tolerance if folder.suffix else OF_NETWORKS
    for name, found in zip(predictions, terms(folder.model()), strict=True):
        assert relative_error(found["diffusion"], folder.expected(f"loss_diff_{name}")) < of_networks, name
        assert relative_error(found["prior"] + found["latent"], folder.expected("loss_klz")) < of_networks
        reconstruction = folder.expected("loss_recon")
        np.testing.assert_allclose(found["reconstruction"], reconstruction, rtol=tolerance, atol=tolerance)


def test_what_is_no_such_model_is_refused(mulan):
    """Other models of the authors, and other sizes, are refused with every difference listed."""
    weights, config = mulan / "weights.npz", json.loads((mulan / "config.json").read_text())
    wrong = {**config, "unet_type": "ldm", "topk_noise_type": "gumbel", "new": 1}
    del wrong["latent_k"]
    with pytest.raises(CheckpointError, match=r"(?s)unet_type: 'ldm'.*topk_noise_type.*latent_k: missing.*new: unk"):
        vdmkit_mulan.load(weights, wrong)
    with pytest.raises(CheckpointError, match="vdm_type: 'vdm'"):
        vdmkit_mulan.load(weights, config, "vdm")
    with pytest.raises(CheckpointError, match=r"encoder_model/dense_layer_final/bias: .* in the file, \(999,\)"):
        vdmkit_mulan.load(weights, {**config, "latent_size": 999})
    with pytest.raises(CheckpointError, match="family 'vdm'"):
        vdmkit_mulan.load(HERE / "networks/idode-vp/weights.npz", config)
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        vdmkit_mulan.load(weights, weights)


def test_import_says_which_plugin_reads_it(mulan):
    """`vdmkit import` names the plugin that can read a MuLAN checkpoint."""
    with pytest.raises(CheckpointError, match=r"those of MuLAN.*`vdmkit_mulan.load` of the plugin vdmkit-mulan"):
        read_imported(mulan / "weights.npz", mulan / "config.json")
