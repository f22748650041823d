# SPDX-License-Identifier: Apache-2.0
"""Translates the authors' model configuration (the fields of their VDMConfig) into a recipe."""

from collections.abc import Mapping
from typing import Any

from vdmkit.errors import CheckpointError

_SCHEDULES = {"fixed": "fixed_linear", "learnable_scalar": "learned_linear", "learnable_nnet": "learned_monotone"}

_ALLOWED: dict[str, type | tuple[Any, ...]] = {
    "vocab_size": (256,),
    "sample_softmax": (False,),
    "antithetic_time_sampling": bool,
    "with_fourier_features": bool,
    "with_attention": bool,
    "gamma_type": tuple(_SCHEDULES),
    "gamma_min": float,
    "gamma_max": float,
    "sm_n_timesteps": int,
    "sm_n_embd": int,
    "sm_n_layer": int,
    "sm_pdrop": float,
}
"""The values that vdmkit can build: a type, or all allowed values."""

_UNUSED = {"sm_kernel_init"}
"""A field that the authors' code never reads."""


def official_recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the recipe tables for a model of the authors.

    The configuration does not contain data or training settings, so these are set for the authors' CIFAR-10 model
    without augmentation. For another checkpoint, change `data`, `augmentations`, `optimizer` and `training`.

    Raises:
        CheckpointError: a field is unknown, missing, or has a value without counterpart here; all are listed.
    """
    _check(config)
    return {
        "seed": 1,
        "data": {"name": "cifar10"},
        "model": {
            "schedule": {
                "name": _SCHEDULES[config["gamma_type"]],
                "gamma_min": float(config["gamma_min"]),
                "gamma_max": float(config["gamma_max"]),
            },
            "path": {"name": "variance_preserving"},
            "prediction": {"name": "eps"},
            "network": {
                "name": "vdm_unet",
                "channels": config["sm_n_embd"],
                "blocks": config["sm_n_layer"],
                "attention": config["with_attention"],
                "fourier": config["with_fourier_features"],
                "dropout": float(config["sm_pdrop"]),
            },
            "observation": {"name": "categorical"},
        },
        "objective": {
            "time_sampler": "low_discrepancy" if config["antithetic_time_sampling"] else "uniform",
            "weighting": "elbo",
            "steps": config["sm_n_timesteps"],
        },
        "optimizer": {
            "name": "adamw",
            "learning_rate": 2e-4,
            "b2": 0.99,
            "weight_decay": 0.01,
            "warmup_steps": 100,
        },
        "training": {"steps": 10_000_000, "batch_size": 128, "ema": 0.9999},
    }


def _check(config: Mapping[str, Any]) -> None:
    problems = [f"{name}: missing" for name in _ALLOWED if name not in config]
    for name, value in config.items():
        if name in _UNUSED:
            continue
        if name not in _ALLOWED:
            problems.append(f"{name}: unknown field")
        elif not _fits(value, _ALLOWED[name]):
            problems.append(f"{name}: {value!r}, but {_describe(_ALLOWED[name])} is expected")
    if problems:
        raise CheckpointError(
            "the configuration does not fit the fields of the authors' VDMConfig:\n  " + "\n  ".join(problems)
        )


def _fits(value: Any, allowed: type | tuple[Any, ...]) -> bool:
    if isinstance(allowed, tuple):
        return any(value == each and type(value) is type(each) for each in allowed)
    if allowed is float:
        return type(value) in (int, float)
    return type(value) is allowed


def _describe(allowed: type | tuple[Any, ...]) -> str:
    return " or ".join(repr(each) for each in allowed) if isinstance(allowed, tuple) else allowed.__name__
