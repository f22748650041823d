# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of NVlabs/edm (Karras et al. 2022, arXiv 2206.00364): state dicts, and pickles of `network-snapshot`."""

from typing import Any

from vdmkit.errors import CheckpointError
from vdmkit.importers._edm_names import edm_network, with_edm_arrays
from vdmkit.importers._importer import AbstractImporter, Config
from vdmkit.importers._published import AS_IMAGE, FLIPS, published
from vdmkit.importers._settings import Settings
from vdmkit.importers._unet import with_unet
from vdmkit.importers.files._adam import Arrays
from vdmkit.model import DiffusionModel
from vdmkit.registry import register

_KINDS = {"EDMPrecond": "edm", "VPPrecond": "vp", "VEPrecond": "ve"}
_OF_FIRST_PAPERS = {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "epsilon_t": 1e-5}


@register("importer", "edm")
class EdmImporter(AbstractImporter):
    """EDM's networks, DDPM++, NCSN++ and ADM, in its own preconditioning or that of Score-SDE's VP or VE."""

    def recipe(self, config: Config) -> dict[str, Any]:
        kind, arguments = _parts(config)
        network = edm_network(arguments, kind)
        model = {"network": network, "path": {"name": "variance_exploding"}} | _conventions(kind, arguments, network)
        optimizer, training = _SONG if network["name"] != "adm_unet" else _DHARIWAL
        sampling = {"sampler": "heun", "grid": "karras", **AS_IMAGE, "steps": 18}
        return published(
            model,
            {"time_sampler": "uniform", "weighting": _weighting(kind, config)},
            optimizer,
            training,
            augmentations=FLIPS,
            sampling=sampling,
        )

    def shape(self, config: Config) -> tuple[int, int, int]:
        size = config["img_resolution"]
        return size, size, config["img_channels"]

    def filled(self, model: DiffusionModel, arrays: Arrays, config: Config) -> DiffusionModel:
        return with_unet(model, lambda network: with_edm_arrays(network, arrays, config))

    def configuration(self, found: Config, given: Config | None) -> Config | None:
        """Returns the given one, or the arguments with which the pickled network was made."""
        network = found.get("network")
        if given is not None or network is None:
            return given
        if network["arguments"]:
            raise CheckpointError("the pickle does not name the arguments of its network. Give them by --config.")
        return {**network["keywords"], "class_name": network["class_name"]}

    def remarks(self, config: Config) -> list[str]:
        known = "the augmentation and the " if config.get("augment_dim") else "the "
        return [f"EDM's files do not say {known}settings of training: those of the recipe are the paper's."]


_SONG = (
    {"learning_rate": 1e-3, "warmup_steps": 19_531},
    {"steps": 390_625, "batch_size": 512, "ema": 0.9992905},  # 10, 200 and 0.5 (half-life) million images
)
_DHARIWAL = (
    {"learning_rate": 1e-4, "warmup_steps": 2441},
    {"steps": 610_352, "batch_size": 4096, "ema": 0.9999432},  # 10, 2500 and 50 million images
)


def _weighting(kind: str, config: Config) -> str | dict[str, Any]:
    """Returns the weights of EDMLoss, or 1 / sigma^2 of VPLoss and VELoss."""
    return {"name": "edm", "sd": config.get("sigma_data", 0.5)} if kind == "edm" else "simple"


def _parts(config: Config) -> tuple[str, dict[str, Any]]:
    """Returns the preconditioning, and the arguments that concern the network."""
    settings = Settings({"class_name": str(config.get("class_name", "EDMPrecond")).rpartition(".")[2]}, "this network")
    kind = _KINDS[settings.only("class_name", *_KINDS)]
    settings.finish()
    rest = Settings(
        {name: config[name] for name in ("img_resolution", "img_channels", *_OF_FIRST_PAPERS) if name in config},
        "the network of these arguments of EDM",
    )
    rest.of("img_resolution", int)
    rest.of("img_channels", int)
    for name, value in _OF_FIRST_PAPERS.items():
        rest.only(name, value)
    rest.finish()
    left_out = {"class_name", *_OF_FIRST_PAPERS}
    return kind, {name: value for name, value in config.items() if name not in left_out}


def _conventions(kind: str, config: Config, network: dict[str, Any]) -> dict[str, Any]:
    """Returns schedule and prediction; D = x - sigma F of VPPrecond makes F eps, and x + sigma F of VEPrecond -eps."""
    settings = Settings({"sigma_data": config.get("sigma_data", 0.5)}, "the network of these arguments of EDM")
    scale = settings.of("sigma_data", float)
    settings.finish()
    schedule = {"name": "log_normal"}
    if kind == "edm":
        return {"schedule": schedule, "prediction": {"name": "edm", "sd": scale}}
    if kind == "vp":
        return {"schedule": {"name": "linear_beta"}, "prediction": {"name": "eps"}}
    if network["name"] == "adm_unet":
        raise CheckpointError("VEPrecond with a DhariwalUNet cannot be built here: only with a SongUNet.")
    of_score = {"by_sigma": True, "latent": {"name": "variance_exploding"}}
    if network["name"] == "ddpmpp":
        of_score |= {"features": "positional", "progressive_input": "none"}
    return {
        "schedule": _ve(config),
        "prediction": {"name": "score"},
        "network": {**network, "name": "ncsnpp", **of_score},
    }


def _ve(config: Config) -> dict[str, Any]:
    """Returns the noise levels that VEPrecond supports."""
    settings = Settings(config, "the network of these arguments of EDM")
    ends = {"sigma_min": settings.of("sigma_min", float, 0.02), "sigma_max": settings.of("sigma_max", float, 100.0)}
    settings.ignore(*config)
    settings.finish()
    return {"name": "log_linear", **ends}
