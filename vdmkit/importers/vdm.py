# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the authors' code (google-research/vdm; Kingma et al. 2021, arXiv 2107.00630)."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from vdmkit.errors import CheckpointError
from vdmkit.importers.formats import Arrays, find_adam, flat_arrays, read_checkpoint, step_in
from vdmkit.importers.loader import AbstractImporter, Config
from vdmkit.importers.translation import Settings, misfits
from vdmkit.model import DiffusionModel
from vdmkit.registry import register

Model = TypeVar("Model", bound=eqx.Module)

NAMES = (
    (r"^schedule/", "gamma/"),
    (r"^network/(conditioning/)?", "score_model/"),
    (r"^encoder/(conditioning/)?", "encoder_model/"),
    (r"/(down|up)/(\d+)/block/", r"/\1.block_\2/"),
    (r"/(down|up)/(\d+)/attention/", r"/\1.attn_\2/"),
    (r"/mid/0/block/", "/mid.block_1/"),
    (r"/mid/0/attention/", "/mid.attn_1/"),
    (r"/mid/1/block/", "/mid.block_2/"),
    (r"/(norm|norm1|norm_out)/", "/GroupNorm_0/"),
    (r"/norm2/", "/GroupNorm_1/"),
    (r"/shortcut/", "/nin_shortcut/"),
)
"""Substitutions that make the authors' path of ours, such as network/down/3/block/norm1/scale; applied in order."""

_SCHEDULES = {"fixed": "fixed_linear", "learnable_scalar": "learned_linear", "learnable_nnet": "learned_monotone"}


@register("importer", "vdm")
class VdmImporter(AbstractImporter):
    """Variational diffusion models of the paper (Kingma et al. 2021, arXiv 2107.00630)."""

    def recipe(self, config: Config) -> dict[str, Any]:
        return official_recipe(config)

    def shape(self, config: Config) -> tuple[int, int, int]:
        return 32, 32, 3

    def filled(self, model: DiffusionModel, arrays: Arrays, config: Config) -> DiffusionModel:
        return with_vdm_arrays(model, arrays)


