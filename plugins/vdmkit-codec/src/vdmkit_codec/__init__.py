# SPDX-License-Identifier: Apache-2.0
"""Lossless compression by vdmkit's models.

    data = vdmkit_codec.compress(run.model, images)  # uint8 (n, h, w, c)
    images = vdmkit_codec.decompress(data, run.model)
    with vdmkit_codec.open("images.vdmz", run.model) as archive:
        archive[7], archive[10:20]  # decodes the chunks of these images only

Importing it does not load JAX: names are imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vdmkit_codec.codec import Archive, compress, decompress, open
    from vdmkit_codec.container import Inspection, inspect

__all__ = ["Archive", "Inspection", "compress", "decompress", "inspect", "open"]

_ROOMS = dict.fromkeys(__all__, "codec") | dict.fromkeys(("Inspection", "inspect"), "container")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(importlib.import_module(f"vdmkit_codec.{_ROOMS[name]}"), name)
    raise AttributeError(f"module 'vdmkit_codec' has no attribute {name!r}")
