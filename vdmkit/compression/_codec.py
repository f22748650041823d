# SPDX-License-Identifier: Apache-2.0
"""A trained model as a codec, and the header that says which."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from vdmkit.compression._chain import Chain
from vdmkit.compression._chunk import ChunkCode
from vdmkit.compression._header import header_of
from vdmkit.compression._layers import Layers
from vdmkit.compression._network import Network, in_precision
from vdmkit.compression._predict import MARGIN
from vdmkit.compression._rans import keystream
from vdmkit.errors import CodecError
from vdmkit.model import DiffusionModel

Profile = Literal["portable", "host"]
_PROBED = 4  # noise levels
_DIGITS = 12
_LANES = (64, 1024)


@dataclass(frozen=True)
class Codec:
    """How images become bits.

    Args:
        profile: "portable" computes the network in float64 and decodes wherever its estimates agree within 1e-10;
            "host" in float32, and decodes on the machine that encoded.
        group: most images that are coded together.
        seed: of the bits that a chunk begins with.
    """

    model: DiffusionModel
    layers: Layers
    profile: Profile
    group: int
    seed: int

    def chunk_code(self, batch: int) -> ChunkCode:
        """With so many images in a call of the network."""
        return ChunkCode(Chain(self.network(batch)), self.lanes, self.group, self.seed)

    def network(self, batch: int) -> Network:
        dtype = "float64" if self.profile == "portable" else "float32"
        return Network(in_precision(self.model, dtype), self.layers, batch, dtype)

    @property
    def lanes(self) -> int:
        """A power of two: as many as an image has values, within limits."""
        return int(np.clip(2 ** int(np.log2(self.model.dimensions)), *_LANES))

    def header(self, fingerprint: Mapping[str, str]) -> dict[str, Any]:
        """All that a decoder needs besides the model, and what it knows the model by. `fingerprint`: of the machine."""
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
            "tables": layers.sha256(),
            "probe": self.probe(),
            "machine": dict(fingerprint) if self.profile == "host" else fingerprint["versions"],
        }

    def probe(self) -> list[float] | str:
        """What the network says of fixed latents at some noise levels: a value of each, or for "host" a hash of all."""
        network, shape = self.network(1), (1, *self.model.shape)
        noise = (keystream(0, 0, self.model.dimensions) >> np.uint64(40)).astype(float) / 2**24 - 0.5
        found = []
        for t in np.unique(np.linspace(0, self.layers.steps, _PROBED).round().astype(int)).tolist():
            spread = np.sqrt(1 + self.layers.s[t] ** 2) / self.layers.d[t]
            found.append(network.x_hat(np.rint(noise * spread).astype(np.int64).reshape(shape), t))
        if self.profile == "host":
            return hashlib.sha256(np.concatenate(found).tobytes()).hexdigest()[:32]
        return [round(float(x_hat.ravel()[0]), _DIGITS) for x_hat in found]


def codec_of(header: Mapping[str, Any], model: DiffusionModel, fingerprint: Mapping[str, str]) -> Codec:
    """The codec that a header is of.

    Raises:
        CodecError: it is no header, the model is another, or the network's outputs, the tables or the machine are not
            the encoder's.
    """
    said = header_of(header, model)
    if (found := model_sha256(model)) != said.model:
        raise CodecError(f"it is of the model {said.model}, and this checkpoint holds {found}")
    if said.profile == "host" and dict(fingerprint) != said.machine:
        raise CodecError(f"profile host: it was made with {said.machine}, and this is {dict(fingerprint)}")
    layers = said.layers()
    codec = Codec(model, layers, said.profile, said.group, said.seed)
    if layers.sha256() != said.tables:
        raise CodecError("the tables that this machine computes are not the encoder's")
    _check_probe(said.probe, codec.probe())
    return codec


def model_sha256(model: DiffusionModel) -> str:
    """Of the parameters, whatever the precision they are held in, and of what the model is made of; shortened."""
    arrays, rest = eqx.partition(model, eqx.is_array)
    digest = hashlib.sha256(str(jax.tree.structure(rest)).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        values = np.asarray(leaf)
        values = values.astype(np.float64 if np.issubdtype(values.dtype, np.inexact) else np.int64)
        digest.update(f"{jax.tree_util.keystr(path)} {values.shape}".encode() + values.tobytes())
    return digest.hexdigest()[:32]


def _check_probe(expected: list[float] | str, found: list[float] | str) -> None:
    if isinstance(expected, str) or isinstance(found, str):
        if expected != found:
            raise CodecError("profile host: the network's outputs are not those of the encoder, to the last bit")
        return
    if len(expected) != len(found):
        raise CodecError(f"its probe holds {len(expected)} values, where {len(found)} are expected")
    difference: Float[np.ndarray, " n"] = np.abs(np.asarray(expected) - np.asarray(found))
    if not difference.max() <= MARGIN:
        raise CodecError(
            f"the network's outputs differ from the encoder's by {difference.max():.1e}, and {MARGIN:g} is allowed"
        )
