# SPDX-License-Identifier: Apache-2.0
"""`vdmkit compress`, `decompress` and `inspect`: images come back, also with other settings of the machine."""

import importlib
import io
import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from vdmkit_codec.container import open_reader

COUNT = 67  # prime
QUICK = ("--steps", "4")
SIZES = (*QUICK, "--batch", "64", "--chunk", "30")
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(program_in, whole, tmp_path_factory) -> Path:
    """A folder with 67 images, one of them black, and their files of both profiles, encoded at --batch 64."""
    folder = tmp_path_factory.mktemp("compress")
    images = np.random.default_rng(5).integers(0, 17, (COUNT, 8, 8, 1)).astype(np.uint8)
    images[3] = 0
    np.save(folder / "images.npy", images)
    commands = [
        ("compress", "images.npy", "-o", f"{profile}.vdmz", "--ckpt", str(whole), "--profile", profile, *SIZES)
        for profile in ("portable", "host")
    ]
    for command in commands:
        result = program_in(folder)(*command)
        assert result.code == 0, result.err
    return folder


def decoded(program, whole, *arguments: str, **options):
    """The result of decompression, and the pixels if it succeeded."""
    out = program.cwd / "out.npy"
    out.unlink(missing_ok=True)
    result = program("decompress", *arguments, "-o", "out.npy", "--ckpt", str(whole), **options)
    return result, np.load(out) if result.code == 0 else None


def refuses(result) -> None:
    """The command failed with one line of error."""
    assert (result.code, result.out) == (1, "")
    assert len([line for line in result.err.splitlines() if not line.startswith("decompressing")]) == 1, result.err


SETTINGS = {
    "one by one, old instructions of numpy": (("--batch", "1"), "", "NPY_DISABLE_CPU_FEATURES", ()),
    "by sevens, old instructions": (("--batch", "7"), "--xla_cpu_max_isa=SSE4_2", "", ()),
    "all at once, one thread": (("--batch", "360"), "--xla_cpu_multi_thread_eigen=false", "OMP_NUM_THREADS", SLOW),
    "no compiler": ((), "", "JAX_DISABLE_JIT", SLOW),
    "four devices": ((), "--xla_force_host_platform_device_count=4", "", SLOW),
}


def dispatched() -> str:
    """Instruction sets that numpy selects at run time here; it refuses to disable absent ones."""
    core = importlib.import_module("numpy._core._multiarray_umath")
    return " ".join(name for name in core.__cpu_dispatch__ if core.__cpu_features__.get(name))


@pytest.mark.parametrize(
    ("batch", "flags", "variable"),
    [pytest.param(*values[:3], marks=values[3], id=name) for name, values in SETTINGS.items()],
)
def test_portable_decodes_everywhere_and_host_or_refuses(
    processes_in, folder, whole, monkeypatch, batch, flags, variable
) -> None:
    """portable decodes to the same images with other settings of the machine; host does so or refuses."""
    values = {"NPY_DISABLE_CPU_FEATURES": dispatched(), "OMP_NUM_THREADS": "1", "JAX_DISABLE_JIT": "1"}
    if variable:
        monkeypatch.setenv(variable, values[variable])
    processes, images = processes_in(folder), np.load(folder / "images.npy")
    result, found = decoded(processes, whole, "portable.vdmz", *batch, flags=flags)
    assert result.code == 0, result.err
    np.testing.assert_array_equal(found, images)
    result, found = decoded(processes, whole, "host.vdmz", flags=flags)
    if result.code == 0:
        np.testing.assert_array_equal(found, images)
    else:
        refuses(result)


def test_host_refuses_another_batch(program_in, folder, whole) -> None:
    """Profile host refuses a batch size other than that of encoding."""
    result, _ = decoded(program_in(folder), whole, "host.vdmz", "--batch", "7")
    assert (result.code, result.out) == (2, "")
    assert "--batch 7: profile host decodes in batches of 64" in result.err


def test_range_jobs_and_previews(program_in, folder, whole) -> None:
    """`--range` decodes these images only, with concurrent chunks, and previews are written on the way."""
    program = program_in(folder)
    arguments = ("--range", "25:40", "--jobs", "2", "--preview-every", "2")
    result, found = decoded(program, whole, "portable.vdmz", *arguments)
    assert result.code == 0, result.err
    assert result.out == f"out.npy: 15 of {COUNT} images\n"
    np.testing.assert_array_equal(found, np.load(folder / "images.npy")[25:40])
    written = sorted(path.name for path in (folder / "out.previews").iterdir())
    stored = json.loads(program("inspect", "portable.vdmz", "--json", plugins=()).out)["stored"]
    assert 0 < len(written) <= 2 * 60, "of the two chunks that hold them, at steps 4 and 2"
    assert stored > 0 or len(written) == 120
    with Image.open(folder / "out.previews" / written[0]) as picture:
        assert picture.size == (8, 8)


