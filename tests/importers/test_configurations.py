# SPDX-License-Identifier: Apache-2.0
"""The recipes that importers derive from the authors' configurations, for configurations without golden outputs."""

import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.conformance.checking import compiled_fast
from vdmkit.errors import CheckpointError
from vdmkit.importers.diffusers import with_diffusers_arrays
from vdmkit.importers.loader import described
from vdmkit.importers.translation import misfits
from vdmkit.networks import UNet
from vdmkit.plugins import load_plugins
from vdmkit.predictions import V
from vdmkit.process import VariancePreserving
from vdmkit.registry import registry
from vdmkit.schedules import Tabulated

NETWORKS = Path(__file__).parents[1] / "reference" / "networks"
DEFAULTS = Path(__file__).parent / "unet2d_defaults.npz"
"""Outputs in float64 of UNet2DModel, whose arguments are its defaults and SIZES, from diffusers 0.42.1 and torch 2.13.

Parameter k of `names` is 0.4 cos(1.7 i + k), and 1 more if it is the weight of a normalisation. `x_hat` is what
DDPMScheduler (V_OF_COSINE) makes of x[0] and `v` at timestep 20.
"""
SIZES = {
    "sample_size": 4,
    "block_out_channels": [4, 8],
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "attention_head_dim": 4,
    "num_class_embeds": 3,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}
V_OF_COSINE = {
    "_class_name": "DDPMScheduler",
    "prediction_type": "v_prediction",
    "beta_schedule": "squaredcos_cap_v2",
    "num_train_timesteps": 50,
}


def configuration(folder: str) -> dict[str, Any]:
    return json.loads((NETWORKS / folder / "config.json").read_text())


def song() -> dict[str, Any]:
    """Returns a DDPM++ configuration of EDM with the sizes of the ADM test folder."""
    config = configuration("edm-adm") | {"model_type": "SongUNet"}
    del config["channels_per_head"]
    return config


def recipe_of(family: str, config: dict[str, Any]) -> dict[str, Any]:
    load_plugins()
    return registry("importer").get(family).build({}).recipe(config)


def test_filters_that_are_not_symmetrical_or_even_are_refused():
    """Resampling filters that are not symmetrical, or have odd length, are refused.

    The authors flip a filter in one or both directions: with other filters, denoisers would be off by a tenth or more.
    """
    config = configuration("score_sde-ncsnpp")
    config["model"]["fir_kernel"] = [1, 2, 3, 4]
    with pytest.raises(CheckpointError, match=r"fir_kernel: .* symmetrical"):
        recipe_of("score_sde", config)
    for taps in ([1, 2], [1, 2, 1], []):
        with pytest.raises(CheckpointError, match=r"resample_filter: .* symmetrical filter of even length"):
            recipe_of("edm", song() | {"resample_filter": taps})


def test_data_of_another_range_are_refused():
    """The VP SDE of data in [0, 1] is refused: it has half the signal, so denoisers would be off."""
    config = configuration("score_sde-ncsnpp")
    config["training"]["sde"] = "vpsde"
    config["model"] |= {"embedding_type": "positional", "scale_by_sigma": False}
    config["data"]["centered"] = False
    with pytest.raises(CheckpointError, match=r"data\.centered: False"):
        recipe_of("score_sde", config)


def test_heads_of_diffusers_have_8_channels_by_default():
    """A missing attention_head_dim means 8 channels a head, and null means a single head."""
    config = configuration("ddpm")
    unet = config.get("unet", config)
    assert recipe_of("diffusers", config)["model"]["network"]["head_channels"] == 0  # of null
    del unet["attention_head_dim"]
    assert recipe_of("diffusers", config)["model"]["network"]["head_channels"] == 8


@pytest.fixture
def diffusers():
    with jax.enable_x64(True), np.load(DEFAULTS) as file:
        yield dict(file)


def waves(names: np.ndarray, shapes: np.ndarray) -> dict[str, Any]:
    """Returns the parameters that gave the golden outputs."""
    made = {}
    for k, (name, shape) in enumerate(zip(names.tolist(), shapes.tolist(), strict=True)):
        sizes = [int(size) for size in shape.split(",")]
        norm = "norm" in name and name.endswith("weight")
        made[name] = (0.4 * np.cos(1.7 * np.arange(np.prod(sizes)) + k) + norm).reshape(sizes)
    return made


