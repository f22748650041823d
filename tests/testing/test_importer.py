# SPDX-License-Identifier: Apache-2.0
"""Conformance of importers: vdmkit's pass on the authors' arrays, and wrong ones are refused with a reason."""

import json
from pathlib import Path

import numpy as np
import pytest
from vdmkit_importers import OpenAiImporter

from vdmkit.conformance import check_importer
from vdmkit.errors import CheckpointError, ConformanceError
from vdmkit.importers import AbstractImporter

FOLDER = Path(__file__).parents[1] / "reference" / "networks" / "improved"


@pytest.fixture(scope="module")
def case():
    with np.load(FOLDER / "weights.npz") as file:
        return dict(file), json.loads((FOLDER / "config.json").read_text())


class _LeavesOut(AbstractImporter):
    """Ignores arrays that it does not expect."""

    def __init__(self, names):
        self.names = names

    def recipe(self, config):
        return OpenAiImporter().recipe(config)

    def shape(self, config):
        return OpenAiImporter().shape(config)

    def filled(self, model, arrays, config):
        return OpenAiImporter().filled(model, {name: arrays[name] for name in self.names}, config)


@pytest.mark.costly
def test_importers(case):
    """An importer of vdmkit passes its conformance checks."""
    check_importer(OpenAiImporter(), *case)


@pytest.mark.costly
def test_arrays_that_are_ignored(case):
    """An importer that ignores arrays of the checkpoint is refused."""
    with pytest.raises(ConformanceError, match="ignores an array that is not of its model"):
        check_importer(_LeavesOut(list(case[0])), *case)


def test_arrays_that_do_not_fit(case):
    """A checkpoint that lacks an array of the model is refused."""
    arrays, config = case
    with pytest.raises(CheckpointError, match=r"out\.2\.bias: nothing in the file, \(6,\) in the network"):
        check_importer(OpenAiImporter(), {name: one for name, one in arrays.items() if name != "out.2.bias"}, config)
