# SPDX-License-Identifier: Apache-2.0
"""Images in bytes: `uv run --group benchmarks python lossless.py [--out DIR] [--cifar ARCHIVE]`, in this folder.

(Not called compression.py: JAX imports a module of that name, and would find this file.)

Trains digits as `vdmkit run` does and, with an archive, a small model of CIFAR-10 (a run that is there is not
repeated), and prints for each, from the code that `vdmkit compress` and `vdmkit decompress` run:

    a. rates of test images in one file, beside the T-step bound of the same images, and the time of the codec
    b. what other codecs make of these images, each in a file and all in one
    c. how many images pay back the checkpoint's own size
    d. of digits, what files of few and of many images take, as `file_sizes.py`

Rates are bits per dimension: gross of the file; net of the images; initial, what the chunk begins with and leaves.
+/- is 95%: of the bound from its draws, of net - bound from the spread over images of one encoding less one estimate;
no such figure where images were stored. Times are of ChunkCode.encode and .decode, milliseconds of all cores an image,
of the first 256 images, without compilation; coder is the share of the time that is spent outside calls of the network,
and calls are those of encoding.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import tomlkit
from codec_times import Images, Measured, bound, measure
from file_sizes import BATCH, CHUNK, table_of_sizes
from image_codecs import break_even, rates
from real_codecs import Row
from vdmkit_codec.codec import Profile
from vdmkit_codec.coding import Coding, coding_of, with_steps_of_codec

from vdmkit.data import Images as Split
from vdmkit.experiments import load_run
from vdmkit.experiments.load import Run

CIFAR = ["data.name=cifar10", "model.prediction.name=lattice", "model.schedule.gamma_min=-13.3"]
CIFAR += ["model.network.channels=48", "training.batch_size=16", "evaluation.draws=2", "evaluation.minutes=1"]
LONG = 4  # images of CIFAR-10 that take hundreds of steps
HEADER = "gross   net    initial  bound             net - bound         encode decode CPU ms coder     calls stored"


def vdmkit(*arguments: str) -> None:
    """Runs a command, which prints to standard error."""
    subprocess.run([sys.executable, "-m", "vdmkit", *arguments], stdout=sys.stderr, check=True)


def run(name: str, out: Path, *overrides: str) -> Path:
    """Returns the folder of a run, which is trained if it is not there."""
    folder = out / name
    if not (folder / "evaluation.json").exists():
        vdmkit("run", name, "--out", str(folder), *overrides)
    return folder


def study(folder: Path) -> None:
    """Has `vdmkit study` save grids of steps, if it has not."""
    if not (folder / "schedule" / "schedule.json").exists():
        vdmkit("study", "--ckpt", str(folder), "--images", "297")


@dataclass(frozen=True)
class Setting:
    """How to compress. `steps`: None for the default ones. `grid`: a name, or a file that `vdmkit study` saved."""

    kernel: str
    steps: int | None = None
    grid: str = "gamma"
    profile: Profile = "portable"

    def __str__(self) -> str:
        if self.steps is None:
            return f"{self.kernel}, default steps, {self.profile}"
        return f"{self.kernel} T = {self.steps}, {Path(self.grid).stem.split('_')[-2:][0]}, {self.profile}"

    def coding(self, folder: Path, data: list[str]) -> Coding:
        inline = tomlkit.inline_table()
        inline.update(
            tomlkit.parse(Path(self.grid).read_text()) if self.grid.endswith(".toml") else {"name": self.grid}
        )
        given = {"kernel": self.kernel}
        if self.steps is not None:
            given |= {"steps": str(self.steps), "grid": inline.as_string()}
        overrides = [f"likelihood.estimator.{key}={value}" for key, value in given.items()]
        run_of_steps = with_steps_of_codec(load_run(folder, [*data, *overrides]), overrides)
        return coding_of(run_of_steps, profile=self.profile, group=BATCH)


def settings_of_digits(folder: Path) -> list[Setting]:
    grids = {steps: str(folder / "schedule" / f"mixture_dynamic_{steps}.toml") for steps in (10, 20)}
    mixtures = [Setting("mixture", steps, grid) for steps in (10, 20) for grid in ("gamma", grids[steps])]
    mixtures += [Setting("mixture")]
    gaussians = [Setting("gaussian", steps) for steps in (50, 100, 250)]
    return [*mixtures, *gaussians, Setting("mixture", profile="host")]


def settings_of_cifar() -> list[Setting]:
    return [Setting("mixture", 20), Setting("mixture", 20, profile="host")]


def long_settings_of_cifar() -> list[Setting]:
    return [Setting("gaussian", steps, profile=which) for steps in (100, 250) for which in ("portable", "host")]


def line(measured: Measured, of_bound: np.ndarray, half_width: float) -> str:
    rates_of_it = f"{measured.gross:.4f} {measured.net:.4f} {measured.initial:.4f}"
    gap = "-".center(18)
    if measured.each is not None:
        each = measured.each - of_bound
        gap = f"{each.mean():+.4f} +/- {1.96 * each.std(ddof=1) / np.sqrt(len(each)):.4f}"
    (encode, decode), (first, second) = measured.milliseconds, measured.shares
    times = f"{encode:9.2f} {decode:9.2f}  {first:5.1%} {second:5.1%} {measured.calls:6} {measured.stored:6}"
    return f"{rates_of_it}   {of_bound.mean():.4f} +/- {half_width:.4f} {gap} {times}"


def table_of_rates(folder: Path, data: list[str], images: Images, settings: list[Setting], draws: int) -> float:
    """Prints it. Returns the lowest rate of many images: net, and what a file has besides, once in a full chunk."""
    print(f"{'':38}{HEADER}")
    of_many, bounds = [], {}
    for setting in settings:
        coding = setting.coding(folder, data)
        if str(coding) not in bounds:
            bounds[str(coding)] = bound(coding, images, draws)
        found = measure(coding, images)
        of_many.append(found.net + (found.gross - found.net) * len(images) / CHUNK)
        print(f"{setting!s:38}{line(found, *bounds[str(coding)])}", flush=True)
    return min(of_many)


def table_of_codecs(images: Images, test: Split, train: Split) -> list[Row]:
    found = rates(images, test.levels, train.pixels)
    print(f"\n{'other codecs':24}{'each':>8}{'one file':>9}")
    for row in found:
        alone, together = ("-" if rate is None else f"{rate:.3f}" for rate in (row.per_image, row.together))
        print(f"{row.name:24}{alone:>8}{together:>9}  {row.note}", flush=True)
    return found


def table_of_break_even(trained: Run, ours: float, others: list[Row]) -> None:
    model = trained.weighted(trained.recipe.likelihood.weights)
    parameters = 4 * sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))
    checkpoint = trained.folder.checkpoints / str(trained.step)
    folder = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
    peers = {row.name + ", each": row.per_image for row in others if row.name.startswith("JPEG XL")}
    best = min(((rate, row.name) for row in others for rate in (row.per_image, row.together) if rate), default=(0, ""))
    peers[f"{best[1]}, the best"] = best[0]
    print(f"\nimages that pay back the checkpoint, at {ours:.4f} bits/dim: the lowest above in chunks of {CHUNK:,}")
    for what, size in (("float32 parameters", parameters), ("folder of the checkpoint", folder)):
        counts = [
            f"{break_even(size, ours, theirs, model.dimensions):,.0f} against {name}"
            for name, theirs in peers.items()
            if theirs
        ]
        print(f"{what}, {size:,} bytes: {'; '.join(counts)}")


def minutes_of_training(folder: Path) -> float:
    """As its log says."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    logged = [(row["step"], row["steps_per_second"]) for row in rows if "steps_per_second" in row]
    before = [0, *(step for step, _ in logged)]
    return sum((step - last) / rate for last, (step, rate) in zip(before, logged, strict=False)) / 60


