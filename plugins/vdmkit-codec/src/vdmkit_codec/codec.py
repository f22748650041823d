# SPDX-License-Identifier: Apache-2.0
"""A trained model as a codec, and the header of a file that identifies it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import numpy as np
from annotated_types import Ge, Le, Len
from pydantic import BaseModel, ConfigDict, ValidationError

from vdmkit.arguments import MAX_STEPS
from vdmkit.errors import CodecError
from vdmkit.model import DiffusionModel
from vdmkit_codec.chain import Chain, ChunkCode
from vdmkit_codec.layers import MOST_WHOLE, Layers
from vdmkit_codec.network import OFFSETS, Network, Precision, in_precision
from vdmkit_codec.rans import keystream

Profile = Literal["portable", "host"]
_LANES = (64, 256)
_BATCH = 8


@dataclass(frozen=True)
class Codec:
    """A lossless codec.

    Args:
        model: The trained model.
        layers: The steps, with grids of their latents.
        profile: "portable" computes the network in float64, and decodes on machines whose estimates agree within
            1e-10; "host" computes it in float32, and decodes on the encoder's machine.
        group: Largest number of images that are coded together.
        seed: Seed of the initial bits of a chunk.
    """

    model: DiffusionModel
    layers: Layers
    profile: Profile
    group: int
    seed: int

    def chunk_code(self, batch: int | None = None) -> ChunkCode:
        """Returns the code of chunks, with `batch` images in a call of the network, by default those of encoding."""
        return ChunkCode(Chain(self.network(batch or self.batch)), self.lanes, self.group, self.seed)

    @property
    def batch(self) -> int:
        """Returns the number of images per call of the network: a whole group, or fewer in concurrent calls."""
        return min(self.group, _BATCH) if self.profile == "portable" else self.group

    def network(self, batch: int) -> Network:
        return Network(self._model, self.layers, batch, self._dtype)

    @property
    def _dtype(self) -> Precision:
        return "float64" if self.profile == "portable" else "float32"

    @cached_property
    def _model(self) -> DiffusionModel:
        return in_precision(self.model, self._dtype)

    @property
    def lanes(self) -> int:
        """Returns the most lanes, a power of two near the number of values in an image, within limits."""
        return int(np.clip(2 ** int(np.log2(self.model.dimensions)), *_LANES))

    def header(self, fingerprint: Mapping[str, str]) -> dict[str, Any]:
        """Returns everything that a decoder needs besides the model; `fingerprint` describes the machine."""
        layers = self.layers
        return {
            "shape": list(self.model.shape),
            "levels": layers.levels,
            "spacing": layers.spacing,
            "kernel": "mixture" if layers.mixture else "gaussian",
            "gammas": [layers.gammas[0], *np.diff(layers.gammas).tolist()],
            "log_errors": list(layers.log_errors),
            "profile": self.profile,
            "group": self.group,
            "seed": self.seed,
            "model": model_sha256(self.model),
            "tables": layers.sha256()[:SHORT],
            "probe": self.probe(),
            "machine": dict(fingerprint) if self.profile == "host" else fingerprint["versions"],
        }

    def probe(self, offsets: list[int] | None = None) -> dict[str, Any]:
        """Returns a hash of the network's outputs at fixed latents and some noise levels, with their offsets."""
        network, found = self.network(self.batch), []
        noise = (keystream(0, 0, self.model.dimensions) >> np.uint64(40)).astype(float) / 2**24 - 0.5
        for i, t in enumerate(np.linspace(0, self.layers.steps, PROBED).round().astype(int).tolist()):
            spread = np.sqrt(1 + self.layers.s[t] ** 2) / self.layers.d[t]
            k = np.rint(noise * spread).astype(np.int64).reshape(1, *self.model.shape)
            if offsets is None:
                integers, guard, _ = network.encoded(k, t)
            else:
                guard = np.asarray(offsets[i : i + 1])
                integers, _ = network.decoded(k, t, guard)
            found.append((int(guard[0]), integers.astype("<i8").tobytes()))
        digest = hashlib.sha256(b"".join(integers for _, integers in found))
        return {"offsets": [offset for offset, _ in found], "sha256": digest.hexdigest()[:SHORT]}


def codec_of(header: Mapping[str, Any], model: DiffusionModel, fingerprint: Mapping[str, str]) -> Codec:
    """Returns the codec that a header describes.

    Raises:
        CodecError: the header is invalid, or the model, its outputs, the tables or the machine differ from the
            encoder's.
    """
    expected = header_of(header, model)
    if (found := model_sha256(model)) != expected.model:
        raise CodecError(f"it was made with the model {expected.model}, and this checkpoint holds {found}")
    if expected.profile == "host" and dict(fingerprint) != expected.machine:
        raise CodecError(
            f"profile host decodes on the encoder's machine alone: {_differences(expected.machine, fingerprint)}"
        )
    layers = expected.layers()
    codec = Codec(model, layers, expected.profile, expected.group, expected.seed)
    if layers.sha256()[:SHORT] != expected.tables:
        raise CodecError("the tables that this machine computes are not the encoder's")
    if codec.probe(expected.probe.offsets) != expected.probe.model_dump():
        raise CodecError("the network's outputs are not those of the encoder, within what the profile allows")
    return codec


def model_sha256(model: DiffusionModel) -> str:
    """Returns a shortened SHA-256 of the parameters, which does not depend on the precision they are held in."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array)):
        values = np.asarray(leaf)
        values = values.astype("<f8" if np.issubdtype(values.dtype, np.inexact) else "<i8")
        digest.update(f"{values.shape}".encode() + values.tobytes())
    return digest.hexdigest()[:32]


def _differences(made: Mapping[str, str] | str, here: Mapping[str, str]) -> str:
    """Describes the differences between two machines."""
    if isinstance(made, str):
        return f"made with {made}, here {', '.join(here.values())}"
    unlike = [key for key in sorted({*made, *here}) if made.get(key) != here.get(key)]
    return ", ".join(f"{key} was {made.get(key) or 'none'}, here {here.get(key) or 'none'}" for key in unlike)


PROBED = 4  # noise levels
SHORT = 16  # hexadecimal digits of a hash
_Hash = Annotated[str, Len(SHORT, SHORT)]
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
        CodecError: a field is missing, has the wrong type, is out of range, or differs from the model's.
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
            raise CodecError(f"its header has {key} {getattr(found, key)}, and the model has {expected}")
    return found
