# SPDX-License-Identifier: Apache-2.0
"""Detecting the family of a checkpoint, and reading its raw and averaged parameters by the authors' names."""

from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from vdmkit.errors import CheckpointError
from vdmkit.importers import read_weights
from vdmkit.importers.formats import family_of

IDODE = {"schedule": "VP", "dequantization": "tn", "gamma_type": "fixed"}
NAMES: dict[str, list[str]] = {
    "vdm": ["score_model/conv_in/kernel", "gamma/w"],
    "score_sde": ["sigmas", "all_modules.0.W", "all_modules.1.weight"],
    "edm": ["model.map_layer0.weight", "model.enc.16x16_conv.weight"],
    "openai": ["time_embed.0.weight", "input_blocks.0.0.weight", "label_emb.weight", "out.2.weight"],
    "diffusers": ["conv_in.weight", "time_embedding.linear_1.weight", "conv_out.weight"],
    "mulan": ["score_model/conv_in/kernel", "encoder_model/conv_in/kernel"],
}


FLAX = ["Conv_0/kernel", "ResnetBlockBigGANpp_0/Conv_0/kernel"]
"""Of Score-SDE."""


@pytest.mark.parametrize("family", NAMES)
def test_a_family_is_recognised_by_its_names(family):
    """The family of a checkpoint is detected from its parameter names."""
    assert family_of(NAMES[family]) == family
    assert family_of([f"{name}.more" for name in NAMES[family]]) is None


def test_idode_is_recognised_by_its_configuration():
    """i-DODE, whose network has the names of VDM's, is detected by its configuration."""
    assert family_of(NAMES["vdm"], IDODE) == "idode"
    assert family_of(NAMES["vdm"], {"gamma_type": "fixed"}) == "vdm"
    assert family_of(NAMES["openai"], IDODE) == "openai"


def of_torch(ops, path: Path, state: dict[str, Any]) -> Path:
    """Writes a torch file with nested dicts and lists of arrays and integers."""
    storages: dict[str, bytes] = {}

    def push(value: Any) -> bytes:
        if isinstance(value, dict):
            return ops.dictionary({name: push(item) for name, item in value.items()})
        if isinstance(value, list):
            return b"](" + b"".join(map(push, value)) + b"e"
        if isinstance(value, int):
            return ops.integer(value)
        storages[key := str(len(storages))] = value.tobytes()
        return ops.tensor_of(key, value)

    return ops.torch_zip(path, push(state), storages)


def filled(shape: tuple[int, ...], value: float) -> np.ndarray:
    return np.full(shape, value, np.float32)


def score_sde() -> dict[str, Any]:
    """Returns a training state with three trained parameters whose averages are 10, 20 and 30."""
    model = {
        "module.sigmas": filled((3,), 1),
        "module.all_modules.0.W": filled((4,), 2),
        "module.all_modules.1.weight": filled((2, 2), 3),
        "module.all_modules.1.NIN_0.W": filled((2, 2), 4),
        "module.all_modules.2.weight": filled((1,), 5),
    }
    shadow = [filled((2, 2), 10), filled((2, 2), 20), filled((1,), 30)]
    ema = {"num_updates": 9, "shadow_params": shadow}
    return {"optimizer": {"state": {}}, "model": model, "ema": ema, "step": 9}


def test_averages_of_score_sde_are_put_in_their_places(tmp_path, ops):
    """Averages of Score-SDE, a list without names, are assigned to the trained parameters in order."""
    found = read_weights(of_torch(ops, tmp_path / "checkpoint_1.pth", score_sde()))
    assert (found.family, found.step) == ("score_sde", 9)
    assert found.raw is not None
    names = ("sigmas", "all_modules.0.W", "all_modules.1.weight", "all_modules.1.NIN_0.W", "all_modules.2.weight")
    assert [float(found.raw[name].flat[0]) for name in names] == [1, 2, 3, 4, 5]
    assert [float(found.ema[name].flat[0]) for name in names] == [1, 2, 10, 20, 30]


