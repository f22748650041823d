# SPDX-License-Identifier: Apache-2.0
"""The authors' checkpoint files give the arrays that torch, diffusers and Flax read: see networks/README.md."""

import functools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from vdmkit.importers import read_weights
from vdmkit.importers.formats import Weights, list_tensors, read_checkpoint

HERE = Path(__file__).parent
CHECKPOINTS = ("*.pt", "*.pth", "*.pkl", "diffusers*")
NOT_NEEDED = {"torch", "torch_utils", "training", "dnnlib", "diffusers", "flax", "safetensors"}
FAMILIES = {"ddpm": "diffusers", "edm": "edm", "guided": "openai", "improved": "openai", "idode": "idode"}
FAMILIES |= {"mulan": "mulan", "score_sde": "score_sde"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    root = metafunc.config.getoption("--reference", HERE)
    folders = sorted(path.parent for path in root.glob("networks/*/weights.npz"))
    files = [path for folder in folders for pattern in CHECKPOINTS for path in sorted(folder.glob(pattern))]
    for name, paths in {"weights": [folder / "weights.npz" for folder in folders], "checkpoint": files}.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, paths, ids=[str(path.relative_to(root / "networks")) for path in paths])


@functools.cache
def read(path: Path) -> Weights:
    """Reads a checkpoint, with the configuration in its folder for the authors' files."""
    config = path.parent / "config.json"
    return read_weights(path, json.loads(config.read_text()) if config.is_file() else None)


def test_a_checkpoint_has_the_parameters_that_were_written(checkpoint):
    """Every tensor is read bit for bit, with its name and type, and without torch."""
    before = set(sys.modules)
    found = read(checkpoint).ema
    assert not {name.partition(".")[0] for name in sys.modules.keys() - before} & NOT_NEEDED
    with np.load(checkpoint.parent / "weights.npz") as file:
        assert set(found) == set(file.files)
        for name, array in file.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype


def test_the_family_of_a_reference_is_recognised(weights):
    """The family of a checkpoint is detected from its contents."""
    assert read(weights).family == FAMILIES[weights.parent.name.partition("-")[0]]


def test_raw_and_averaged_parameters_of_score_sde():
    """Both the raw and the averaged parameters of a Score-SDE checkpoint are read."""
    found = read(HERE / "networks" / "score_sde-ncsnpp_skip" / "checkpoint_1.pth")
    assert found.step == 1234
    assert found.raw is not None
    same = {name for name, array in found.ema.items() if np.array_equal(array, found.raw[name])}
    assert same == {"sigmas", "all_modules.0.W"}


def test_the_configuration_of_edm():
    """The configuration in an EDM pickle is read with the arguments of its network and loss."""
    config = read(HERE / "networks" / "edm-ddpmpp" / "network-snapshot-000001.pkl").config
    network, loss = config["network"], config["loss_fn"]
    assert (network["class_name"], network["keywords"]["model_type"]) == ("EDMPrecond", "SongUNet")
    assert network["keywords"]["channel_mult"] == [1, 2]
    assert (loss["class_name"], loss["attributes"]["P_mean"]) == ("EDMLoss", -1.2)
    assert config["dataset_kwargs"]["resolution"] == 16


def test_a_published_file_of_torch(request):
    """A checkpoint published by a third party is read completely."""
    path = request.config.getoption("--reference", HERE) / "uqdm-tiny" / "checkpoint.pt"
    if not path.is_file():
        pytest.skip("the published file is in the folder of --reference only")
    content = read_checkpoint(path)
    tensors = {tensor.name: tensor for tensor in list_tensors(content.tree)}
    assert len(tensors) == 329
    assert content.tree.keys() == {"model", "ema", "optimizer", "step"}
    assert tensors["model/conv_in.weight"].shape == (32, 15, 3, 3)
    assert all(np.isfinite(tensor.sum) for tensor in tensors.values())
    assert tensors["optimizer/state/65/step"].sum == content.tree["step"]