def report(folder: Path, settings: list[Setting], count: int | None, draws: int, data: list[str]) -> None:
    """Prints the tables of the first `count` test images."""
    trained = load_run(folder, data)
    source = trained.recipe.data.build()
    test, train = source.load("test"), source.load("train")
    images = test.pixels[:count]
    steps = f"{trained.step:,} steps of {trained.recipe.training.batch_size} images"
    print(f"{folder.name}: trained for {minutes_of_training(folder):.1f} minutes, {steps}")
    print(f"the first {len(images)} images of {test.identity}\n")
    ours = table_of_rates(folder, data, images, settings, draws)
    table_of_break_even(trained, ours, table_of_codecs(images, test, train))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs") / "compression")
    parser.add_argument("--cifar", type=Path, metavar="ARCHIVE", help="CIFAR-10's Python archive, or a part of it")
    parser.add_argument("--cifar-steps", type=int, default=1500, help="of training")
    parser.add_argument("--cifar-images", type=int, default=100)
    given = parser.parse_args()
    digits = run("digits", given.out)
    study(digits)
    report(digits, settings_of_digits(digits), None, draws=128, data=[])
    source = load_run(digits).recipe.data.build()
    print("\nbytes of one file of test images, then training images; mixture, default steps, portable")
    table_of_sizes(Setting("mixture").coding(digits, []), source.load("test"), source.load("train"))
    if given.cifar:
        data = f"data.path={given.cifar.resolve()}"
        cifar = run("cifar10_lattice", given.out, "--set", data, "--set", f"training.steps={given.cifar_steps}")
        print()
        report(cifar, settings_of_cifar(), given.cifar_images, draws=64, data=[data])
        print(f"\nlong chains, of the first {LONG}")
        images = load_run(cifar, [data]).recipe.data.build().load("test").pixels[:LONG]
        table_of_rates(cifar, [data], images, long_settings_of_cifar(), draws=64)


if __name__ == "__main__":
    main()
