# SPDX-License-Identifier: Apache-2.0
"""Tables of recipes that several importers share."""

from typing import Any

import numpy as np

from vdmkit.schedules import Tabulated

FLIPS = [{"name": "flip"}]
AS_IMAGE = {"end": "image", "steps": 1000}
BY_FLOW = {"estimator": {"name": "ode", "dequantisation": "uniform"}}


def published(
    model: dict[str, Any], objective: dict[str, Any], optimizer: dict[str, Any], training: dict[str, Any], **others: Any
) -> dict[str, Any]:
    """Returns a recipe for CIFAR-10 with the paper's choices; `others` are further tables."""
    return {
        "seed": 1,
        "data": {"name": "cifar10"},
        "model": model,
        "objective": objective,
        "optimizer": {"name": "adamw", "b2": 0.999, "weight_decay": 0.0, **optimizer},
        "training": {"log_every": 1000, "checkpoint_every": 10_000, **training},
        "evaluation": {"draws": 2, "batch_size": 32, "minutes": 5},
        **others,
    }


def with_kernel(tables: dict[str, Any], trained: Any, sampled: Any) -> dict[str, Any]:
    """Returns the recipe with the reverse kernel of its training in T steps, and that of its samples."""
    sampler = {"name": "ancestral", "kernel": sampled}
    of_kernel = {"objective": {"kernel": trained}, "sampling": {"sampler": sampler}}
    return tables | {name: tables[name] | table for name, table in of_kernel.items()}


def discrete_model(table: str, steps: int) -> dict[str, Any]:
    """Returns the model of DDPM and iDDPM without its network and prediction: its betas and its decoder."""
    schedule = {"table": table, "steps": steps}
    observation = {"name": "discretised_gaussian", "sd": _sd_of_second_step(np.asarray(Tabulated(**schedule).betas))}
    return {
        "schedule": {"name": "tabulated", **schedule},
        "path": {"name": "variance_preserving"},
        "observation": observation,
    }


def _sd_of_second_step(betas: np.ndarray) -> float:
    """Returns the standard deviation of q(z_1 | z_2, x), which these papers take for the first step, too."""
    first, second = -np.expm1(np.cumsum(np.log1p(-betas[:2])))
    return float(np.sqrt(betas[1] * first / second))
