# SPDX-License-Identifier: Apache-2.0
"""Checks of the components of each kind, for authors of new ones; vdmkit's own components pass them.

Each check raises ConformanceError with one sentence and the number that shows what is wrong. The same checks are run on
the components of a run, with its own parameters, images and latents, before its numbers are trusted.
"""

from vdmkit.testing._data import check_augmentation, check_data, check_images, check_loads_again
from vdmkit.testing._denoiser import check_network, check_prediction
from vdmkit.testing._derivative import check_derivative
from vdmkit.testing._estimator import check_estimator
from vdmkit.testing._findings import Findings
from vdmkit.testing._importer import check_importer
from vdmkit.testing._kernel import check_kernel
from vdmkit.testing._model import (
    Latents,
    check_decoder_of_model,
    check_derivative_of_model,
    check_kernel_of_model,
    checks_of_model,
    latents_of,
)
from vdmkit.testing._noise import check_axis, check_grid, check_path, check_schedule, gammas_between
from vdmkit.testing._objective import check_time_sampler, check_weighting
from vdmkit.testing._observation import check_observation
from vdmkit.testing._optimizer import check_optimizer
from vdmkit.testing._recipe import (
    check_before_training,
    check_data_of_recipe,
    check_estimator_of_recipe,
    check_measurement_of_recipe,
    check_model_of_recipe,
    check_start_of_recipe,
    check_training_of_recipe,
    problems_of_kernels,
    remarks_on_labels,
)
from vdmkit.testing._sampling import check_sampler

__all__ = [
    "Findings",
    "Latents",
    "check_augmentation",
    "check_axis",
    "check_before_training",
    "check_data",
    "check_data_of_recipe",
    "check_decoder_of_model",
    "check_derivative",
    "check_derivative_of_model",
    "check_estimator",
    "check_estimator_of_recipe",
    "check_grid",
    "check_images",
    "check_importer",
    "check_kernel",
    "check_kernel_of_model",
    "check_loads_again",
    "check_measurement_of_recipe",
    "check_model_of_recipe",
    "check_network",
    "check_observation",
    "check_optimizer",
    "check_path",
    "check_prediction",
    "check_sampler",
    "check_schedule",
    "check_start_of_recipe",
    "check_time_sampler",
    "check_training_of_recipe",
    "check_weighting",
    "checks_of_model",
    "gammas_between",
    "latents_of",
    "problems_of_kernels",
    "remarks_on_labels",
]
