# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of yang-song/score_sde_pytorch and score_sde (Song et al. 2021, arXiv 2011.13456).

The array names of score_sde's Flax files were derived from its source code. Its models agree with vdmkit's within 1e-14
in float64; no published file was compared.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from vdmkit.importers import (
    AbstractImporter,
    Arrays,
    Config,
    Settings,
    WeightSource,
    published,
    sources_under,
    with_arrays,
    with_unet,
)
from vdmkit.model import DiffusionModel
from vdmkit.networks import UNet
from vdmkit.networks.layers import FourierFeatures
from vdmkit.networks.unet import Block, Stage
from vdmkit.registry import register

_NIN = {"fields": ("W", "b"), "inputs_first": True}
_MODULES = {
    "ResnetBlockBigGANpp": {
        "norm1": WeightSource("GroupNorm_0"),
        "conv1": WeightSource("Conv_0"),
        "embed": WeightSource("Dense_0"),
        "norm2": WeightSource("GroupNorm_1"),
        "conv2": WeightSource("Conv_1"),
        "shortcut": WeightSource("Conv_2", trailing=(1, 1)),
    },
    "AttnBlockpp": {
        "norm": WeightSource("GroupNorm_0"),
        "q": WeightSource("NIN_0", **_NIN),
        "k": WeightSource("NIN_1", **_NIN),
        "v": WeightSource("NIN_2", **_NIN),
        "proj_out": WeightSource("NIN_3", **_NIN),
    },
    "Combine": {"pyramid": WeightSource("Conv_0", trailing=(1, 1))},
    "Downsample": {"pyramid": WeightSource("Conv2d_0")},
}
"""The layers of the authors' modules by their class, as torch has them; for Flax see `_in_flax`."""

_PROGRESSIVE = {"none": "none", "input_skip": "skip", "output_skip": "skip", "residual": "residual"}
_PATHS = {"vpsde": "variance_preserving", "subvpsde": "sub_variance_preserving", "vesde": "variance_exploding"}
_SCHEDULES = {"vpsde": "linear_beta", "subvpsde": "sub_vp_linear_beta"}
_OF_DATA = ("dataset", "uniform_dequantization", "tfrecords_path")
_OF_TRAINING = ("eval_freq", "log_freq", "n_jitted_steps", "snapshot_freq", "snapshot_freq_for_preemption")
_OF_TRAINING += ("snapshot_sampling",)
_OF_MODEL = ("ema_rate", "fourier_scale", "init_scale", "num_scales", "sigma_max", "sigma_min")
_OF_MODEL += ("resamp_with_conv",)  # used by the other kind of residual block
_UNSUPPORTED = {
    "name": "ncsnpp",
    "conditional": True,
    "resblock_type": "biggan",
    "attention_type": "ddpm",
    "progressive_combine": "sum",
    "nonlinearity": "swish",
    "normalization": "GroupNorm",
    "conv_size": 3,
}
"""Fields of the model with the only value that is supported."""


