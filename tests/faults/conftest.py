# SPDX-License-Identifier: Apache-2.0
"""Faults under a seed. VDMKIT_FAULTS_SEED chooses other ones, VDMKIT_FAULTS_COUNT how many; failures print the seed."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

PLUGIN = Path(__file__).parents[1] / "system" / "tiny.py"
RECIPE = PLUGIN.with_suffix(".toml")


@dataclass(frozen=True)
class Chosen:
    """The seed of a session, and how many cases it asks for."""

    seed: int
    count: int | None

    def cases(self, few: int) -> int:
        return self.count or few


@pytest.fixture(scope="session")
def chosen() -> Chosen:
    """The seed and the number of cases."""
    count = os.environ.get("VDMKIT_FAULTS_COUNT")
    return Chosen(int(os.environ.get("VDMKIT_FAULTS_SEED", "0")), int(count) if count else None)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A recipe of 12 steps, a checkpoint every 3, on 8x8 images of 17 levels."""
    folder = tmp_path_factory.mktemp("tiny")
    pixels = np.random.default_rng(0).integers(0, 17, (80, 8, 8, 1)).astype(np.uint8)
    np.savez(folder / "noise.npz", train=pixels[:60], test=pixels[60:])
    data = f'[data]\nname = "npz"\npath = "{folder / "noise.npz"}"\nlevels = 17\n'
    (folder / "tiny.toml").write_text(f'extends = "{RECIPE}"\n{data}')
    return str(folder / "tiny.toml")


@pytest.fixture(scope="session")
def program_in(vdmkit_in) -> Callable:
    """`program_in(folder)`: the program with the tiny network, in a folder."""
    return lambda folder: vdmkit_in(folder, ("--plugin", str(PLUGIN)))


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny: str, program_in) -> Path:
    """A run that nothing disturbed. Not to be changed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    result = program_in(folder.parent)("run", tiny, "--out", str(folder))
    assert result.code == 0, result.err
    return folder
