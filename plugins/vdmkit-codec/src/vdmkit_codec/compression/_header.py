# SPDX-License-Identifier: Apache-2.0
"""Validation of the header of a compressed file."""

from collections.abc import Mapping
from itertools import accumulate
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Len
from pydantic import BaseModel, ConfigDict, ValidationError

from vdmkit.arguments import MAX_STEPS
from vdmkit.errors import CodecError
from vdmkit.model import DiffusionModel
from vdmkit_codec.compression._layers import MOST_WHOLE, Layers
from vdmkit_codec.compression._predict import OFFSETS

PROBED = 4  # noise levels
SHORT = 16  # hexadecimal digits of a hash; 32 in files of version 1
_Hash = Annotated[str, Len(SHORT, 2 * SHORT)]
_Whole = Annotated[int, Ge(-2 * MOST_WHOLE), Le(2 * MOST_WHOLE)]  # gamma, or a difference of gammas


class Probe(BaseModel):
    """The result of `Codec.probe`."""

    model_config = ConfigDict(strict=True, frozen=True)

    offsets: Annotated[list[Annotated[int, Ge(0), Le(OFFSETS - 1)]], Len(PROBED, PROBED)]
    sha256: _Hash


class Header(BaseModel):
    """The types and ranges of a header's fields. Other fields are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    shape: Annotated[list[int], Len(3, 3)]
    levels: int
    spacing: float
    kernel: Literal["mixture", "gaussian"]
    gammas: Annotated[list[_Whole], Len(2, MAX_STEPS + 1)]
    log_errors: Annotated[list[_Whole], Len(0, MAX_STEPS)]
    profile: Literal["portable", "host"]
    group: Annotated[int, Ge(1), Le(65535)]
    chunk: Annotated[int, Ge(1), Le(65535)] | None = None
    seed: Annotated[int, Ge(0), Le(2**64 - 1)]
    model: str
    tables: _Hash
    probe: Probe
    machine: dict[str, str] | str

    def layers(self) -> Layers:
        """Returns the steps. Raises CodecError if the fields do not define any."""
        gammas, mixture = tuple(accumulate(self.gammas)), self.kernel == "mixture"
        return Layers(gammas, self.levels, self.spacing, tuple(self.log_errors), mixture)


def header_of(header: Mapping[str, Any], model: DiffusionModel) -> Header:
    """Returns the header of a file of images of this model.

    Raises:
        CodecError: a field is missing, of another type, out of its range, or differs from the model's.
    """
    try:
        found = Header.model_validate(dict(header))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CodecError(f"its header is not one of vdmkit's: {where}: {first['msg'].lower()}") from error
    data = {"shape": list(model.shape), "levels": model.observation.levels, "spacing": model.observation.spacing}
    for key, expected in data.items():
        if getattr(found, key) != expected:
            raise CodecError(f"its header says {key} {getattr(found, key)}, and the model has {expected}")
    return found