@register("importer", "score_sde")
class ScoreSdeImporter(AbstractImporter):
    """DDPM++ and NCSN++ of Score-SDE in continuous time."""

    def recipe(self, config: Config) -> dict[str, Any]:
        with Settings(config, "this configuration of Score-SDE") as settings:
            for name in ("data", "model", "training", "optim"):
                settings.of(name, dict)
            settings.ignore("sampling", "eval", "seed", "device")
        with Settings(config["data"], "the data of this configuration of Score-SDE") as settings:
            settings.of("image_size", int)
            settings.of("num_channels", int)
            settings.ignore(*_OF_DATA)
            unit = 1.0 if settings.of("centered", bool, False) else 2.0  # their [0, 1] is our [-1, 1]
            flip = settings.of("random_flip", bool, False)
        with Settings(config["training"], "the training of this configuration of Score-SDE") as settings:
            sde = settings.only("sde", *_PATHS)
            training = {"steps": settings.of("n_iters", int, 1_300_001)}
            training["batch_size"] = settings.of("batch_size", int, 128)
            weighting = "elbo" if settings.of("likelihood_weighting", bool, False) else "simple"
            settings.only("continuous", True, default=False)
            settings.of("reduce_mean", bool, False)
            settings.ignore(*_OF_TRAINING)
        network, is_ve = score_sde_network(config), sde == "vesde"
        with Settings(config["optim"], "the optimiser of this configuration of Score-SDE") as settings:
            settings.expect({"optimizer": "Adam", "weight_decay": 0})
            optimizer = {
                "learning_rate": settings.of("lr", float, 2e-4),
                "b1": settings.of("beta1", float, 0.9),
                "eps": settings.of("eps", float, 1e-8),
                "warmup_steps": settings.of("warmup", int, 5000),
                "clip_norm": max(settings.of("grad_clip", float, 1.0), 0.0),
            }
        with Settings(config["model"], "the model of this configuration of Score-SDE", partial=True) as settings:
            # The output of the network must be the score of VE, or eps of VP.
            settings.only("embedding_type", "fourier" if is_ve else "positional", default="fourier")
            settings.only("scale_by_sigma", is_ve)
            ema = {"ema": settings.of("ema_rate", float), "ema_warmup": True}
            if is_ve:
                low, high = settings.of("sigma_min", float, 0.01), settings.of("sigma_max", float, 50.0)
                schedule = {"name": "log_linear", "sigma_min": unit * low, "sigma_max": unit * high}
            else:
                schedule = {"name": _SCHEDULES[sde], **_betas(settings)}
        prediction = {"name": "score" if is_ve else "eps"}
        return published(
            {"schedule": schedule, "path": network["latent"], "prediction": prediction, "network": network},
            {"weighting": weighting},
            optimizer,
            training | ema,
            flip=flip,
            likelihood={"estimator": {"name": "ode", "dequantisation": "uniform"}},
        )

    def shape(self, config: Config) -> tuple[int, int, int]:
        data = config["data"]
        return data["image_size"], data["image_size"], data["num_channels"]

    def filled(self, model: DiffusionModel, arrays: Arrays, config: Config) -> DiffusionModel:
        return with_unet(model, lambda network: with_score_sde_arrays(network, arrays))