@pytest.mark.costly
def test_the_defaults_of_diffusers(diffusers):
    """UNet2DModel with its defaults (cosines first, epsilon 1e-5) is reproduced."""
    table = recipe_of("diffusers", SIZES)["model"]["network"]
    embedding = registry("noise_embedding").get("timestep").build({})
    choices = {key: tuple(one) if isinstance(one, list) else one for key, one in table.items() if key != "name"}
    context = {"shape": (4, 4, 3), "outputs": 1, "gamma_range": (-9.0, 9.0), "classes": 3}
    make = registry("network").get("ddpm_unet").build
    template = eqx.filter_eval_shape(
        lambda key: make({**context, "key": key}, **choices | {"noise_embedding": embedding}), jax.random.key(0)
    )
    network = with_diffusers_arrays(template, waves(diffusers["names"], diffusers["shapes"]))
    for x, t, label, out in zip(*(diffusers[name] for name in ("x", "timestep", "label", "out")), strict=True):
        h = evaluated(network, x.transpose(1, 2, 0), t, label)
        np.testing.assert_allclose(h.transpose(2, 0, 1), out, rtol=0, atol=1e-12)


@compiled_fast
def evaluated(network: UNet, x: Any, t: Any, label: Any) -> Any:
    return network.evaluate(jnp.asarray(x, float), jnp.asarray(t, float), jax.nn.one_hot(label, 3))[..., 0]


def test_v_and_the_cosine_of_diffusers(diffusers):
    """A model of v on the cosine schedule is imported with the authors' noise levels and x_hat."""
    tables = recipe_of("diffusers", {"unet": SIZES, "scheduler": V_OF_COSINE})
    assert tables["objective"] | {"kernel": ""} == {"weighting": "v", "steps": 49, "kernel": ""}
    assert tables["model"]["prediction"] == {"name": "v"}
    schedule = Tabulated(**{key: one for key, one in tables["model"]["schedule"].items() if key != "name"})
    gammas = jnp.asarray(schedule.gammas())
    # theirs are float32, and the last one, 1e-5, is a product of 50 factors
    np.testing.assert_allclose(jax.nn.sigmoid(-gammas), diffusers["alphas_cumprod"], rtol=1e-4)
    v, z = (jnp.asarray(one.transpose(1, 2, 0), float) for one in (diffusers["v"], diffusers["x"][0]))
    found = V()(v[..., None], z, gammas[20], VariancePreserving()).x_hat
    np.testing.assert_allclose(found.transpose(2, 0, 1), diffusers["x_hat"], atol=1e-6)


def test_the_scheduler_is_told_to_bound_samples():
    """A remark says that the scheduler clips x_hat in samples."""
    load_plugins()
    importer, unet = registry("importer").get("diffusers").build({}), configuration("ddpm")
    assert importer.remarks({"unet": unet, "scheduler": {"clip_sample": False}}) == []
    (remark,) = importer.remarks({"unet": unet, "scheduler": {}})
    assert "x_hat in samples" in remark


def test_schedulers_of_other_noise_are_refused():
    """Schedulers with noise other than DDPM's are refused."""
    config = configuration("ddpm")
    whole = {"unet": config.get("unet", config), "scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler"}}
    with pytest.raises(CheckpointError, match="_class_name: 'FlowMatchEulerDiscreteScheduler'"):
        recipe_of("diffusers", whole)
    whole["scheduler"] = {"_class_name": "DDPMScheduler", "num_train_timesteps": 500}
    with pytest.raises(CheckpointError, match="num_train_timesteps: 500"):
        recipe_of("diffusers", whole)  # whose betas add up to half of DDPM's
    whole["scheduler"] = {"_class_name": "DDPMScheduler", "variance_type": "fixed_large"}
    assert recipe_of("diffusers", whole)["objective"]["kernel"] == {"name": "gaussian", "variance": "large"}


@pytest.mark.parametrize(("sigma_small", "variance"), [(None, "large"), (True, "small"), (False, "large")])
def test_fixed_variances_are_the_authors(sigma_small, variance):
    """Fixed variances of iDDPM are those of its configuration, in the bound and in samples."""
    config = configuration("improved")
    config["unet"]["out_channels"] = 3
    config["diffusion"] = {"steps": 200, "noise_schedule": "linear", "use_kl": True}
    if sigma_small is not None:
        config["diffusion"]["sigma_small"] = sigma_small
    tables = recipe_of("openai", config)
    kernel = {"name": "gaussian", "variance": variance}
    assert tables["objective"]["kernel"] == tables["sampling"]["sampler"]["kernel"] == kernel
    assert tables["objective"]["weighting"] == "elbo"


