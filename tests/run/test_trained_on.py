# SPDX-License-Identifier: Apache-2.0
"""Records of the training images with a correct SHA-256 but contents that no run writes."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import optax
import pytest

from vdmkit.data import Images
from vdmkit.data.identity import trained_on
from vdmkit.data.sources import identified
from vdmkit.errors import CheckpointError
from vdmkit.experiments import RunFolder
from vdmkit.experiments.folder import provenance_of
from vdmkit.experiments.load import Run, keep, read_trained_on
from vdmkit.losses import Elbo, LowDiscrepancy, Objective
from vdmkit.recipes import load_recipe
from vdmkit.training.step import initial_state


@pytest.fixture(params=[(8, 8, 1), (4, 4, 1)], ids=["with thumbnails", "hashes alone"])
def train(request) -> Images:
    pixels = np.random.default_rng(0).integers(0, 17, (30, *request.param)).astype(np.uint8)
    return identified(pixels, 17, name="noise", split="train")


@pytest.fixture
def run(tmp_path, digits_toml, train, tiny_model) -> Run:
    """A run with saved records of its training images."""
    folder = RunFolder(tmp_path)
    made = provenance_of(train, train, {})
    folder.record(replace(made, kept=keep(folder, trained_on(train)), run="name"))
    state = initial_state(tiny_model, optax.sgd(0.1), Objective(LowDiscrepancy(), Elbo(), 0))
    return Run(folder, load_recipe(digits_toml), state, 0, ())


def put(run: Run, path: Path, contents: np.ndarray) -> None:
    """Writes a file, and its SHA-256 into the manifest."""
    np.save(path, contents)
    made = run.folder.provenance()
    run.folder.record(replace(made, kept={**made.kept, path.name: hashlib.sha256(path.read_bytes()).hexdigest()}))


def test_what_was_kept_is_read(run, train):
    """The saved record of the training images is read back unchanged."""
    known, expected = read_trained_on(run), trained_on(train)
    assert known.identity == expected.identity
    np.testing.assert_array_equal(known.fingerprints, expected.fingerprints)
    np.testing.assert_array_equal(known.statistics, expected.statistics)


OTHER: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "empty": lambda kept: kept[:0],
    "short": lambda kept: kept[:-1],
    "long": lambda kept: np.concatenate([kept, kept[:1]]),
    "flat": lambda kept: np.zeros(()),
    "nested": lambda kept: kept[None],
    "other type": lambda kept: np.zeros(kept.shape, np.uint16),
    "thumbnails or not": lambda kept: np.zeros(kept.shape, np.float64) if kept.dtype.names is None else kept["hash"],
}


@pytest.mark.parametrize("other", OTHER)
@pytest.mark.parametrize("name", ["trained_on", "trained_levels"])
def test_other_contents_are_refused(run, name, other):
    """A record that does not belong to the run's training images is refused."""
    path = getattr(run.folder, name)
    put(run, path, OTHER[other](np.load(path)))
    with pytest.raises(
        CheckpointError, match=rf"{path.name}: not of this run's training images\. Run the recipe again"
    ):
        read_trained_on(run)


def test_statistics_that_are_no_numbers(run):
    """Level statistics that contain NaN are refused."""
    path = run.folder.trained_levels
    put(run, path, np.full_like(np.load(path), np.nan))
    with pytest.raises(CheckpointError, match="not of this run's training images"):
        read_trained_on(run)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00\x04\x00((({"])
def test_a_file_without_checksum_that_cannot_be_read(run, content):
    """A damaged file that is not in the manifest raises CheckpointError."""
    run.folder.record(replace(run.folder.provenance(), kept={}))
    run.folder.trained_on.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"trained_on\.npy: damaged \(.*Run the recipe again"):
        read_trained_on(run)
