# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of yang-song/score_sde_pytorch and score_sde (Song et al. 2021, arXiv 2011.13456)."""

from typing import Any

from vdmkit.importers._importer import AbstractImporter, Config
from vdmkit.importers._published import AS_IMAGE, BY_FLOW, FLIPS, published
from vdmkit.importers._score_sde_names import score_sde_network, with_score_sde_arrays
from vdmkit.importers._settings import Settings
from vdmkit.importers._unet import with_unet
from vdmkit.importers.files._adam import Arrays
from vdmkit.model import DiffusionModel
from vdmkit.registry import register

_SCHEDULES = {"vpsde": "linear_beta", "subvpsde": "sub_vp_linear_beta"}
_OF_TRAINING = (
    "eval_freq",
    "log_freq",
    "n_jitted_steps",
    "snapshot_freq",
    "snapshot_freq_for_preemption",
    "snapshot_sampling",
)
_OF_DATA = ("dataset", "uniform_dequantization", "tfrecords_path")


@register("importer", "score_sde")
class ScoreSdeImporter(AbstractImporter):
    """DDPM++ and NCSN++ of Score-SDE, of continuous time."""

    def recipe(self, config: Config) -> dict[str, Any]:
        data, training = _data(config), _training(config)
        network, optimizer = score_sde_network(config), _optimizer(config)
        model = config["model"]
        is_ve = training["sde"] == "vesde"
        _check_pairing(model, is_ve=is_ve)
        schedule = _ve(model, 1.0 if data["centered"] else 2.0) if is_ve else _vp(model, training["sde"])
        parts = {"schedule": schedule, "path": network["latent"], "prediction": {"name": "score" if is_ve else "eps"}}
        return published(
            parts | {"network": network},
            {"weighting": "elbo" if training["likelihood_weighting"] else "simple"},
            optimizer,
            {name: training[name] for name in ("steps", "batch_size")} | {"ema": model["ema_rate"], "ema_warmup": True},
            augmentations=FLIPS if data["random_flip"] else [],
            likelihood=BY_FLOW,
            sampling=AS_IMAGE,
        )

    def shape(self, config: Config) -> tuple[int, int, int]:
        data = config["data"]
        return data["image_size"], data["image_size"], data["num_channels"]

    def filled(self, model: DiffusionModel, arrays: Arrays, config: Config) -> DiffusionModel:
        return with_unet(model, lambda network: with_score_sde_arrays(network, arrays))


def _data(config: Config) -> dict[str, Any]:
    sections = Settings(config, "this configuration of Score-SDE")
    section = {name: sections.of(name, dict) for name in ("data", "model", "training", "optim")}["data"]
    sections.ignore("sampling", "eval", "seed", "device")
    sections.finish()
    settings = Settings(section, "the data of this configuration of Score-SDE")
    settings.of("image_size", int)
    settings.of("num_channels", int)
    settings.ignore(*_OF_DATA)
    found = {name: settings.of(name, bool, False) for name in ("centered", "random_flip")}
    settings.finish()
    return found


def _training(config: Config) -> dict[str, Any]:
    settings = Settings(config["training"], "the training of this configuration of Score-SDE")
    found = {
        "sde": settings.only("sde", "vpsde", "subvpsde", "vesde"),
        "steps": settings.of("n_iters", int, 1_300_001),
        "batch_size": settings.of("batch_size", int, 128),
        "likelihood_weighting": settings.of("likelihood_weighting", bool, False),
    }
    settings.only("continuous", True, default=False)
    settings.of("reduce_mean", bool, False)
    settings.ignore(*_OF_TRAINING)
    settings.finish()
    return found


def _optimizer(config: Config) -> dict[str, Any]:
    settings = Settings(config["optim"], "the optimiser of this configuration of Score-SDE")
    settings.only("optimizer", "Adam")
    settings.only("weight_decay", 0)
    found = {
        "learning_rate": settings.of("lr", float, 2e-4),
        "b1": settings.of("beta1", float, 0.9),
        "eps": settings.of("eps", float, 1e-8),
        "warmup_steps": settings.of("warmup", int, 5000),
        "clip_norm": max(settings.of("grad_clip", float, 1.0), 0.0),
    }
    settings.finish()
    return found


def _check_pairing(model: Config, *, is_ve: bool) -> None:
    """Raises CheckpointError for a network whose output is not the score of VE, or eps of VP."""
    settings = Settings(model, "the model of this configuration of Score-SDE")
    settings.only("embedding_type", "fourier" if is_ve else "positional", default="fourier")
    settings.only("scale_by_sigma", is_ve)
    settings.of("ema_rate", float)
    settings.ignore(*model)
    settings.finish()


def _vp(model: Config, sde: str) -> dict[str, Any]:
    settings = Settings(model, "the model of this configuration of Score-SDE")
    betas = {"beta_min": settings.of("beta_min", float, 0.1), "beta_max": settings.of("beta_max", float, 20.0)}
    settings.ignore(*model)
    settings.finish()
    return {"name": _SCHEDULES[sde], **betas}


def _ve(model: Config, unit: float) -> dict[str, Any]:
    """Returns the schedule; `unit` is ours over the authors' unit of images: their [0, 1] is our [-1, 1]."""
    settings = Settings(model, "the model of this configuration of Score-SDE")
    ends = {
        "sigma_min": unit * settings.of("sigma_min", float, 0.01),
        "sigma_max": unit * settings.of("sigma_max", float, 50.0),
    }
    settings.ignore(*model)
    settings.finish()
    return {"name": "log_linear", **ends}
