# SPDX-License-Identifier: Apache-2.0
"""Puts the authors' arrays, by their names and in their layout, into a U-Net."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from vdmkit.errors import CheckpointError
from vdmkit.importers._misfits import misfits
from vdmkit.networks.unet import UNet


@dataclass(frozen=True)
class Part:
    """One of q, k and v (0, 1, 2) in an array that has all three, with the parts of its first axis in this order."""

    which: int
    heads: int
    order: tuple[Literal["head", "qkv", "channel"], ...]

    def of(self, array: Any) -> Any:
        """Returns the part, with heads first."""
        channels, others = len(array) // 3, array.shape[1:]
        sizes = {"head": self.heads, "qkv": 3, "channel": channels // self.heads}
        at = self.order.index("qkv")
        parts = array.reshape(*(sizes[name] for name in self.order), *others)
        return parts[(slice(None),) * at + (self.which,)].reshape(channels, *others)


@dataclass(frozen=True)
class Place:
    """Where the authors keep the arrays of a layer.

    Attributes:
        name: Name of the layer.
        fields: Names of kernel (or scale) and bias.
        trailing: Axes of size 1 at the end of a matrix.
        inputs_first: Whether a kernel has its inputs before its outputs, as here.
        leading: Axes of size 1 before a matrix whose inputs are first.
        values: Values per channel that the layer gives; the authors have all channels of the first value first.
        part: Which part of an array of q, k and v it is.
    """

    name: str
    fields: tuple[str, str] = ("weight", "bias")
    trailing: tuple[int, ...] = ()
    inputs_first: bool = False
    leading: tuple[int, ...] = ()
    values: int = 1
    part: Part | None = None

    def under(self, name: str) -> "Place":
        """Returns the place of the layer inside of the module of this name."""
        return self.named(f"{name}.{self.name}")

    def named(self, name: str) -> "Place":
        """Returns the place of a layer of this name in the same layout."""
        return replace(self, name=name)


Places = dict[str, Place]
"""By the paths of our layers, such as down/0/stages/1/block/conv1."""


def placed(ours: str, theirs: str, layers: Mapping[str, Place]) -> Places:
    """Returns the places of all layers of a module, by their names in it."""
    return {f"{ours}/{name}": place.under(theirs) for name, place in layers.items()}


def attention(theirs: Mapping[str, str], heads: int, order: tuple[Any, ...], trailing: tuple[int, ...]) -> Places:
    """Returns the places of an attention whose q, k and v are one array; `theirs` names norm, qkv and proj_out."""
    parts = {name: Part(which, heads, order) for which, name in enumerate("qkv")}
    projections = {name: Place(theirs["qkv"], trailing=trailing, part=part) for name, part in parts.items()}
    return {"norm": Place(theirs["norm"]), **projections, "proj_out": Place(theirs["proj_out"], trailing=trailing)}


def with_arrays(
    network: UNet,
    places: Places,
    arrays: dict[str, Any],
    unused: Callable[[str], bool] = lambda name: False,
    joint: str = ".",
) -> UNet:
    """Returns the network with the authors' arrays.

    Args:
        network: Built from the authors' configuration; its arrays may be `jax.ShapeDtypeStruct`.
        places: Where the authors keep each layer; of a layer that the network does not have, it is ignored.
        arrays: The authors' arrays by name; they may be traced. The dict is emptied: file and network would take memory
            for both.
        unused: Whether an array of this name is a constant that the network does not need.
        joint: What the authors write between the names of modules.

    Raises:
        CheckpointError: paths or shapes do not fit; all of them are listed.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(network)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    sources = [_source(path, leaf, places, joint) for path, (_, leaf) in zip(paths, leaves, strict=True)]
    _check_fit({one.name: one.shape for one in sources}, arrays, unused)
    taken = zip(_taken(sources, arrays), leaves, strict=True)
    filled = [jnp.asarray(array, leaf.dtype) for array, (_, leaf) in taken]
    return jax.tree_util.tree_unflatten(structure, filled)


def renamed(arrays: dict[str, Any], name_of: Callable[[str], str]) -> dict[str, Any]:
    """Returns the arrays by their new names, and empties the dict of the old ones."""
    return {name_of(name): arrays.pop(name) for name in list(arrays)}


def without_prefix(arrays: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Returns the arrays by their names less a prefix, if all of them have it."""
    if not all(name.startswith(prefix) for name in arrays):
        return arrays
    return renamed(arrays, lambda name: name.removeprefix(prefix))


@dataclass(frozen=True)
class _Source:
    """The authors' name and shape of an array, and the way from it to ours."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[Any], Any]


def _taken(sources: list[_Source], arrays: dict[str, Any]) -> Iterator[Any]:
    """Reads the array of each source, and removes it from `arrays` with the last that needs it."""
    needed = Counter(source.name for source in sources)
    for source in sources:
        needed[source.name] -= 1
        yield source.read(arrays[source.name] if needed[source.name] else arrays.pop(source.name))


def _source(path: str, leaf: Any, places: Places, joint: str) -> _Source:
    layer, _, field = path.rpartition("/")
    place = places[layer]
    shape, read = _layout(field, leaf.shape, place)
    if place.part is not None:
        shape, read = (3 * shape[0], *shape[1:]), _after(place.part.of, read)
    if place.values > 1:
        read = _after(lambda array: _interleaved(array, place.values), read)
    name = ".".join(filter(None, (place.name, place.fields[field == "bias"])))
    return _Source(name.replace(".", joint), shape, read)


def _layout(field: str, ours: tuple[int, ...], place: Place) -> tuple[tuple[int, ...], Callable[[Any], Any]]:
    """Returns the shape of the authors' array and the way from it to ours."""
    if field == "bits":
        return ours, lambda array: np.asarray(array, np.float32).view(np.int32)
    if field != "kernel":
        return ours, lambda array: array
    if place.inputs_first:
        return (*place.leading, *ours), lambda array: array.reshape(ours)
    if len(ours) == 4:
        return (ours[3], ours[2], *ours[:2]), lambda array: array.transpose(2, 3, 1, 0)
    return (*ours[::-1], *place.trailing), lambda array: array.reshape(ours[::-1]).T


def _after(first: Callable[[Any], Any], then: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda array: then(first(array))


def _interleaved(array: Any, values: int) -> Any:
    """Returns an array of k times c outputs as one of c times k."""
    others = array.shape[1:]
    return array.reshape(values, -1, *others).swapaxes(0, 1).reshape(-1, *others)


def _check_fit(wanted: Mapping[str, Any], arrays: Mapping[str, Any], unused: Callable[[str], bool]) -> None:
    found = {name: np.shape(array) for name, array in arrays.items() if name in wanted or not unused(name)}
    if differences := misfits(found, wanted, "network"):
        raise CheckpointError(
            "the arrays do not fit the network that the configuration describes. Check widths, depth, attention and "
            f"labels. {differences}"
        )
