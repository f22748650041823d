# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of NVlabs/edm (Karras et al. 2022, arXiv 2206.00364): state dicts, and pickles of `network-snapshot`."""

from collections.abc import Mapping
from typing import Any

from vdmkit.errors import CheckpointError
from vdmkit.importers import (
    AbstractImporter,
    Arrays,
    Config,
    Settings,
    WeightSource,
    fused_attention,
    published,
    sources_under,
    with_arrays,
    with_unet,
)
from vdmkit.model import DiffusionModel
from vdmkit.networks import UNet
from vdmkit.registry import register

_LAYERS = {
    "norm1": WeightSource("norm0"),
    "conv1": WeightSource("conv0"),
    "embed": WeightSource("affine"),
    "norm2": WeightSource("norm1"),
    "conv2": WeightSource("conv1"),
    "shortcut": WeightSource("skip", trailing=(1, 1)),
}
"""The layers of a block of EDM. Its attention follows in the same module."""

_PRECONDITIONINGS = {"EDMPrecond": "edm", "VPPrecond": "vp", "VEPrecond": "ve"}
_OF_FIRST_PAPERS = {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "epsilon_t": 1e-5}
_PROGRESSIVE = {"standard": "none", "skip": "skip", "residual": "residual"}
_AXES = {
    "edm": {"name": "log_sigma", "factor": 0.25, "unit": 1.0},
    "vp": {"name": "sde_time"},
    "ve": {"name": "log_sigma", "factor": 1.0, "unit": 2.0},
}
_SONG = (
    {"learning_rate": 1e-3, "warmup_steps": 19_531},
    {"steps": 390_625, "batch_size": 512, "ema": 0.9992905},  # 10, 200 and 0.5 (half-life) million images
)
_DHARIWAL = (
    {"learning_rate": 1e-4, "warmup_steps": 2441},
    {"steps": 610_352, "batch_size": 4096, "ema": 0.9999432},  # 10, 2500 and 50 million images
)
_TITLE = "the network of these arguments of EDM"


@register("importer", "edm")
class EdmImporter(AbstractImporter):
    """EDM's networks, DDPM++, NCSN++ and ADM, in its own preconditioning or that of Score-SDE's VP or VE."""

    def recipe(self, config: Config) -> dict[str, Any]:
        class_name = {"class_name": str(config.get("class_name", "EDMPrecond")).rpartition(".")[2]}
        with Settings(class_name, "this network") as settings:
            kind = _PRECONDITIONINGS[settings.only("class_name", *_PRECONDITIONINGS)]
        with Settings(config, _TITLE, partial=True) as settings:
            settings.of("img_resolution", int)
            settings.of("img_channels", int)
            settings.expect(_OF_FIRST_PAPERS)
        left_out = {"class_name", *_OF_FIRST_PAPERS}
        arguments = {name: value for name, value in config.items() if name not in left_out}
        network = edm_network(arguments, kind)
        model = {"network": network, "path": {"name": "variance_exploding"}} | _conventions(kind, arguments, network)
        weighting = {"name": "edm", "sd": config.get("sigma_data", 0.5)} if kind == "edm" else "simple"
        return published(
            model,
            {"time_sampler": "uniform", "weighting": weighting},  # that of EDMLoss, or 1 / sigma^2 of VPLoss and VELoss
            *(_DHARIWAL if network["name"] == "adm_unet" else _SONG),
            sampling={"sampler": "heun", "grid": "karras", "steps": 18},
        )

    def shape(self, config: Config) -> tuple[int, int, int]:
        size = config["img_resolution"]
        return size, size, config["img_channels"]

    def filled(self, model: DiffusionModel, arrays: Arrays, config: Config) -> DiffusionModel:
        return with_unet(model, lambda network: with_edm_arrays(network, arrays, config))

    def configuration(self, found: Config, given: Config | None) -> Config | None:
        """Returns the given configuration, or the arguments that the pickled network was constructed with."""
        network = found.get("network")
        if given is not None or network is None:
            return given
        if network["arguments"]:
            raise CheckpointError("the pickle does not name the arguments of its network. Give them by --config.")
        return {**network["keywords"], "class_name": network["class_name"]}

    def remarks(self, config: Config) -> list[str]:
        missing = "the augmentation and the " if config.get("augment_dim") else "the "
        return [f"EDM's files do not contain {missing}settings of training: those of the recipe are the paper's."]


def _conventions(kind: str, config: Config, network: dict[str, Any]) -> dict[str, Any]:
    """Returns schedule and prediction; D = x - sigma F of VPPrecond makes F eps, and x + sigma F of VEPrecond -eps."""
    with Settings(config, _TITLE, partial=True) as settings:
        scale = settings.of("sigma_data", float, 0.5)
        ve = {"sigma_min": settings.of("sigma_min", float, 0.02), "sigma_max": settings.of("sigma_max", float, 100.0)}
    if kind == "edm":
        return {"schedule": {"name": "log_normal"}, "prediction": {"name": "edm", "sd": scale}}
    if kind == "vp":
        return {"schedule": {"name": "linear_beta"}, "prediction": {"name": "eps"}}
    if network["name"] == "adm_unet":
        raise CheckpointError("VEPrecond with a DhariwalUNet cannot be built here: only with a SongUNet.")
    of_score = {"name": "ncsnpp", "by_sigma": True, "latent": {"name": "variance_exploding"}}
    if network["name"] == "ddpmpp":
        of_score |= {"features": "positional", "progressive_input": "none"}
    return {
        "schedule": {"name": "log_linear", **ve},
        "prediction": {"name": "score"},
        "network": {**network, **of_score},
    }


