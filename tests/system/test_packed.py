# SPDX-License-Identifier: Apache-2.0
"""`vdmkit data` as a user runs it, and runs on packed images."""

from pathlib import Path

import numpy as np
import pytest

from vdmkit.data import Npz
from vdmkit.data.packed import pack

PACKED = ("--set", "data=packed", "--set", "data.path=packed")


def test_a_killed_pack_leaves_nothing_and_packed_images_train_the_same_model(processes, program, tiny, same_as_whole):
    """A kill leaves no folder of packed images; training on them is bit-equal to training on their source."""
    pack_tiny = ("data", "pack", tiny, "-o", "packed")
    folder = processes.cwd / "packed"
    assert processes(*pack_tiny, faults=r"SIGKILL os.rename \.packed\.").code == -9
    result = program("check", tiny, *PACKED)
    assert (result.code, "a folder that `vdmkit data pack` made" in result.err) == (1, True)
    result = program(*pack_tiny)
    assert result.code == 0, result.err
    assert sorted(path.name for path in folder.iterdir()) == [
        "data.json",
        *(f"{name}.npy" for name in ("fingerprints-test", "fingerprints-train", "test", "train")),
    ]
    assert f"  next  vdmkit run {tiny} --set data=packed --set data.path={folder}" in result.out
    result = program("run", tiny, *PACKED, "--out", "run")
    assert result.code == 0, result.err
    same_as_whole(processes.cwd / "run")
    for path in folder.iterdir():
        path.unlink()
    result = program("sample", "--ckpt", "run", "-n", "2")
    assert result.code == 0, f"a trained model needs no images: {result.err}"


def test_verify_names_the_file_of_a_flipped_bit(program, tiny):
    """Damage is found, and the exit code is 1."""
    assert program("data", "pack", tiny, "-o", "packed").code == 0
    verify = ("data", "verify", "packed")
    result = program(*verify, plugins=())
    assert (result.code, result.out.splitlines()[-1]) == (0, "Every file is as it was written."), result.err
    path = program.cwd / "packed" / "test.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 16
    path.write_bytes(data)
    result = program(*verify, plugins=())
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("packed/test.npy: its contents are not those that were written.")


PEAK = """
import atexit, resource
from pathlib import Path
atexit.register(lambda: Path("peak").write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(processes):
    """A data set that does not fit in memory could be packed, and not trained on. Neither test set has a pilot."""
    (processes.cwd / "peak.py").write_text(PEAK)
    base = Path(__file__).parent / "tiny.toml"
    (processes.cwd / "tiny.toml").write_text(
        f'extends = "{base}"\n[data]\nname = "packed"\npath = ""\n[model.prediction]\nname = "eps"\n'
        "[evaluation]\nminutes = 0.1\n[training]\nsteps = 100\n"
    )
    peaks = {}
    for name, train, test in (("warm", 1800, 200), ("few", 1800, 200), ("many", 199_000, 1000)):
        rng = np.random.default_rng(0)
        arrays = {
            split: rng.integers(0, 256, (n, 32, 32, 3), np.uint8) for split, n in (("train", train), ("test", test))
        }
        np.savez(processes.cwd / "noise.npz", **arrays)
        pack(Npz(path=str(processes.cwd / "noise.npz")), processes.cwd / name)
        options = ("--plugin", "peak.py", "--out", f"run-{name}", "--set", f"data.path={name}")
        result = processes("run", "tiny.toml", *options)
        assert result.code == 0, result.err
        peaks[name] = int((processes.cwd / "peak").read_text()) / 1024
    assert peaks["many"] < peaks["few"] + 200, peaks
