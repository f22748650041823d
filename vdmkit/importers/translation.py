# SPDX-License-Identifier: Apache-2.0
"""Tools for the importers: the authors' settings, the recipe of a paper, and the table of the authors' names.

`Settings` reads a configuration, `published` makes a recipe of the paper's choices, and `with_arrays` fills a U-Net by
a table from the paths of our layers to a `WeightSource`, the name and layout of the authors' arrays.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from vdmkit.errors import CheckpointError
from vdmkit.model import DiffusionModel
from vdmkit.networks.unet import UNet
from vdmkit.schedules import Tabulated

_ACCEPTED: dict[Any, tuple[type, ...]] = {float: (int, float), tuple: (list, tuple)}


class Settings:
    """Reads a configuration. Each of its fields is used, ignored by name, or refused.

    Problems are collected. `finish`, or the end of a `with` block, raises one CheckpointError that lists all of them.

    Args:
        config: The authors' configuration, or a section of it.
        title: Name of the configuration, the subject of the error message.
        partial: Whether fields that are not read are accepted.
    """

    def __init__(self, config: Mapping[str, Any], title: str, *, partial: bool = False):
        self._config, self._title, self._partial = config, title, partial
        self._problems: list[str] = []
        self._read: set[str] = set()

    def __enter__(self) -> "Settings":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.finish()

    def of(self, name: str, kind: Any, default: Any = None) -> Any:
        """Returns a value of this type; integers are accepted as floats. Without a default the field is required."""
        self._read.add(name)
        value: Any = self._config.get(name)
        if value is None and default is not None:
            return default
        if type(value) not in _ACCEPTED.get(kind, (kind,)):
            found = f"{value!r}, but {kind.__name__} is expected" if name in self._config else "missing"
            self._problems.append(f"{name}: {found}")
            return 1 if kind is int else kind()
        return kind(value)

    def has(self, name: str) -> bool:
        """Returns whether the configuration has the field, possibly as null."""
        return name in self._config

    def only(self, name: str, *allowed: Any, default: Any = None) -> Any:
        """Returns a value that must be one of `allowed`; by default the first one."""
        self._read.add(name)
        value = self._config.get(name, allowed[0] if default is None else default)
        value = tuple(value) if isinstance(value, list) else value
        if value not in allowed:
            self._problems.append(f"{name}: {value!r}, but {' or '.join(map(repr, allowed))} is expected")
            return allowed[0]
        return value

    def expect(self, values: Mapping[str, Any]) -> None:
        """Refuses any other value of these fields; missing fields are accepted."""
        for name, value in values.items():
            self.only(name, value)

    def taps(self, name: str, default: tuple[int, ...]) -> list[float]:
        """Returns a symmetric filter of even length, which does not shift the image when it is resampled.

        Other filters are refused, because the authors' codes flip them in different directions.
        """
        found = [float(tap) for tap in self.of(name, tuple, default)]
        if found != found[::-1] or len(found) % 2 or not found:
            self._problems.append(f"{name}: {found}, but a symmetrical filter of even length is expected")
        return found

    def ignore(self, *names: str) -> None:
        """Accepts any value of these fields, which have no effect on the model."""
        self._read.update(names)

    def problem(self, text: str) -> None:
        self._problems.append(text)

    def finish(self) -> None:
        """Raises CheckpointError if anything was refused or not read; lists all of it."""
        unknown = [] if self._partial else [name for name in self._config if name not in self._read]
        problems = [*self._problems, *(f"{name}: unknown field" for name in unknown)]
        if problems:
            raise CheckpointError(f"{self._title} cannot be built here:\n  " + "\n  ".join(problems))


def published(
    model: dict[str, Any],
    objective: dict[str, Any],
    optimizer: dict[str, Any],
    training: dict[str, Any],
    *,
    flip: bool = True,
    sampling: Mapping[str, Any] | None = None,
    **others: Any,
) -> dict[str, Any]:
    """Returns a recipe for CIFAR-10 with the paper's choices.

    Args:
        model: Table `model` of the recipe.
        objective: Table `objective`.
        optimizer: Table `optimizer`; by default AdamW without weight decay.
        training: Table `training`, added to the intervals of logging and checkpoints.
        flip: Whether images are flipped at random in training.
        sampling: Table `sampling`, added to 1,000 steps to an image.
        others: Further tables.
    """
    return {
        "seed": 1,
        "data": {"name": "cifar10"},
        "model": model,
        "objective": objective,
        "optimizer": {"name": "adamw", "b2": 0.999, "weight_decay": 0.0, **optimizer},
        "training": {"log_every": 1000, "checkpoint_every": 10_000, **training},
        "evaluation": {"draws": 2, "batch_size": 32, "minutes": 5},
        "augmentations": [{"name": "flip"}] if flip else [],
        "sampling": {"end": "image", "steps": 1000, **(sampling or {})},
        **others,
    }


def discrete_model(table: str, steps: int, **others: Any) -> dict[str, Any]:
    """Returns the recipe's table of a model with the betas and the decoder of DDPM and iDDPM, and with `others`.

    The decoder's standard deviation is that of q(z_1 | z_2, x), which these papers also use for the first step.
    """
    schedule = {"table": table, "steps": steps}
    betas = np.asarray(Tabulated(**schedule).betas)
    first, second = -np.expm1(np.cumsum(np.log1p(-betas[:2])))
    return {
        "schedule": {"name": "tabulated", **schedule},
        "path": {"name": "variance_preserving"},
        "observation": {"name": "discretised_gaussian", "sd": float(np.sqrt(betas[1] * first / second))},
        **others,
    }


@dataclass(frozen=True)
class Part:
    """q, k or v (0, 1, 2) in a fused array; `order` is the order of the factors of the array's first axis."""

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
class WeightSource:
    """The authors' name and layout of the arrays of a layer, from which ours are read.

    Attributes:
        name: Name of the layer.
        fields: Names of kernel (or scale) and bias.
        trailing: Axes of size 1 at the end of a matrix.
        inputs_first: Whether a kernel has its inputs before its outputs, as in vdmkit.
        leading: Axes of size 1 before a matrix whose inputs are first.
        values: Number of output values per channel; the authors store all channels of the first value first.
        part: Which part of an array of q, k and v it is.
    """

    name: str
    fields: tuple[str, str] = ("weight", "bias")
    trailing: tuple[int, ...] = ()
    inputs_first: bool = False
    leading: tuple[int, ...] = ()
    values: int = 1
    part: Part | None = None


