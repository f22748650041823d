# SPDX-License-Identifier: Apache-2.0
"""FID of a run: what is refused before samples are drawn, and what is printed, with a stand-in for Inception."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import vdmkit
from vdmkit import quality
from vdmkit.cli import main
from vdmkit.errors import DataError
from vdmkit.quality import as_rgb, frechet_distance
from vdmkit.recipe import load_recipe
from vdmkit.run import RunFolder, _score, load_run, run_recipe, score_run

RECIPES = Path(vdmkit.__file__).parents[1] / "recipes"
COUNT = 8


def run_of(name: str, folder: Path) -> Path:
    """A run of an oracle, whose denoiser is exact: 4x4 gray images of 17 levels, or continuous ones."""
    path = RECIPES / f"{name}.toml"
    quick = ["evaluation.draws=2", "evaluation.batch_size=8", "data.test_count=20", "sampling.count=1"]
    recipe = load_recipe(path, [*quick, "training.steps=1", "sampling.steps=4"])
    run_recipe(recipe, path.read_text(), RunFolder(folder / name), ())
    return folder / name


@pytest.fixture(scope="module")
def gray(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of("oracle_gaussian", tmp_path_factory.mktemp("runs"))


@pytest.fixture
def program(capsys, monkeypatch):
    """`program("score", ...)` in this process: exit code, output, errors."""

    def program(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vdmkit", *arguments])
        with pytest.raises(SystemExit) as exited:
            main()
        return int(exited.value.code or 0), *capsys.readouterr()

    return program


def stand_in(images: np.ndarray) -> np.ndarray:
    """More features than images, as Inception has."""
    flat = images.reshape(len(images), -1) / 255.0
    return np.concatenate([flat, flat**2], axis=1)


def test_fid_of_samples_beside_that_of_real_images(gray, program, monkeypatch):
    """FID would be of other images than the printed scores, or come without its floor, its count or its bias."""
    seen = []
    monkeypatch.setattr(quality, "load_inception", lambda path: lambda x: seen.append(x) or stand_in(x))
    score = ("score", "--ckpt", str(gray), "-n", str(COUNT), "--inception", "weights.pth")
    (code, text, _), (_, facts, _) = program(*score), program(*score, "--json")
    assert code == 0
    found = json.loads(facts)
    real, samples, other = seen[:3]
    assert found["fid"] == {
        "distance": frechet_distance(stand_in(real), stand_in(samples)),
        "distance_of_real": frechet_distance(stand_in(real), stand_in(other)),
        "count": COUNT,
    }
    for images, split in ((real, "test"), (other, "train")):
        all_of_it = as_rgb(load_run(gray).recipe.data.build().load(split).pixels, 17)
        assert {image.tobytes() for image in images} <= {image.tobytes() for image in all_of_it}
    values = "FID {distance:.4f} ({distance_of_real:.4f}) of 8 samples".format(**found["fid"])
    assert text.splitlines()[-1] == f"{values}, biased upwards: fewer than the usual 50,000"
    assert "biased" not in str(_score.Fid(1.0, 1.0, 50_000))


def test_without_inception_there_is_no_fid(gray):
    """A distance would be called FID, or null be left out of the JSON."""
    scores = score_run(load_run(gray), COUNT)
    assert scores.as_json()["fid"] is None
    assert str(scores).endswith("these distances are no FID.")


@pytest.mark.parametrize("missing", ["weights", "package"])
def test_what_is_missing_is_said_before_anything_is_read(program, monkeypatch, tmp_path, missing):
    """Hours of sampling would end in a refusal that was due at the start; here there is not even a run."""
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"weights")
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    if missing == "package":
        monkeypatch.setattr(quality._inception, "_SHA256", quality._inception.file_sha256(weights))
    code, out, err = program("score", "--ckpt", str(tmp_path / "no_run"), "--inception", str(weights))
    assert (code, out) == (1, "")
    reasons = {"weights": f"{weights}: SHA-256 ", "package": "Inception needs torch-fidelity, which cannot be imported"}
    assert err.startswith(reasons[missing])
    assert "no_run" not in err


def test_continuous_images_are_refused_before_sampling(tmp_path, monkeypatch):
    """Densities would be forced into bytes, or refused when the samples are drawn."""
    run = load_run(run_of("oracle_gaussian_continuous", tmp_path))
    monkeypatch.setattr(_score, "draw_samples", None)
    with pytest.raises(DataError, match="FID is of gray or RGB images with levels, found continuous data"):
        score_run(run, COUNT, stand_in)


def test_images_of_other_levels_are_refused_before_sampling(gray, monkeypatch):
    """Samples of 17 levels would be scaled as if of 9, past white."""
    monkeypatch.setattr(_score, "draw_samples", None)
    with pytest.raises(DataError, match=r"What is measured of one says nothing of the other\."):
        score_run(load_run(gray, ["data.levels=9"]), COUNT)