def score_sde_network(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the recipe table of the network that a configuration of Score-SDE describes.

    Raises:
        CheckpointError: a field is unknown, missing, or has a value that is not supported; all are listed.
    """
    wanted, centered = config.get("training", {}).get("sde", "vpsde"), config.get("data", {}).get("centered")
    sde = str(wanted).lower() if str(wanted).lower() in _PATHS else "vpsde"
    with Settings(config.get("model", {}), "the model of this configuration of Score-SDE") as model:
        is_fourier = model.only("embedding_type", "fourier", "positional") == "fourier"
        by_sigma = model.of("scale_by_sigma", bool)
        is_fir = model.of("fir", bool)
        model.ignore("fir_kernel")
        axis = {"name": "sde_time", **_betas(model), "sde": "vp" if sde == "vpsde" else "sub_vp"}
        if sde == "vesde":
            axis = {"name": "log_sigma", "factor": 1.0, "unit": 1.0 if centered else 2.0}
        table = {
            "name": "ddpmpp",
            "channels": model.of("nf", int),
            "multipliers": [float(one) for one in model.of("ch_mult", tuple)],
            "blocks": model.of("num_res_blocks", int),
            "attention": list(model.of("attn_resolutions", tuple)),
            "dropout": model.of("dropout", float),
            "taps": model.taps("fir_kernel", (1, 3, 3, 1)) if is_fir else [1.0, 1.0],
            "rescale": model.of("skip_rescale", bool),
            "features_multiplier": 2 if is_fourier else 1,
            "noise_embedding": axis,
            "latent": {"name": _PATHS[sde]},
        }
        progressive = {
            "progressive_input": _PROGRESSIVE[model.only("progressive_input", "none", "input_skip", "residual")],
            "progressive_output": _PROGRESSIVE[model.only("progressive", "none", "output_skip")],
        }
        model.expect(_UNSUPPORTED)
        model.ignore(*_OF_MODEL)
        if str(wanted).lower() not in _PATHS:
            model.problem(f"training.sde: {wanted!r}, but {' or '.join(_PATHS)} is expected")
        if sde != "vesde" and not centered:
            model.problem("data.centered: False, but True is expected for this SDE, whose data are in [-1, 1] here")
        if not is_fourier and (by_sigma or sde == "vesde"):
            model.problem("embedding_type: 'positional', but 'fourier' is expected for the variance exploding SDE")
        if progressive["progressive_input"] == "residual" and not is_fir:
            model.problem("fir: False, but True is expected with progressive_input = 'residual'")
    if not is_fourier and set(progressive.values()) == {"none"}:
        return table
    features = {"features": "fourier" if is_fourier else "positional", "by_sigma": by_sigma}
    return table | {"name": "ncsnpp", **features, **progressive}


def _betas(model: Settings) -> dict[str, float]:
    return {"beta_min": model.of("beta_min", float, 0.1), "beta_max": model.of("beta_max", float, 20.0)}


def with_score_sde_arrays(network: UNet, arrays: dict[str, Any]) -> UNet:
    """Returns the network with the parameters and buffers of Score-SDE, by the names of its torch or Flax code.

    The arrays are removed from `arrays`.

    Raises:
        CheckpointError: paths or shapes do not match; all mismatches are listed.
    """
    is_flax = any("/" in name for name in arrays)
    sources: dict[str, WeightSource] = {}
    numbers: Counter[str] = Counter()
    for number, (path, kind) in enumerate(_modules(network)):
        # torch numbers all modules in the order of construction, Flax those of each class separately.
        theirs = f"{kind}_{numbers[kind]}" if is_flax else f"all_modules.{number}"
        numbers[kind] += 1
        if kind in _MODULES:
            layers = _MODULES[kind]
            sources |= sources_under(
                path, theirs, {ours: _in_flax(one) for ours, one in layers.items()} if is_flax else layers
            )
        elif kind == "GaussianFourierProjection":
            sources[path] = WeightSource(theirs, fields=("W", ""))
        else:
            sources[path] = _in_flax(WeightSource(theirs)) if is_flax else WeightSource(theirs)
    if is_flax:
        return with_arrays(network, sources, arrays, joint="/")
    return with_arrays(
        network,
        sources,
        arrays,
        name_of=lambda name: name.removeprefix("module."),
        unused=lambda name: name == "sigmas",
    )


def _in_flax(source: WeightSource) -> WeightSource:
    """Returns the source of a layer in Flax, which has inputs before outputs; NIN layers are the same in both codes."""
    if source.name.startswith("NIN"):
        return source
    if source.name.startswith("GroupNorm"):
        return replace(source, fields=("scale", "bias"))
    kernel = "weight" if source.name.startswith("Conv2d") else "kernel"
    return replace(source, fields=(kernel, "bias"), inputs_first=True, leading=source.trailing, trailing=())


def _modules(network: UNet) -> Iterator[tuple[str, str]]:
    """Yields our path, and the class in their Flax code, of each of their modules in the order of construction."""

    def of_stages(path: str, stages: tuple[Stage, ...]) -> Iterator[tuple[str, str]]:
        for i, stage in enumerate(stages):
            yield f"{path}/{i}/block", "ResnetBlockBigGANpp"
            if stage.attention is not None:
                yield f"{path}/{i}/attention", "AttnBlockpp"

    if isinstance(network.embedding.features, FourierFeatures):
        yield "embedding/features", "GaussianFourierProjection"
    yield from (("embedding/dense0", "Dense"), ("embedding/dense1", "Dense"), ("conv_in", "Conv"))
    for i, level in enumerate(network.down):
        yield from of_stages(f"down/{i}/stages", level.stages)
        if isinstance(level.leave, Block):
            yield f"down/{i}/leave", "ResnetBlockBigGANpp"
        if level.pyramid is not None:
            yield f"down/{i}", "Combine" if network.design.progressive_input == "skip" else "Downsample"
    yield from of_stages("mid", network.mid)
    for i, level in enumerate(network.up):
        yield from of_stages(f"up/{i}/stages", level.stages)
        if level.head is not None:
            yield from ((f"up/{i}/head/norm", "GroupNorm"), (f"up/{i}/head/conv", "Conv"))
        if level.leave is not None:
            yield f"up/{i}/leave", "ResnetBlockBigGANpp"
