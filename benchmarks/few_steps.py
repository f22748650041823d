# SPDX-License-Identifier: Apache-2.0
"""Learned schedules and few steps on digits: `uv run python benchmarks/few_steps.py [--out DIR]`.

Trains three recipes as `vdmkit run` does (a run that is there is not repeated) and prints, from `vdmkit study` and
`vdmkit likelihood`, three tables that docs/schedules.md explains:

    1. the variance of the bound's estimate under schedules between the same ends, of digits_learned
    2. bounds of T steps of digits by kernel and grid, as predicted, and as measured at some T
    3. digits and digits_few_steps, trained for as long, at T = 10

How many steps take as long is measured first, step by step in turns. Half an hour on 2 cores.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from training import training

from vdmkit.schedule_search import cheapest_paths, costs_of_gaussian

RECIPES = Path(__file__).parents[1] / "recipes"
PAIRS = 200
MEASURED = (5, 10, 20)


def vdmkit(*arguments: str) -> str:
    """Returns what a command printed; it goes to standard error besides."""
    command = [sys.executable, "-m", "vdmkit", *arguments]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    print(printed, file=sys.stderr)
    return printed


def run(name: str, out: Path, *overrides: str) -> Path:
    folder = out / name
    if not (folder / "evaluation.json").exists():
        vdmkit("run", str(RECIPES / f"{name}.toml"), "--out", str(folder), *overrides)
    return folder


def study(folder: Path) -> dict[str, Any]:
    """What `vdmkit study` found on all test images."""
    if not (folder / "schedule" / "schedule.json").exists():
        vdmkit("study", "--ckpt", str(folder), "--images", "297")
    return json.loads((folder / "schedule" / "schedule.json").read_text())


def likelihood(folder: Path, *arguments: str) -> str:
    found = json.loads(vdmkit("likelihood", "--json", "--ckpt", str(folder), "--precision", "0.005", *arguments))
    return f"{found['bpd']:.4f} +/- {found['half_width_monte_carlo']:.4f}"


def few(folder: Path, grids: Path, steps: int) -> str:
    """The bound of so many steps of the mixture, on a grid that was saved."""
    return likelihood(
        folder, "--kernel", "mixture", "--grid", str(grids / "schedule" / f"mixture_dynamic_{steps}.toml")
    )


def steps_in_as_much_time() -> int:
    """Of digits_few_steps, as long as all of digits."""
    one, other = (training(f"{name}.toml") for name in ("digits", "digits_few_steps"))
    pairs = [(one.step(), other.step()) for _ in range(PAIRS + 1)][1:]
    return round(one.recipe.training.steps / statistics.median(b / a for a, b in pairs))


def seconds_of_dynamic_programming(nodes: int = 1000, steps: int = 250) -> float:
    gamma = np.linspace(-8, 5, nodes)
    costs = costs_of_gaussian(gamma, 1 / (1 + np.exp(gamma)), 64)
    start = time.monotonic()
    cheapest_paths(costs, steps)
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs") / "few_steps")
    out = parser.parse_args().out
    digits, learned = run("digits", out), run("digits_learned", out)

    study(learned)
    print("1. digits_learned\n")
    print((learned / "schedule" / "schedule.txt").read_text().split("\n\n")[1])

    study(digits)
    print("\n2. digits\n")
    print((digits / "schedule" / "schedule.txt").read_text())
    print("measured, kernel mixture, grid dynamic, and in continuous time")
    for steps in MEASURED:
        print(f"{f'T = {steps}':>20} {few(digits, digits, steps):>18}", flush=True)
    continuous = likelihood(digits)
    print(f"{'continuous':>20} {continuous:>18}")

    print(f"\ndynamic programming, 1,000 nodes, T to 250: {seconds_of_dynamic_programming():.2f} s")

    count = steps_in_as_much_time()
    trained = run("digits_few_steps", out, "--set", f"training.steps={count}")
    study(trained)
    print(f"\n3. trained for T = 10 in {count:,} steps, which take as long as those of digits\n")
    print(f"{'recipe':20} {'continuous':>18} {'T = 10, own grid':>18}")
    print(f"{'digits':20} {continuous:>18} {few(digits, digits, 10):>18}")
    print(f"{'digits_few_steps':20} {likelihood(trained, '--steps', '0'):>18} {few(trained, trained, 10):>18}")


if __name__ == "__main__":
    main()
