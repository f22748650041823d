# SPDX-License-Identifier: Apache-2.0
"""`vdmkit study`: what it prints is what its files say, and other commands take these."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
QUICK = ("--images", "20", "--nodes", "25", "--steps", "2,3")  # all test images


def test_grids_and_kernels_go_from_command_to_command(program, whole):
    """A saved grid or kernel would not be taken, or be another one than it was measured as."""
    studied = program("study", "--ckpt", str(whole), *QUICK, "--fit", "fitted")
    assert studied.code == 0, studied.err
    folder = whole / "schedule"
    facts = json.loads((folder / "schedule.json").read_text())
    assert (folder / "schedule.txt").read_text() in studied.out
    for name in ("variance", "steps"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (folder / f"{name}.svg").read_bytes()
    names = {row["schedule"] for row in facts["variances"]}
    assert {"this run's", "the best there is", "fixed_linear", "cosine", "tabulated"} <= names
    least = min(facts["variances"], key=lambda row: row["variance"])
    assert least["schedule"] == "the best there is"
    for kernel in ("gaussian", "mixture", "optimal_variance"):
        grid = folder / f"{kernel}_dynamic_3.toml"
        given = kernel if kernel != "optimal_variance" else str(folder / "optimal_variance.toml")
        taken = ("--kernel", given, "--grid", str(grid))
        found = program("likelihood", "--ckpt", str(whole), *taken, "--set", "likelihood.estimator.draws=48", "--json")
        assert found.code == 0, found.err
        (row,) = (r for r in facts["steps"] if (r["kernel"], r["grid"], len(r["gammas"])) == (kernel, "dynamic", 4))
        measured = json.loads(found.out)
        error = np.hypot(row["half_width"], measured["half_width_monte_carlo"])  # 95%, of draws that are independent
        assert abs(measured["bpd"] - row["bpd"]) < 2 * error  # false once in 1e4 seeds, this one is fixed
        end, steps = ("image", "4 steps to the image") if kernel == "gaussian" else ("latent", "3 steps to z_0")
        taken += ("--set", f"sampling.end={end}")
        drawn = program("sample", "--ckpt", str(whole), *taken, "-n", "2", "-o", f"{kernel}.npy")
        assert drawn.code == 0, drawn.err
        assert drawn.out.startswith(f"{kernel}.npy: 2 samples")
        assert steps in drawn.out
    fitted = program("evaluate", "--ckpt", "fitted", "--json")
    assert fitted.code == 0, fitted.err
    same = json.loads(program("evaluate", "--ckpt", str(whole), "--json").out)
    assert abs(json.loads(fitted.out)["bpd"] - same["bpd"]) < 1e-3  # the same gammas and noise, in float32


@pytest.mark.slow
def test_killed_it_goes_on_where_it_was(processes, whole):
    """Minutes of measuring would begin anew, end with other numbers, or come without a word of how long they take."""
    runs = {name: shutil.copytree(whole, processes.cwd / name) for name in ("undisturbed", "killed")}
    few = ("--images", "6", "--nodes", "11", "--steps", "2")
    alone = processes("study", "--ckpt", "undisturbed", *few)
    assert alone.code == 0, alone.err
    # two draws of 6 + 6 images: errors at 11 gammas, steps from the upper 10
    assert "at 11 gammas on 6 train images and 6 test images: 504 evaluations of the network.\n" in alone.err
    assert "kept in undisturbed/schedule.unfinished: if this is stopped, the same command continues." in alone.err
    counted = r"os.rename schedule\.unfinished/.*/"
    order = np.random.default_rng(0).permutation(11).tolist()
    killed = processes("study", "--ckpt", "killed", *few, faults=rf"SIGKILL {counted}{order[2]}\.npz ")
    assert (killed.code, killed.out) == (-9, "")
    unfinished = runs["killed"] / "schedule.unfinished"
    assert {path.name for path in unfinished.glob("*/[0-9]*")} == {f"{number}.npz" for number in order[:2]}
    again = processes("study", "--ckpt", "killed", *few, faults=rf"SIGKILL {counted}({order[0]}|{order[1]})\.npz ")
    assert again.code == 0, again.err  # what is done is not written again
    done = sum(24 if number == 0 else 48 for number in order[:2])
    assert f"504 evaluations of the network, {done} of them done before." in again.err
    assert again.out == alone.out
    for name in ("schedule.json", "optimal_variance.toml", "mixture_dynamic_2.toml"):
        assert (runs["killed"] / "schedule" / name).read_bytes() == (
            runs["undisturbed"] / "schedule" / name
        ).read_bytes()
    assert not unfinished.exists()


def test_what_is_refused(program, whole, tmp_path):
    """A user's mistake would be a traceback, or a number of something else."""
    (tmp_path / "nameless.toml").write_text("gammas = [1.0, 0.0]\n")
    (tmp_path / "three.toml").write_text('name = "gammas"\ngammas = [5.0, 1.0, -1.0, -8.0]\n')
    likelihood = ("likelihood", "--ckpt", str(whole))
    for arguments, code, message in (
        (("study", "--ckpt", str(whole), "--steps", "2,x"), 2, "--steps 2,x: expected numbers from 1 to 999"),
        ((*likelihood, "--kernel", "mixture"), 2, "kernel mixture: continuous time has no kernel"),
        ((*likelihood, "--grid", str(tmp_path / "nameless.toml")), 2, "without a name"),
        ((*likelihood, "--grid", str(tmp_path / "absent.toml")), 2, "absent.toml: no such file."),
        (
            (*likelihood, "--steps", "5", "--grid", str(tmp_path / "three.toml")),
            2,
            "it has 3 steps, but 5 were asked",
        ),
    ):
        refused = program(*arguments)
        assert (refused.code, refused.out) == (code, ""), refused.err
        assert message in refused.err


def test_kernels_that_lie_and_other_images_are_left_out(program, whole):
    """A study would print a bound of 0.7 bits/dim by a kernel that counts a tenth of its KL,, or of darkened images."""
    plugins = ("--plugin", str(HERE / "tiny.py"), "--plugin", str(HERE / "lying.py"))
    few = ("study", "--ckpt", str(whole), "--images", "6", "--nodes", "11", "--steps", "2")
    lying = program(*few, plugins=plugins)
    assert lying.code == 0, lying.err
    table, _, left_out = lying.out.partition("kernel half_kl: ")
    assert "half_kl" not in table
    assert "its KL(q || p) is" in left_out
    images = np.repeat(np.arange(20, dtype=np.uint8)[:, None], 64, axis=1).reshape(20, 8, 8, 1) % 2
    np.savez(program.cwd / "dark.npz", train=images, test=images)
    dark = program(*few, "--set", "data.path=dark.npz", "--set", "likelihood.images=0")
    assert (dark.code, dark.out) == (1, "")
    assert "they are of another scale" in dark.err
