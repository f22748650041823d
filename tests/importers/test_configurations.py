# SPDX-License-Identifier: Apache-2.0
"""What an importer makes of the authors' settings, found by their code on configurations without a golden here."""

import json
from pathlib import Path
from typing import Any

import pytest

from vdmkit.errors import CheckpointError
from vdmkit.registry import load_plugins, registry

NETWORKS = Path(__file__).parents[1] / "reference" / "networks"


def configuration(folder: str) -> dict[str, Any]:
    return json.loads((NETWORKS / folder / "config.json").read_text())


def song() -> dict[str, Any]:
    """EDM's DDPM++, with the sizes of a folder of its ADM."""
    config = configuration("edm-adm") | {"model_type": "SongUNet"}
    del config["channels_per_head"]
    return config


def recipe_of(family: str, config: dict[str, Any]) -> dict[str, Any]:
    load_plugins()
    return registry("importer").get(family).build({}).recipe(config)


def test_filters_that_are_not_symmetrical_are_refused():
    """The authors turn a filter around in one direction or both: denoisers would be a tenth and more wrong."""
    config = configuration("score_sde-ncsnpp")
    config["model"]["fir_kernel"] = [1, 2, 3, 4]
    with pytest.raises(CheckpointError, match=r"fir_kernel: .* symmetrical"):
        recipe_of("score_sde", config)
    with pytest.raises(CheckpointError, match=r"resample_filter: .* symmetrical"):
        recipe_of("edm", song() | {"resample_filter": [1, 2]})


def test_data_of_another_range_are_refused():
    """The VP SDE of data in [0, 1] has half the signal: denoisers would be a tenth and more wrong."""
    config = configuration("score_sde-ncsnpp")
    config["training"]["sde"] = "vpsde"
    config["model"] |= {"embedding_type": "positional", "scale_by_sigma": False}
    config["data"]["centered"] = False
    with pytest.raises(CheckpointError, match=r"data\.centered: False"):
        recipe_of("score_sde", config)


def test_heads_of_diffusers_have_8_channels_by_default():
    """A folder that does not say the size of a head would have one head."""
    config = configuration("ddpm")
    unet = config.get("unet", config)
    assert recipe_of("diffusers", config)["model"]["network"]["head_channels"] == 0  # of null
    del unet["attention_head_dim"]
    assert recipe_of("diffusers", config)["model"]["network"]["head_channels"] == 8


def test_schedulers_of_other_noise_are_refused():
    """A model of flow matching would be measured with DDPM's noise."""
    config = configuration("ddpm")
    whole = {"unet": config.get("unet", config), "scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler"}}
    with pytest.raises(CheckpointError, match="_class_name: 'FlowMatchEulerDiscreteScheduler'"):
        recipe_of("diffusers", whole)
    whole["scheduler"] = {"_class_name": "DDPMScheduler", "variance_type": "fixed_large"}
    assert recipe_of("diffusers", whole)["objective"]["kernel"] == {"name": "gaussian", "variance": "large"}


@pytest.mark.parametrize(("sigma_small", "variance"), [(None, "large"), (True, "small"), (False, "large")])
def test_fixed_variances_are_the_authors(sigma_small, variance):
    """The bound of iDDPM without learned variances would be another than that which it is trained on."""
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
    """Training on would minimise the error of eps, a thousand times another loss at the ends."""
    config = configuration("improved")
    config["unet"]["out_channels"] = 3
    config["diffusion"] = {"steps": 200, "noise_schedule": "linear", "predict_xstart": True}
    assert recipe_of("openai", config)["objective"]["weighting"] == {"name": "snr", "power": 0.0}


def test_factors_without_a_level_have_no_attention():
    """A configuration that the authors' code takes would be refused, or end in paths that do not fit."""
    config = configuration("improved")
    config["unet"]["attention_resolutions"] = [16, 3, 2]
    assert recipe_of("openai", config)["model"]["network"]["attention"] == [config["image_size"] // 2]


@pytest.mark.parametrize(
    ("class_name", "weighting"),
    [("EDMPrecond", {"name": "edm", "sd": 0.7}), ("VPPrecond", "simple"), ("VEPrecond", "simple")],
)
def test_the_weights_of_edm_are_those_of_its_preconditioning(class_name, weighting):
    """An imported model would be trained on with the weights of another."""
    config = song() | {"class_name": class_name}
    if class_name == "EDMPrecond":
        config["sigma_data"] = 0.7
    assert recipe_of("edm", config)["objective"]["weighting"] == weighting
