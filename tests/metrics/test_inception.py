# SPDX-License-Identifier: Apache-2.0
"""What Inception is given, which file it is, and that torch-fidelity is used as torch-fidelity uses itself."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest

from vdmkit.errors import DataError, VdmkitError
from vdmkit.metrics import features as _inception
from vdmkit.metrics import load_inception
from vdmkit.metrics.features import as_rgb
from vdmkit.metrics.fid import frechet_distance

RNG = np.random.default_rng(0)
EXPECTED = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
NAMED = f"expected SHA-256 {EXPECTED}: only distances by these weights are FID. They are the file "
NAMED += "weights-inception-2015-12-05-6726825d.pth of torch-fidelity's release v0.2.0."


def test_another_file_is_refused(tmp_path: Path) -> None:
    """False if a distance by other weights could be called FID, or their pickle were opened."""
    other = tmp_path / "other.pth"
    other.write_bytes(b"other")
    with pytest.raises(DataError) as refused:
        load_inception(other)
    assert str(refused.value) == f"{other}: SHA-256 {hashlib.sha256(b'other').hexdigest()}, {NAMED}"


@pytest.mark.parametrize(
    ("name", "found"), [("", "a folder, where a file is expected"), ("absent.pth", "no such file")]
)
def test_no_file_is_refused(tmp_path: Path, name: str, found: str) -> None:
    """False if a folder or a mistyped name ended in a traceback, or in torch-fidelity's own download."""
    with pytest.raises(DataError) as refused:
        load_inception(tmp_path / name)
    assert str(refused.value) == f"{tmp_path / name}: {found}, {NAMED}"


def test_without_torch_fidelity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """False if the user were not told what to install."""
    trusted(tmp_path / "weights.pth", monkeypatch)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(VdmkitError, match=r"needs torch-fidelity, .*uv pip install 'vdmkit\[fid\]'"):
        load_inception(tmp_path / "weights.pth")


def test_levels_are_scaled_to_bytes_and_gray_to_three_channels() -> None:
    """False if Inception saw 17 levels as near black, rounded down, or another channel order."""
    gray = np.array([0, 1, 8, 16], np.uint8).reshape(1, 2, 2, 1)
    scaled = as_rgb(gray, 17)
    assert scaled.dtype == np.uint8
    np.testing.assert_array_equal(scaled, np.repeat([[[[0], [16]], [[128], [255]]]], 3, axis=-1))  # 15.9 and 127.5
    colour = RNG.integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    np.testing.assert_array_equal(as_rgb(colour, 256), colour)
    np.testing.assert_array_equal(as_rgb(colour // 128, 2), colour // 128 * 255)


@pytest.mark.parametrize(
    ("channels", "levels", "found"), [(1, 0, r"continuous data \(levels = 0\)"), (2, 256, "2 channels")]
)
def test_what_inception_cannot_see(channels: int, levels: int, found: str) -> None:
    """False if data without a black and a white, or without colours, were forced into bytes."""
    with pytest.raises(DataError, match=f"gray or RGB images with levels, found {found}. Score them without"):
        as_rgb(np.zeros((1, 2, 2, channels), np.float32), levels)


@pytest.mark.fid
def test_fid_is_torch_fidelitys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """False if images reached Inception other than torch-fidelity sends them, or its weights came not from the file."""
    torch, fidelity = pytest.importorskip("torch"), pytest.importorskip("torch_fidelity")
    path = untrained(tmp_path / "weights.pth", torch, fidelity, monkeypatch)
    trusted(path, monkeypatch)
    dark = RNG.integers(0, 128, (36, 20, 24, 3)).astype(np.uint8)  # more than a batch, and not square
    light = RNG.integers(0, 256, (36, 20, 24, 3)).astype(np.uint8)
    extract = load_inception(path)
    features = [extract(images) for images in (dark, light)]
    assert features[0].shape == (36, 2048)
    assert features[0].dtype == np.float64
    found = frechet_distance(*features)
    expected = fidelity.calculate_metrics(
        input1=dataset(dark, torch),
        input2=dataset(light, torch),
        feature_extractor_weights_path=str(path),
        fid=True,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )["frechet_inception_distance"]
    assert found > 0.1
    # It adds the roots of 2013 eigenvalues that are 0 but for rounding, each at most 1e-8 of the largest, half of them
    # imaginary. Measured: 4e-8. Channels in the reverse order change it by 5e-3.
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def untrained(path: Path, torch, fidelity, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of an Inception that nobody trained, whose layers keep the size of what goes through them."""
    torch.manual_seed(0)
    kind = fidelity.FeatureExtractorInceptionV3
    with monkeypatch.context() as patch:
        patch.setattr(fidelity.feature_extractor_inceptionv3, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(kind, "load_state_dict", lambda *_: None)
        network = kind("untrained", ["2048"])
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    torch.save(network.state_dict(), path)
    return path


def dataset(images: np.ndarray, torch):
    """As torch-fidelity's own data sets: one image an item, channels first."""

    class Channels(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int):
            return torch.stack([torch.from_numpy(images[index, :, :, c].copy()) for c in range(3)])

    return Channels()


def trusted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this file the expected one."""
    if not path.exists():
        path.write_bytes(b"weights")
    monkeypatch.setattr(_inception, "_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