def official_recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the recipe tables for a model of the authors, by the fields of their VDMConfig.

    The configuration does not contain data or training settings, so these are set for the authors' CIFAR-10 model
    without augmentation. For other checkpoints, change `data`, `augmentations`, `optimizer` and `training`.

    Raises:
        CheckpointError: a field is unknown, missing, or has a value that is not supported; all are listed.
    """
    with Settings(config, "this configuration of VDM") as settings:
        for name in ("vocab_size", "sample_softmax", "gamma_type"):
            if not settings.has(name):
                settings.problem(f"{name}: missing")
        settings.expect({"vocab_size": 256, "sample_softmax": False})
        settings.ignore("sm_kernel_init")  # the authors' code never reads it
        schedule = {
            "name": _SCHEDULES[settings.only("gamma_type", *_SCHEDULES)],
            "gamma_min": settings.of("gamma_min", float),
            "gamma_max": settings.of("gamma_max", float),
        }
        network = {
            "name": "vdm_unet",
            "channels": settings.of("sm_n_embd", int),
            "blocks": settings.of("sm_n_layer", int),
            "attention": settings.of("with_attention", bool),
            "fourier": settings.of("with_fourier_features", bool),
            "dropout": settings.of("sm_pdrop", float),
        }
        is_antithetic = settings.of("antithetic_time_sampling", bool)
        objective = {
            "time_sampler": "low_discrepancy" if is_antithetic else "uniform",
            "weighting": "elbo",
            "steps": settings.of("sm_n_timesteps", int),
        }
    return {
        "seed": 1,
        "data": {"name": "cifar10"},
        "model": {
            "schedule": schedule,
            "path": {"name": "variance_preserving"},
            "prediction": {"name": "eps"},
            "network": network,
            "observation": {"name": "categorical"},
        },
        "objective": objective,
        "optimizer": {"name": "adamw", "learning_rate": 2e-4, "b2": 0.99, "weight_decay": 0.01, "warmup_steps": 100},
        "training": {"steps": 10_000_000, "batch_size": 128, "ema": 0.9999},
    }


def with_vdm_arrays(model: Model, arrays: Arrays) -> Model:
    """Returns the model with parameters by the authors' paths. Raises CheckpointError if they do not fit.

    Any module with the fields `schedule` and `network`, or `encoder`, will do, such as MuLAN's model.
    """
    _check_fit(arrays, _parameters(model))
    return with_official_parameters(model, arrays)


class OfficialCheckpoint(eqx.Module):
    """A checkpoint of the authors. mu and nu (Adam's moments) have the structure of the model's parameters."""

    step: int
    model: DiffusionModel
    ema: DiffusionModel
    mu: PyTree
    nu: PyTree
    count: Int[Array, ""]


def load_official(path: Path, template: DiffusionModel) -> OfficialCheckpoint:
    """Reads a `ckpt-<n>.flax` file (Flax msgpack of step, params, ema_params, opt_state) into models like `template`.

    Args:
        path: The file.
        template: A model built from the checkpoint's config; its arrays may be `jax.ShapeDtypeStruct`.

    Raises:
        CheckpointError: the file cannot be read, or its arrays do not fit the template; the message lists every path
            and shape that differs.
    """
    content = read_checkpoint(path).tree
    content = content if isinstance(content, dict) else {}
    adam = find_adam(content.get("opt_state")) or {}
    missing = [name for name in ("step", "params", "ema_params") if name not in content]
    missing += [] if adam else ["Adam's moments in opt_state"]
    if missing:
        raise CheckpointError(
            f"{path}: without {', '.join(missing)} (found: {', '.join(map(str, content)) or 'nothing'}). "
            "A training state of the authors' code is expected."
        )
    parameters = _parameters(template)

    def fill(tree: Mapping[str, Any], like: PyTree, where: str) -> PyTree:
        arrays = flat_arrays(tree)
        _check_fit(arrays, parameters, f"{path}: {where}")
        return with_official_parameters(like, arrays)

    return OfficialCheckpoint(
        step=step_in(content["step"], path),
        model=fill(content["params"], template, "params"),
        ema=fill(content["ema_params"], template, "ema_params"),
        mu=fill(adam["mu"], parameters, "opt_state mu"),
        nu=fill(adam["nu"], parameters, "opt_state nu"),
        count=jnp.asarray(step_in(adam["count"], path), jnp.int32),
    )


def official_parameters(model: PyTree) -> dict[str, Any]:
    """Returns every parameter of a model (or of gradients of one) by the authors' path.

    Example: "score_model/down.block_3/GroupNorm_0/scale". Leaves may be arrays or `jax.ShapeDtypeStruct`.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(_parameters(model))
    return {_official_path(path): leaf for path, leaf in leaves}


def with_official_parameters(model: PyTree, arrays: dict[str, Any]) -> PyTree:
    """Returns the model with its parameters replaced by `arrays`, a dict by the authors' paths, which is emptied."""
    replaced = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(arrays.pop(_official_path(path)), leaf.dtype), _parameters(model)
    )
    return eqx.combine(replaced, model)


def _check_fit(arrays: Mapping[str, Any], parameters: PyTree, where: str = "the file") -> None:
    """Raises CheckpointError, with every path and shape that differs, unless the arrays are those of `parameters`."""
    wanted = {name: leaf.shape for name, leaf in official_parameters(parameters).items()}
    found = {name: np.shape(array) for name, array in arrays.items()}
    if differences := misfits(found, wanted, "model"):
        raise CheckpointError(
            f"{where} does not fit the model that the config describes. Check depth, width, attention, "
            f"Fourier features and gamma type. {differences}"
        )


def _parameters(model: PyTree) -> PyTree:
    """Returns the model with everything but its trainable parameters replaced by None."""

    def is_parameter(leaf: Any) -> bool:
        is_shape = isinstance(leaf, jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jnp.inexact)
        return is_shape or eqx.is_inexact_array(leaf)

    return eqx.filter(model, is_parameter)


def _official_path(path: tuple[Any, ...]) -> str:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    for ours, theirs in NAMES:
        name = re.sub(ours, theirs, name)
    return name
