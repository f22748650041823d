# SPDX-License-Identifier: Apache-2.0
"""The names of DDPM++ and NCSN++ in yang-song/score_sde, whose Flax numbers modules of a class as they are made.

They are derived from the source of its models, whose outputs are ours within 1e-14 in float64; no published file was
compared.
"""

from collections import Counter
from collections.abc import Iterable

from vdmkit.importers._places import Place, Places, placed

_KERNEL, _SCALE = ("kernel", "bias"), ("scale", "bias")


def _nin(number: int) -> Place:
    return Place(f"NIN_{number}", ("W", "b"), inputs_first=True)


_BLOCK = {
    "norm1": Place("GroupNorm_0", _SCALE),
    "conv1": Place("Conv_0", _KERNEL, inputs_first=True),
    "embed": Place("Dense_0", _KERNEL, inputs_first=True),
    "norm2": Place("GroupNorm_1", _SCALE),
    "conv2": Place("Conv_1", _KERNEL, inputs_first=True),
    "shortcut": Place("Conv_2", _KERNEL, inputs_first=True, leading=(1, 1)),
}
_ATTENTION = {
    "norm": Place("GroupNorm_0", _SCALE),
    **{name: _nin(number) for number, name in enumerate(("q", "k", "v", "proj_out"))},
}
_PYRAMIDS = {
    "Combine": {"pyramid": Place("Conv_0", _KERNEL, inputs_first=True, leading=(1, 1))},
    "Downsample": {"pyramid": Place("Conv2d_0", inputs_first=True)},
}
_MODULES = {"ResnetBlockBigGANpp": _BLOCK, "AttnBlockpp": _ATTENTION} | _PYRAMIDS
_LAYERS = {
    "GaussianFourierProjection": Place("", ("W", "")),
    "Dense": Place("", _KERNEL, inputs_first=True),
    "Conv": Place("", _KERNEL, inputs_first=True),
    "GroupNorm": Place("", _SCALE),
}


def flax_places(modules: Iterable[tuple[str, str]]) -> Places:
    """Returns the authors' place of every layer.

    Args:
        modules: Our path and their class of each of their modules, in the order of their making.
    """
    places: Places = {}
    numbers: Counter[str] = Counter()
    for path, kind in modules:
        theirs = f"{kind}_{numbers[kind]}"
        numbers[kind] += 1
        places |= placed(path, theirs, _MODULES[kind]) if kind in _MODULES else {path: _LAYERS[kind].named(theirs)}
    return places