def test_a_network_that_predicts_x_is_trained_on_its_error():
    """A network that predicts x is trained on the squared error of x."""
    config = configuration("improved")
    config["unet"]["out_channels"] = 3
    config["diffusion"] = {"steps": 200, "noise_schedule": "linear", "predict_xstart": True}
    assert recipe_of("openai", config)["objective"]["weighting"] == {"name": "snr", "power": 0.0}


def test_factors_without_a_level_have_no_attention():
    """Attention at factors that no level has is ignored, as in the authors' code."""
    config = configuration("improved")
    config["unet"]["attention_resolutions"] = [16, 3, 2]
    assert recipe_of("openai", config)["model"]["network"]["attention"] == [config["image_size"] // 2]


@pytest.mark.parametrize(
    ("class_name", "weighting"),
    [("EDMPrecond", {"name": "edm", "sd": 0.7}), ("VPPrecond", "simple"), ("VEPrecond", "simple")],
)
def test_the_weights_of_edm_are_those_of_its_preconditioning(class_name, weighting):
    """The loss weighting of an imported EDM model follows from its preconditioning."""
    config = song() | {"class_name": class_name}
    if class_name == "EDMPrecond":
        config["sigma_data"] = 0.7
    assert recipe_of("edm", config)["objective"]["weighting"] == weighting


@pytest.mark.parametrize(("given", "used"), [("tn", "truncated_normal"), ("u", "uniform"), ("v", "truncated_normal")])
def test_the_dequantisation_of_idode(given, used):
    """Variational dequantization, which is not supported, is replaced with a remark."""
    config = configuration("idode-vp") | {"dequantization": given, "sm_n_timesteps": 1000}
    tables = recipe_of("idode", config)
    assert tables["likelihood"]["estimator"]["dequantisation"] == used
    assert tables["objective"]["steps"] == 0  # the authors do not read the number of timesteps
    assert bool(registry("importer").get("idode").build({}).remarks(config)) is (given != "tn")
    with pytest.raises(CheckpointError, match="dequantization: 'none'"):
        recipe_of("idode", config | {"dequantization": "none"})


def test_levels_of_noise_of_ve():
    """A VE network keeps its own range of noise levels."""
    config = song() | {"class_name": "VEPrecond", "sigma_min": 0.01, "sigma_max": 50}
    assert recipe_of("edm", config)["model"]["schedule"] == {"name": "log_linear", "sigma_min": 0.01, "sigma_max": 50.0}


def test_a_setting_of_other_blocks_is_of_no_effect():
    """A setting that the configured blocks do not use is ignored, as in the authors' code."""
    config = configuration("score_sde-ncsnpp")
    config["model"]["resamp_with_conv"] = False
    assert recipe_of("score_sde", config) == recipe_of("score_sde", configuration("score_sde-ncsnpp"))


def test_images_without_pixels_or_channels_are_refused():
    """A configuration of images without pixels or channels is refused."""
    load_plugins()
    importer = registry("importer").get("edm").build({})
    for name in ("img_channels", "img_resolution"):
        with pytest.raises(CheckpointError, match="describes images of"):
            described(importer, song() | {name: 0}, "a file")


@pytest.mark.parametrize(
    ("overrides", "asked"),
    [
        ([], ["images.npz", "data.classes=10"]),
        (["data.path=x.npz", "data.classes=10"], []),
        (["data.name=npz"], ["data.classes=10"]),
    ],
)
def test_data_are_asked_for_until_they_are_given(overrides, asked):
    """The remarks mention the images and classes as long as they are missing."""
    load_plugins()
    importer, config = registry("importer").get("edm").build({}), song() | {"img_resolution": 16, "label_dim": 10}
    remarks = " ".join(described(importer, config, "a file", overrides).remarks)
    assert [words for words in ("images.npz", "data.classes=10") if words in remarks] == asked


def test_arrays_that_do_not_fit_are_in_the_order_of_their_numbers():
    """Arrays that do not fit are listed in numerical order."""
    told = misfits({f"layer.{k}.weight": (3, k) for k in range(12)}, {"layer.0.weight": (3, 0)}, "network")
    lines = told.split("\n  ")
    assert lines[0] == "11 paths differ:"
    assert lines[1:] == [f"layer.{k}.weight: (3, {k}) in the file, nothing in the network" for k in range(1, 12)]
