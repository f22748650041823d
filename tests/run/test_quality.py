# SPDX-License-Identifier: Apache-2.0
"""FID of a run with a substitute for Inception: what is refused before sampling, and what is printed."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import vdmkit
from vdmkit.cli.app import main
from vdmkit.errors import DataError
from vdmkit.experiments import RunFolder, load_run
from vdmkit.experiments.measure import score_run
from vdmkit.experiments.run import run_recipe
from vdmkit.metrics import features
from vdmkit.metrics import fid as _score
from vdmkit.metrics.features import as_rgb
from vdmkit.metrics.fid import frechet_distance
from vdmkit.recipes import load_recipe

pytestmark = pytest.mark.system
RECIPES = Path(vdmkit.__file__).parents[1] / "recipes"
COUNT = 8
ANCESTRAL = 'sampler ancestral kernel=(gaussian variance="small")'


def run_of(name: str, folder: Path) -> Path:
    """Makes a run of an oracle, whose denoiser is exact, on 4x4 gray images of 17 levels or continuous ones."""
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
    """`program("quality", ...)` runs the command in this process and returns exit code, output and errors."""

    def program(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vdmkit", *arguments])
        with pytest.raises(SystemExit) as exited:
            main()
        return int(exited.value.code or 0), *capsys.readouterr()

    return program


def stand_in(images: np.ndarray) -> np.ndarray:
    """Returns more features than there are images, as Inception does."""
    flat = images.reshape(len(images), -1) / 255.0
    return np.concatenate([flat, flat**2], axis=1)


def test_fid_of_samples_beside_that_of_real_images(gray, program, monkeypatch):
    """FID is reported with its count and with the distance between two sets of real images."""
    seen = []
    monkeypatch.setattr(features, "load_inception", lambda path: lambda x: seen.append(x) or stand_in(x))
    asked = ("quality", "--ckpt", str(gray), "-n", str(COUNT), "--inception", "weights.pth")
    (code, text, _), (_, facts, _) = program(*asked), program(*asked, "--json")
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


FAILING = ("--set", "sampling.sampler={name='ode', max_steps=2}")
REFUSED = (
    "are not finite, the first of them number 0. Take more sampling.steps, of sampler ode more "
    "sampling.sampler.max_steps, or less sampling.guidance."
)


def test_samples_that_are_not_finite_are_refused(gray, program, tmp_path):
    """Samples that are not finite are neither saved nor scored."""
    output = tmp_path / "black.png"
    sampled = program("sample", "--ckpt", str(gray), "-n", "4", "--steps", "1", "-o", str(output), *FAILING)
    assert last_line(sampled) == (1, "", f"4 of 4 samples {REFUSED}")
    assert list(tmp_path.iterdir()) == []
    scored = program("quality", "--ckpt", str(gray), "-n", "6", "--steps", "1", *FAILING)
    assert last_line(scored) == (1, "", f"6 of 6 samples {REFUSED}")


def test_a_run_whose_samples_are_not_finite_is_evaluated(program, tmp_path):
    """Samples that are not finite do not stop training or evaluation."""
    sets = ["evaluation.draws=2", "data.test_count=20", "sampling.count=2", "sampling.steps=1"]
    sets += ["training.steps=2", "training.sample_every=1"]
    words = [word for key in sets for word in ("--set", key)]
    code, out, err = program(
        "run", str(RECIPES / "oracle_gaussian.toml"), "--out", str(tmp_path / "run"), *words, *FAILING
    )
    assert code == 0
    assert "bits/dim on these 20 images" in out
    assert "  samples      none: not finite\n" in out
    assert [line for line in err.splitlines() if "finite" in line] == [
        f"sampling: no picture. 2 of 2 samples {REFUSED}"
    ] * 2
    assert (tmp_path / "run" / "evaluation.json").exists()
    assert not (tmp_path / "run" / "samples.png").exists()


def test_samples_of_a_label_beside_images_of_it(program, tmp_path):
    """Samples of a label are scored against images of that label, and the report says how they were drawn."""
    labelled = run_of_digits(tmp_path)
    seven = ("--steps", "2", "--set", "sampling.guidance=2", "--set", "sampling.label=7")
    code, text, _ = program("quality", "--ckpt", str(labelled), "-n", "10", *seven)
    assert code == 0
    lines = text.splitlines()
    assert lines[0].startswith("10 samples against digits/test of label 7;")
    assert lines[1] == f"drawn by {ANCESTRAL}, grid uniform, 2 steps to z_0, guidance 2, label 7"
    assert lines[2].startswith("computed in float32, matmul precision default, ")
    code, facts, err = program("quality", "--ckpt", str(labelled), "-n", "10", *seven, "--json")
    assert code == 0, err
    drawn = {"sampler": 'ancestral kernel=(gaussian variance="small")', "grid": "uniform", "steps": 2, "end": "latent"}
    assert json.loads(facts)["drawn"] == drawn | {"guidance": 2.0, "label": 7}
    of_seven = int((load_run(labelled).recipe.data.build().load("test").labels == 7).sum())
    refused = program("quality", "--ckpt", str(labelled), "-n", "100", *seven)
    assert refused == (1, "", f"-n 100: at most {of_seven}, the test images of label 7.\n")
    for command in ("quality", "sample"):
        twice = program(command, "--ckpt", str(labelled), "--steps", "2", "--set", "sampling.steps=3")
        assert twice == (2, "", "--steps and --set sampling.steps set the same key. Omit one of them.\n")
    folder = program("quality", "--ckpt", str(labelled), "--inception", str(tmp_path))
    assert folder == (2, "", f"--inception {tmp_path}: a folder. Give the file of weights inside it.\n")


def last_line(result: tuple[int, str, str]) -> tuple[int, str, str]:
    """Returns the result without progress on standard error."""
    code, out, err = result
    return code, out, err.splitlines()[-1]


def run_of_digits(folder: Path) -> Path:
    """Makes a run on the digits with a network that is conditioned on labels but ignores them."""
    quick = ["evaluation.draws=2", "sampling.count=1", "sampling.steps=2", "training.steps=1", "training.batch_size=4"]
    recipe = load_recipe(RECIPES / "digits.toml", [*quick, "model.network={name='label_conditioned', network='none'}"])
    run_recipe(recipe, "", RunFolder(folder / "labelled"), ())
    return folder / "labelled"


def test_without_inception_there_is_no_fid(gray):
    """Without Inception weights the FID is null, and the text says that the distances are not FID."""
    scores = score_run(load_run(gray), COUNT)
    assert scores.as_json()["fid"] is None
    assert str(scores).endswith("these distances are not FID.")


@pytest.mark.parametrize("missing", ["weights", "package"])
def test_what_is_missing_is_said_before_anything_is_read(program, monkeypatch, tmp_path, missing):
    """Missing weights or packages are reported before the run is read."""
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"weights")
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    if missing == "package":
        monkeypatch.setattr(features, "_SHA256", features.file_sha256(weights))
    code, out, err = program("quality", "--ckpt", str(tmp_path / "no_run"), "--inception", str(weights))
    assert (code, out) == (1, "")
    reasons = {"weights": f"{weights}: SHA-256 ", "package": "Inception needs torch-fidelity, which cannot be imported"}
    assert err.startswith(reasons[missing])
    assert "no_run" not in err


def test_continuous_images_are_refused_before_sampling(tmp_path, monkeypatch):
    """Continuous data are refused before any sample is drawn."""
    run = load_run(run_of("oracle_gaussian_continuous", tmp_path))
    monkeypatch.setattr(_score, "draw_samples", None)
    with pytest.raises(DataError, match="FID needs gray or RGB images with levels, found continuous data"):
        score_run(run, COUNT, stand_in)


def test_images_of_other_levels_are_refused_before_sampling(gray, monkeypatch):
    """Images with different levels are refused before any sample is drawn."""
    monkeypatch.setattr(_score, "draw_samples", None)
    with pytest.raises(DataError, match=r"The model has no likelihood for them\."):
        score_run(load_run(gray, ["data.levels=9"]), COUNT)
