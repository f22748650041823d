# SPDX-License-Identifier: Apache-2.0
"""The labels that a network is told of measured images."""

import numpy as np
from jaxtyping import Int

from vdmkit.assembly._model import is_told_labels
from vdmkit.data import Images
from vdmkit.errors import DataError, RecipeError
from vdmkit.recipe import Recipe


def count_labels(recipe: Recipe, option: str) -> int:
    """Returns how many labels the network knows. Raises RecipeError, which begins with `option`, if it knows none."""
    network = recipe.model.network
    if not is_told_labels(network):
        raise RecipeError(
            f"{option}: network {network.name!r} does not use labels. Train one that does, such as network labelled."
        )
    counts = [one.params["labels"] for one in network.nested() if one.kind == "network" and one.params.get("labels")]
    return recipe.data.build().classes or max(counts, default=0)  # an imported network may be measured on other data


def labels_of(images: Images, option: str) -> Int[np.ndarray, " n"]:
    """Returns the labels of images. Raises DataError, which begins with `option`, if they have none."""
    if images.labels is None:
        raise DataError(f"{option}: {images.identity.name}/{images.identity.split} has no labels.")
    return np.asarray(images.labels)


def told_labels(recipe: Recipe, images: Images) -> Int[np.ndarray, " n"] | None:
    """Returns the label that the network is told of each image by `likelihood.label`, or None.

    Raises:
        DataError: the images have no labels.
        RecipeError: the network does not use labels, or has no such label.
    """
    label = recipe.likelihood.label
    if label is None:
        return None
    option = f"--label {label}"
    count = count_labels(recipe, option)
    if label == "data":
        return labels_of(images, option)
    if label >= count:
        raise RecipeError(f"{option}: expected data, or 0 to {count - 1}.")
    return np.full(len(images.pixels), label)


def told_always(recipe: Recipe) -> str | None:
    """Returns the name of a network that is told every label and has no state for an image without one, or None.

    Such networks count their labels themselves, and withhold none.
    """
    networks = [one for one in recipe.model.network.nested() if one.kind == "network"]
    return next((one.name for one in networks if one.params.get("labels") and not one.params.get("withheld")), None)