def edm_network(config: Mapping[str, Any], preconditioning: str = "edm") -> dict[str, Any]:
    """Returns the recipe table of the network that these arguments of EDM's constructors describe.

    Args:
        config: The arguments of EDMPrecond, including those of its model.
        preconditioning: How sigma enters the network: as in EDMPrecond ("edm"), VPPrecond ("vp"), or VEPrecond ("ve").

    Raises:
        CheckpointError: an argument is unknown, missing, or has a value that is not supported; all are listed.
    """
    with Settings(config, _TITLE) as model:
        is_song = model.only("model_type", "SongUNet", "DhariwalUNet") == "SongUNet"
        multipliers = model.of("channel_mult", tuple, (1, 2, 2, 2) if is_song else (1, 2, 3, 4))
        table = {
            "name": "adm_unet",
            "channels": model.of("model_channels", int, 128 if is_song else 192),
            "multipliers": [float(one) for one in multipliers],
            "blocks": model.of("num_blocks", int, 4 if is_song else 3),
            "attention": list(model.of("attn_resolutions", tuple, (16,) if is_song else (32, 16, 8))),
            "width_multiplier": model.of("channel_mult_emb", int, 4),
            "labels": model.of("label_dim", int, 0),
            "label_dropout": model.of("label_dropout", float, 0.0),
            "augment": model.of("augment_dim", int, 0),
            "dropout": model.of("dropout", float, 0.10),
            "noise_embedding": _AXES[preconditioning],
        }
        if is_song:
            features = model.only("embedding_type", "positional", "fourier")
            encoder = _PROGRESSIVE[model.only("encoder_type", "standard", "skip", "residual")]
            decoder = _PROGRESSIVE[model.only("decoder_type", "standard", "skip")]
            table |= {
                "name": "ddpmpp",
                "features_multiplier": model.of("channel_mult_noise", int, 1),
                "taps": model.taps("resample_filter", (1, 1)),
                "latent": {"name": "variance_preserving"},
            }
            if (features, encoder, decoder) != ("positional", "none", "none"):
                table |= {"name": "ncsnpp", "features": features}
                table |= {"progressive_input": encoder, "progressive_output": decoder}
        else:
            table |= {"head_channels": model.of("channels_per_head", int, 64), "group_size": 4}
        model.of("img_resolution", int)
        model.ignore("img_channels", "in_channels", "out_channels", "sigma_data", "use_fp16")
        model.ignore("sigma_min", "sigma_max", "seed")
    return table


def with_edm_arrays(network: UNet, arrays: dict[str, Any], config: Mapping[str, Any]) -> UNet:
    """Returns the network with the parameters and buffers of EDM, by the authors' names.

    The arrays are removed from `arrays`.

    Raises:
        CheckpointError: paths or shapes do not match; all mismatches are listed.
    """
    return with_arrays(
        network,
        _sources(network, config["img_resolution"]),
        arrays,
        name_of=lambda name: name.removeprefix("model."),
        unused=lambda name: name.endswith("resample_filter"),
    )


def _sources(network: UNet, height: int) -> dict[str, WeightSource]:
    """Returns the authors' source of every layer; most are named by the resolution."""
    n, design = len(network.down), network.design
    sizes = [f"{height >> i}x{height >> i}" for i in range(n + 1)]
    sources = {
        "embedding/features": WeightSource("map_noise", fields=("freqs", "")),
        "embedding/dense0": WeightSource("map_layer0"),
        "embedding/dense1": WeightSource("map_layer1"),
        "embedding/label": WeightSource("map_label"),
        "embedding/augment": WeightSource("map_augment"),
        "conv_in": WeightSource(f"enc.{sizes[0]}_conv"),
    }
    stages = [(f"mid/{i}", f"dec.{sizes[n - 1]}_in{i}", stage) for i, stage in enumerate(network.mid)]
    for i in range(n):
        here, below = sizes[i], sizes[i + 1]
        stages += [
            (f"down/{i}/stages/{j}", f"enc.{here}_block{j}", one) for j, one in enumerate(network.down[i].stages)
        ]
        sources |= sources_under(f"down/{i}/leave", f"enc.{below}_down", _LAYERS)
        is_skip = design.progressive_input == "skip"
        skip, residual = (
            WeightSource(f"enc.{below}_aux_skip", trailing=(1, 1)),
            WeightSource(f"enc.{below}_aux_residual"),
        )
        sources[f"down/{i}/pyramid"] = skip if is_skip else residual
    for i in range(n):
        here = sizes[n - 1 - i]
        stages += [(f"up/{i}/stages/{j}", f"dec.{here}_block{j}", one) for j, one in enumerate(network.up[i].stages)]
        if i < n - 1:
            sources |= sources_under(f"up/{i}/leave", f"dec.{sizes[n - 2 - i]}_up", _LAYERS)
        head = "out" if design.cosines_first else f"dec.{here}_aux"
        sources |= {
            f"up/{i}/head/norm": WeightSource(f"{head}_norm"),
            f"up/{i}/head/conv": WeightSource(f"{head}_conv"),
        }
    for ours, theirs, stage in stages:
        sources |= sources_under(f"{ours}/block", theirs, _LAYERS)
        if stage.attention is not None:
            order = ("head", "channel", "qkv")
            attention = fused_attention("norm2", "qkv", "proj", stage.attention.heads, order, (1, 1))
            sources |= sources_under(f"{ours}/attention", theirs, attention)
    return sources
