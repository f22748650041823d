# SPDX-License-Identifier: Apache-2.0
"""A trained model as a codec, and the header that identifies it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np

from vdmkit.errors import CodecError
from vdmkit.model import DiffusionModel
from vdmkit_codec.compression._chain import Chain
from vdmkit_codec.compression._chunk import ChunkCode
from vdmkit_codec.compression._header import PROBED, SHORT, header_of
from vdmkit_codec.compression._layers import Layers
from vdmkit_codec.compression._network import Network, Precision, in_precision
from vdmkit_codec.compression._rans import keystream

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
        """Returns the number of images in a call of the network: all of a group, or fewer in concurrent calls."""
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
        """Returns all that a decoder needs besides the model; `fingerprint` describes the machine."""
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

    def probe(self, offsets: list[int] | None = None, length: int = SHORT) -> dict[str, Any]:
        """Returns a hash of the network's outputs at fixed latents and some noise levels, with their offsets.

        `length` is that of the hash, in hexadecimal digits.
        """
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
        return {"offsets": [offset for offset, _ in found], "sha256": digest.hexdigest()[:length]}


def codec_of(header: Mapping[str, Any], model: DiffusionModel, fingerprint: Mapping[str, str]) -> Codec:
    """Returns the codec that a header describes.

    Raises:
        CodecError: the header is invalid, or the model, its outputs, the tables or the machine differ from the
            encoder's.
    """
    said = header_of(header, model)
    if (found := model_sha256(model)) != said.model:
        raise CodecError(f"it was made with the model {said.model}, and this checkpoint holds {found}")
    if said.profile == "host" and dict(fingerprint) != said.machine:
        raise CodecError(
            f"profile host decodes on the encoder's machine alone: {_differences(said.machine, fingerprint)}"
        )
    layers = said.layers()
    codec = Codec(model, layers, said.profile, said.group, said.seed)
    if layers.sha256()[: len(said.tables)] != said.tables:
        raise CodecError("the tables that this machine computes are not the encoder's")
    if codec.probe(said.probe.offsets, len(said.probe.sha256)) != said.probe.model_dump():
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
