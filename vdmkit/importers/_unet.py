# SPDX-License-Identifier: Apache-2.0
"""Puts the authors' network into a model."""

from collections.abc import Callable

import equinox as eqx

from vdmkit.errors import CheckpointError
from vdmkit.model import DiffusionModel
from vdmkit.networks.unet import UNet


def with_unet(model: DiffusionModel, fill: Callable[[UNet], UNet]) -> DiffusionModel:
    """Returns the model with the U-Net that `fill` makes of its own.

    Raises:
        CheckpointError: its network is another, or as `fill`.
    """
    if not isinstance(model.network, UNet):
        raise CheckpointError("the recipe's network is not the authors' U-Net. Omit the --set that changes it.")
    return eqx.tree_at(lambda of: of.network, model, fill(model.network))
