# SPDX-License-Identifier: Apache-2.0
"""Builds the objects that a checked recipe describes.

Building loads JAX; reading a recipe does not.
"""

from vdmkit.assembly._checks import check_objective, check_settings, check_without_data
from vdmkit.assembly._converted import carry, converted_recipe, refuse_untranslatable, started_anew
from vdmkit.assembly._health import health_facts
from vdmkit.assembly._initial import initial_state_of
from vdmkit.assembly._labels import count_labels, labels_of, told_always, told_labels
from vdmkit.assembly._measuring import build_estimator, build_evaluator, build_guidance, build_sampling
from vdmkit.assembly._model import build_model, build_prediction, is_told_labels, shapes_of_estimate, training_counts
from vdmkit.assembly._same_bound import Conversion, check_same_bound
from vdmkit.assembly._same_measurement import check_same_measurement
from vdmkit.assembly._training import (
    build_learning_rate,
    build_objective,
    build_optimizer,
    build_state,
    build_update,
    count_parameters,
    initial_model,
    scalars_of,
    state_like,
)

__all__ = [
    "Conversion",
    "build_estimator",
    "build_evaluator",
    "build_guidance",
    "build_learning_rate",
    "build_model",
    "build_objective",
    "build_optimizer",
    "build_prediction",
    "build_sampling",
    "build_state",
    "build_update",
    "carry",
    "check_objective",
    "check_same_bound",
    "check_same_measurement",
    "check_settings",
    "check_without_data",
    "converted_recipe",
    "count_labels",
    "count_parameters",
    "health_facts",
    "initial_model",
    "initial_state_of",
    "is_told_labels",
    "labels_of",
    "refuse_untranslatable",
    "scalars_of",
    "shapes_of_estimate",
    "started_anew",
    "state_like",
    "told_always",
    "told_labels",
    "training_counts",
]
