# SPDX-License-Identifier: Apache-2.0
"""Checks that a component meets the requirements of its kind. Plugin authors run them in their tests."""

from vdmkit.conformance.components import (
    check_augmentation,
    check_data,
    check_grid,
    check_importer,
    check_noise_embedding,
    check_optimizer,
    check_path,
    check_sampler,
    check_schedule,
    check_time_sampler,
    check_weighting,
)
from vdmkit.conformance.decoders import check_observation
from vdmkit.conformance.estimators import check_estimator
from vdmkit.conformance.predictions import check_network, check_prediction
from vdmkit.conformance.reverse import check_kernel

__all__ = [
    "check_augmentation",
    "check_data",
    "check_estimator",
    "check_grid",
    "check_importer",
    "check_kernel",
    "check_network",
    "check_noise_embedding",
    "check_observation",
    "check_optimizer",
    "check_path",
    "check_prediction",
    "check_sampler",
    "check_schedule",
    "check_time_sampler",
    "check_weighting",
]