WeightSources = dict[str, WeightSource]
"""By the paths of our layers, such as down/0/stages/1/block/conv1."""


def sources_under(ours: str, theirs: str, layers: Mapping[str, WeightSource]) -> WeightSources:
    """Returns the sources of all layers of a module, by their names in it."""
    return {f"{ours}/{name}": replace(source, name=f"{theirs}.{source.name}") for name, source in layers.items()}


def fused_attention(
    norm: str, qkv: str, proj_out: str, heads: int, order: tuple[Any, ...], trailing: tuple[int, ...]
) -> WeightSources:
    """Returns the layers of an attention whose q, k and v are one array, by the authors' names of its layers."""
    parts = {name: Part(which, heads, order) for which, name in enumerate("qkv")}
    projections = {name: WeightSource(qkv, trailing=trailing, part=part) for name, part in parts.items()}
    return {"norm": WeightSource(norm), **projections, "proj_out": WeightSource(proj_out, trailing=trailing)}


def with_unet(model: DiffusionModel, fill: Callable[[UNet], UNet]) -> DiffusionModel:
    """Returns the model with `fill` applied to its U-Net. Raises CheckpointError if it has a different network."""
    if not isinstance(model.network, UNet):
        raise CheckpointError("the recipe's network is not the authors' U-Net. Omit the --set that changes it.")
    return eqx.tree_at(lambda of: of.network, model, fill(model.network))