@pytest.mark.costly
def test_names_and_damage(program, tiny, whole) -> None:
    """Files come back under their names; a damaged chunk is named, and images of other chunks are still decoded."""
    images = np.random.default_rng(6).integers(0, 17, (9, 8, 8)).astype(np.uint8)
    for name, image in zip(["b", "a", "sub/a", "sub/c", "z", "y", "x", "w", "v"], images, strict=True):
        path = program.cwd / "in" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (program.cwd / "in" / "notes.txt").write_text("not an image")
    made = program("compress", "in", "-o", "a.vdmz", "--ckpt", str(whole), "--chunk", "3", *QUICK)
    assert made.code == 0, made.err
    assert "1 other files in these folders are skipped" in made.err
    back = program("decompress", "a.vdmz", "-o", "out", "--ckpt", str(whole))
    assert back.code == 0, back.err
    before, after = (
        {
            str(path.relative_to(program.cwd / name)): np.asarray(Image.open(path))
            for path in (program.cwd / name).rglob("*.png")
        }
        for name in ("in", "out")
    )
    assert before.keys() == after.keys()
    for name, image in before.items():
        np.testing.assert_array_equal(after[name], image)

    with open_reader(program.cwd / "a.vdmz") as reader:
        at = reader.chunks[1].end - 9
    data = bytearray((program.cwd / "a.vdmz").read_bytes())
    data[at] ^= 1
    (program.cwd / "a.vdmz").write_bytes(data)
    refused = program("decompress", "a.vdmz", "-o", "again", "--ckpt", str(whole))
    refuses(refused)
    assert "chunk 1 (images 3 to 5) is damaged" in refused.err
    assert not (program.cwd / "again").exists()
    part = program("decompress", "a.vdmz", "-o", "part.npy", "--ckpt", str(whole), "--range", "6:9")
    assert part.code == 0, part.err
    order = [str(path) for path in sorted(Path(name) for name in before)]  # as `compress` takes a folder
    expected = [before[name] for name in order[6:]]
    np.testing.assert_array_equal(np.load(program.cwd / "part.npy")[..., 0], expected)


def test_doubled_names_and_a_dry_run(program_in, folder, whole, tmp_path) -> None:
    """Two files of the same name are refused, and `--dry-run` prints about the size of the file."""
    program = program_in(folder)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / name / "a.png")
    files = [str(tmp_path / name / "a.png") for name in ("one", "two")]
    doubled = program("compress", *files, "-o", "b.vdmz", "--ckpt", str(whole))
    refuses(doubled)
    assert "a: two images of this name" in doubled.err
    dry = program("compress", "images.npy", "--dry-run", "--ckpt", str(whole), "--json", *SIZES)
    assert dry.code == 0, dry.err
    assert not (folder / "b.vdmz").exists()
    shown = program("inspect", "portable.vdmz", "--json", plugins=())
    stacks = 8 * json.loads(shown.out)["bytes"]["stacks"] / (COUNT * 64)
    expected = json.loads(dry.out)
    # The black image is stored, and lanes round: 0.1; its draws' and its sample's intervals beside.
    slack = expected["half_width_monte_carlo"] + 0.1
    assert abs(stacks - expected["net"]) < 2 * slack, (stacks, expected)
    # Three chunks, in which a first image that is stored saves a word of each of 64 lanes.
    written = (folder / "portable.vdmz").stat().st_size
    net_bytes = (expected["net"] - stacks) * COUNT * 8
    assert abs(expected["bytes"] - net_bytes - written) < 3 * 64 * 4, (written, expected)


@SLOW
def test_resumed_after_a_kill(processes, tiny, whole, folder) -> None:
    """After SIGKILL, `--resume` continues the file, which decodes to all images."""
    shutil.copy(folder / "images.npy", processes.cwd)
    command = ("compress", "images.npy", "-o", "a.vdmz", "--ckpt", str(whole), "--chunk", "5", *QUICK)
    process = processes.start(*command)
    part, deadline = processes.cwd / "a.vdmz.part", time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline and not (part.exists() and part.stat().st_size > 600):
        time.sleep(0.01)  # until a chunk is there: what is killed is the process, whenever that is
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (processes.cwd / "a.vdmz").exists()
    stopped = processes(*command)
    refuses(stopped)
    assert "Use --resume to continue it" in stopped.err
    resumed = processes(*command, "--resume")
    assert resumed.code == 0, resumed.err
    result, found = decoded(processes, whole, "a.vdmz")
    assert result.code == 0, result.err
    np.testing.assert_array_equal(found, np.load(folder / "images.npy"))


def test_standard_input_and_output(program_in, folder, whole) -> None:
    """Images and files pass through standard input and output, without messages among the bytes."""
    program, images = program_in(folder), np.load(folder / "images.npy")[:5]
    given = io.BytesIO()
    np.save(given, images)
    made = program("compress", "-", "-o", "-", "--ckpt", str(whole), *QUICK, given=given.getvalue())
    assert made.code == 0, made.err
    assert "5 images in " in made.err
    shown = program("inspect", "-", "--json", given=made.data)
    assert json.loads(shown.out)["images"] == 5
    back = program("decompress", "-", "-o", "-", "--ckpt", str(whole), given=made.data)
    assert back.code == 0, back.err
    np.testing.assert_array_equal(np.load(io.BytesIO(back.data)), images)
    for wrong in (b"", b"text", made.data):
        assert program("compress", "-", "-o", "-", "--ckpt", str(whole), given=wrong).code == 1
    assert program("compress", "-", "-o", "-", "--resume", "--ckpt", str(whole), given=b"").code == 2


def test_another_run_is_refused(program, tiny, whole, folder) -> None:
    """A run with other parameters than those of the file is refused with the reason."""
    assert program("run", tiny, "--out", "other", "--set", "seed=2").code == 0
    result, _ = decoded(program, Path("other"), str(folder / "portable.vdmz"))
    refuses(result)
    assert "it was made with the model" in result.err


def test_inspect_without_jax(processes_in, folder, monkeypatch) -> None:
    """`inspect` needs neither JAX nor the run."""
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    result = processes_in(folder).start("inspect", "portable.vdmz", plugins=())
    out, err = result.communicate()
    assert result.returncode == 0, err
    assert f"{COUNT} images of 8x8x1, 17 levels; chunks: 3" in out
    assert "jaxlib" not in err
    assert "| jax" not in err