def test_averages_that_do_not_fit_are_refused(tmp_path, ops):
    """A list of averages that does not fit the trained parameters is refused."""
    for change in (lambda shadow: shadow.pop(), lambda shadow: shadow.reverse(), lambda shadow: shadow.append(1)):
        state = score_sde()
        change(state["ema"]["shadow_params"])
        with pytest.raises(CheckpointError, match="averages do not fit its 3 trained parameters"):
            read_weights(of_torch(ops, tmp_path / "checkpoint_1.pth", state))


@pytest.mark.parametrize("step", [-1, 2**40, [1], {"a": 1}, filled((), 3), filled((2,), 3)])
def test_a_step_is_a_number_of_updates(tmp_path, ops, step):
    """A step that is not a number is refused."""
    with pytest.raises(CheckpointError, match="its step is not a number of updates"):
        read_weights(of_torch(ops, tmp_path / "checkpoint_1.pth", score_sde() | {"step": step}))


def tree_of(names: list[str], value: float) -> dict[str, Any]:
    """Returns nested dicts of arrays whose names contain '/'."""
    tree: dict[str, Any] = {}
    for name in names:
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = filled((2,), value)
    return tree


def flax(path: Path, tree: Any) -> Path:
    def encode(array: np.ndarray) -> msgpack.ExtType:
        return msgpack.ExtType(1, msgpack.packb((array.shape, array.dtype.name, array.tobytes())))

    path.write_bytes(msgpack.packb(tree, default=encode))
    return path


def test_training_states_of_flax(tmp_path):
    """Raw and averaged parameters and the step are read from Flax training states."""
    vdm, score_sde = ((tree_of(names, 1), tree_of(names, 2)) for names in (NAMES["vdm"], FLAX))
    ours = flax(tmp_path / "a", {"step": 3, "params": vdm[0], "ema_params": vdm[1], "opt_state": {}})
    optimizer = {"target": score_sde[0], "state": {"step": 4}}
    theirs = flax(tmp_path / "b", {"step": 4, "optimizer": optimizer, "params_ema": score_sde[1], "lr": 1e-4})
    found = [read_weights(ours), read_weights(ours, IDODE), read_weights(theirs)]
    assert [(one.family, one.step) for one in found] == [("vdm", 3), ("idode", 3), ("score_sde", 4)]
    for one in found:
        assert one.raw is not None
        assert {float(array[0]) for array in one.ema.values()} == {2}
        assert {float(array[0]) for array in one.raw.values()} == {1}


@pytest.mark.parametrize(
    ("name", "step"),
    [("ema_0.9999_000010.pt", 10), ("model500000.pt", 500_000), ("cifar10_uncond_50M_500K.pt", None)],
)
def test_a_state_dict_has_the_step_of_its_name(tmp_path, ops, name, step):
    """The step of an OpenAI file, which is not stored inside, is read from its name."""
    found = read_weights(of_torch(ops, tmp_path / name, {name: filled((2,), 1) for name in NAMES["openai"]}))
    assert (found.family, found.step, found.raw) == ("openai", step, None)
    assert found.ema.keys() == set(NAMES["openai"])


STRANGE = [
    {"weight": filled((2,), 1)},
    {"step": 1},
    {"params": {}, "ema_params": {}},
    {"params": 1, "ema_params": 1},
    {"optimizer": {}, "params_ema": {}},
    {"model": 1, "ema": {}},
    {"ema": 1},
    [filled((2,), 1)],
    {"params": tree_of(NAMES["vdm"], 1), "ema_params": tree_of(NAMES["vdm"][:1], 1)},
]


@pytest.mark.parametrize("state", STRANGE)
def test_other_checkpoints_are_of_no_family(tmp_path, ops, state):
    """A checkpoint of an unknown codebase is refused."""
    with pytest.raises(CheckpointError, match=r"of no family that is known .*vdmkit import --list"):
        read_weights(of_torch(ops, tmp_path / "a.pt", state))