def with_arrays(
    network: UNet,
    sources: WeightSources,
    arrays: dict[str, Any],
    *,
    name_of: Callable[[str], str] = lambda name: name,
    unused: Callable[[str], bool] = lambda name: False,
    joint: str = ".",
) -> UNet:
    """Returns the network with the authors' arrays.

    Args:
        network: Built from the authors' configuration; its arrays may be `jax.ShapeDtypeStruct`.
        sources: The source of each layer; those of layers that the network does not have are ignored.
        arrays: The authors' arrays by name; they may be traced. The dict is emptied, so that a large file is in memory
            once.
        name_of: The name in `sources` of an array of the file.
        unused: Whether an array of this name is a constant that the network does not need.
        joint: Separator of module names in the authors' paths.

    Raises:
        CheckpointError: paths or shapes do not match; all mismatches are listed.
    """
    arrays = {name_of(name): arrays.pop(name) for name in list(arrays)}
    leaves, structure = jax.tree_util.tree_flatten_with_path(network)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    theirs = [_their_array(path, leaf, sources, joint) for path, (_, leaf) in zip(paths, leaves, strict=True)]
    wanted = {one.name: one.shape for one in theirs}
    found = {name: np.shape(array) for name, array in arrays.items() if name in wanted or not unused(name)}
    if differences := misfits(found, wanted, "network"):
        raise CheckpointError(
            "the arrays do not fit the network that the configuration describes. Check widths, depth, attention and "
            f"labels. {differences}"
        )
    read = zip(_read(theirs, arrays), leaves, strict=True)
    return jax.tree_util.tree_unflatten(structure, [jnp.asarray(array, leaf.dtype) for array, (_, leaf) in read])


def misfits(found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], part: str) -> str:
    """Returns how many shapes differ and a line for each, or "" if none does; `part` is what the arrays are for."""
    names = [name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)]
    if not names:
        return ""

    def with_numbers(name: str) -> list[tuple[int, str]]:  # numeric order: layer 2 before layer 11
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]

    lines = [
        f"{name}: {found.get(name, 'nothing')} in the file, {wanted.get(name, 'nothing')} in the {part}"
        for name in sorted(names, key=with_numbers)
    ]
    return f"{len(names):,} paths differ:\n  " + "\n  ".join(lines)


@dataclass(frozen=True)
class _TheirArray:
    """The authors' name and shape of an array, and the function that makes ours of it."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[Any], Any]


def _read(theirs: list[_TheirArray], arrays: dict[str, Any]) -> Iterator[Any]:
    """Reads each array, and removes it from `arrays` with the last that needs it."""
    needed = Counter(one.name for one in theirs)
    for one in theirs:
        needed[one.name] -= 1
        yield one.read(arrays[one.name] if needed[one.name] else arrays.pop(one.name))


def _their_array(path: str, leaf: Any, sources: WeightSources, joint: str) -> _TheirArray:
    layer, _, field = path.rpartition("/")
    source = sources[layer]
    shape, layout = _layout(field, leaf.shape, source)
    if source.part is not None:
        shape = (3 * shape[0], *shape[1:])

    def read(array: Any) -> Any:
        if source.values > 1:  # k times c outputs become c times k
            others = array.shape[1:]
            array = array.reshape(source.values, -1, *others).swapaxes(0, 1).reshape(-1, *others)
        return layout(array if source.part is None else source.part.of(array))

    name = ".".join(filter(None, (source.name, source.fields[field == "bias"])))
    return _TheirArray(name.replace(".", joint), shape, read)


def _layout(field: str, ours: tuple[int, ...], source: WeightSource) -> tuple[tuple[int, ...], Callable[[Any], Any]]:
    """Returns the shape of the authors' array, and the function that brings it into our layout."""
    if field == "bits":
        return ours, lambda array: np.asarray(array, np.float32).view(np.int32)
    if field != "kernel":
        return ours, lambda array: array
    if source.inputs_first:
        return (*source.leading, *ours), lambda array: array.reshape(ours)
    if len(ours) == 4:
        return (ours[3], ours[2], *ours[:2]), lambda array: array.transpose(2, 3, 1, 0)
    return (*ours[::-1], *source.trailing), lambda array: array.reshape(ours[::-1]).T
