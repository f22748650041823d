# SPDX-License-Identifier: Apache-2.0
"""The page of a run folder whose files are meant to do harm: small ones that ask for memory, or for hours."""

import json
import os
import tracemalloc
import zipfile

import numpy as np
import pytest

from vdmkit import npz
from vdmkit.errors import CheckpointError
from vdmkit.io import TooMuch, has_sha256, write_json
from vdmkit.page import _training
from vdmkit.page._figures import literally
from vdmkit.page._files import read_files, values_in
from vdmkit.page._samples import samples
from vdmkit.page._study import study
from vdmkit.progress import Kept


def with_steps(run, steps):
    """Adds bounds of few steps to the study of a run."""
    path = run / "schedule" / "schedule.json"
    facts = json.loads(path.read_text())
    write_json(path, facts | {"steps": [*facts["steps"], *({**facts["steps"][0], **one} for one in steps)]})


@pytest.mark.parametrize("shape", [[[0], 10**9, 1], ["ab", 10**9, 1], [8, 8], [8.0, 8, 1], [8, 8, 1, 10**4000]])
def test_a_shape_is_three_integers(shape):
    """False if a list or a text in the place of a height were multiplied to gigabytes."""
    with pytest.raises((TypeError, ValueError)):
        values_in(shape)


@pytest.mark.parametrize("depth", [150, *range(975, 992, 2), 5000])
def test_deep_json_is_named(bare, depth):
    """False if JSON as deep as Python's recursion ended in a traceback, which it did at some depths."""
    (bare / "evaluation.json").write_text('{"a": ' + "[" * depth + "]" * depth + "}")
    with pytest.raises(CheckpointError, match=r"evaluation\.json: is not JSON that vdmkit writes"):
        read_files(bare)


def test_a_name_is_no_formula(full, shown_of):
    """False if a kernel's name were parsed as a formula of Matplotlib, deeper than Python's recursion."""
    with_steps(full, [{"kernel": "$" + "{" * 3000 + "}" * 3000 + "$"}])
    assert len(study(shown_of(full))) == 2
    assert len(literally("a$" * 10_000)) < 300


def bomb(path):
    """An array of zeros that takes a thousandth of them."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("nats.npy", "w") as entry:
        header = {"descr": "<f8", "fortran_order": False, "shape": (2_500_000,)}
        np.lib.format.write_array_header_1_0(entry, header)
        for _ in range(20):
            entry.write(bytes(10**6))


def endless(path):
    """An array of terabytes, of which no byte is stored."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (2**40,)})
    os.truncate(path, 2**43 + 128)


@pytest.mark.parametrize("make", [bomb, endless])
def test_arrays_of_a_measurement_are_no_bomb(full, make, monkeypatch):
    """False if the images' nats of a run folder from elsewhere, or a part of a measurement, filled the memory."""
    monkeypatch.setattr(npz, "MAX_MEASURED", 10**7)
    (path,) = (full / "likelihood").glob("*.npz")
    make(path)
    make(full / "3.npz")
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=r"\.npz: damaged"):
            _ = read_files(full).likelihoods
        assert Kept(full).read(3) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10e6


def test_a_file_without_end_is_not_hashed(tmp_path):
    """False if a sparse file beside a study, or in the place of a recipe, were read for hours."""
    (tmp_path / "a").touch()
    os.truncate(tmp_path / "a", 2**43)
    assert not has_sha256(tmp_path / "a", "0")


def test_charts_have_an_end(full, shown_of, monkeypatch):
    """False if a kilobyte of names of metrics or kernels made hours of charts."""
    monkeypatch.setattr(_training, "_MOST", 2)
    metrics = "".join(json.dumps({"step": n, **{f"m{i}": n * i for i in range(300)}}) + "\n" for n in (1, 2))
    (full / "metrics.jsonl").write_text(metrics)
    with_steps(full, [{"kernel": f"k{number}"} for number in range(300)])
    shown = shown_of(full)
    (section,) = _training.training(shown)
    assert sum("<svg" in str(block) for block in section.blocks) == 2
    assert "298 more metrics are not drawn" in str(section.blocks)
    with pytest.raises(TooMuch, match="lines in a chart"):
        study(shown)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_picture_is_named(bare, shown_of, make):
    """False if a folder, a FIFO or a dangling link called samples.png were left out without a word."""
    make(bare / "samples.png")
    (section,) = samples(shown_of(bare))
    assert "samples.png: " in str(section.blocks)
