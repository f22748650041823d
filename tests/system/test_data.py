# SPDX-License-Identifier: Apache-2.0
"""The user's own images, from files to a report; and files that are not what they should be."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def pixels() -> np.ndarray:
    """Forty small colour images."""
    return np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3)).astype(np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    """Decoded images are cached here, and not in the user's cache."""
    monkeypatch.setenv("VDMKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def images(program, pixels) -> Path:
    """Folders `train` and `test` of PNG files."""
    for name, split in (("train", pixels[:30]), ("test", pixels[30:])):
        folder = program.cwd / name
        folder.mkdir()
        for i, image in enumerate(split):
            Image.fromarray(image).save(folder / f"{i:02}.png")
    return program.cwd


@pytest.fixture
def recipe(program):
    """`recipe('name = "npz"', ...)`: the tiny recipe on these data, for two steps."""

    def recipe(*lines: str) -> str:
        path = program.cwd / "mine.toml"
        base = Path(__file__).parent / "tiny.toml"
        path.write_text("\n".join([f'extends = "{base}"', "[data]", *lines, "[training]", "steps = 2"]))
        return str(path)

    return recipe


def folder_recipe(recipe) -> str:
    return recipe('name = "folder"', 'train = "train"', 'test = "test"')


def test_an_npz_file(program, recipe):
    """A user's array could not be trained on, or the report not say which it was."""
    pixels = np.random.default_rng(1).integers(0, 17, (50, 8, 8)).astype(np.uint8)
    np.savez(program.cwd / "mine.npz", a=pixels[:30], b=pixels[30:])
    mine = recipe('name = "npz"', 'path = "mine.npz"', 'train = "a"', 'test = "b"', "levels = 17")
    result = program("run", mine, "--out", "run")
    assert result.code == 0, result.err
    assert "all 20 of mine[b]/test, not the published data set" in result.out
    assert "step 2, ema weights" in result.out
    facts = json.loads((program.cwd / "run" / "manifest.json").read_text())
    assert facts["data"]["train"]["count"] == 30
    # The same run must not go on with other images, wherever they are.
    np.savez(program.cwd / "other.npz", a=pixels[10:], b=pixels[30:])
    other = program("run", mine, "--out", "run", "--set", "data.path=other.npz")
    assert (other.code, other.out) == (1, "")
    assert "run/checkpoints/2: this checkpoint was made with other training images." in other.err
    np.savez(program.cwd / "moved.npz", a=pixels[:30], b=pixels[30:])
    assert program("run", mine, "--out", "run", "--set", "data.path=moved.npz").code == 0


def test_a_folder_of_images(program, images, recipe):
    """A user's PNG files could not be trained on, or samples of them would lose their colours."""
    # The paper's prediction, as it compiles fast with 256 levels.
    result = program("run", folder_recipe(recipe), "--out", "run", "--set", "model.prediction.name=eps")
    assert result.code == 0, result.err
    assert f"all 10 of {program.cwd.name}/test" in result.out
    with Image.open(program.cwd / "run" / "samples.png") as picture:
        assert picture.mode == "RGB"


def test_digits(program, recipe):
    """The default data set, which comes with scikit-learn, could not be trained on, or would not be recognised."""
    result = program("run", recipe('name = "digits"'), "--out", "run")
    assert result.code == 0, result.err
    assert "all 297 of digits/test, scikit-learn digits\n" in result.out


def test_an_image_of_another_size(program, images, pixels, recipe):
    """A wrong file would end in a traceback, be resized or dropped in silence, or not be named."""
    Image.fromarray(pixels[0, :2]).save(images / "train" / "05.png")
    result = program("run", folder_recipe(recipe), "--out", "run")
    assert (result.code, result.out) == (1, "")
    (line,) = result.err.strip().splitlines()
    assert line.startswith("train/05.png: 4x2, RGB; expected 4x4")


def test_a_missing_archive(program, recipe):
    """A mistyped path would end in a traceback."""
    result = program("run", recipe('name = "npz"', 'path = "nowhere.npz"'), "--out", "run")
    assert (result.code, result.out) == (1, "")
    (line,) = result.err.splitlines()
    assert line.startswith("nowhere.npz")
