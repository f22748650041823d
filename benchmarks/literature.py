# SPDX-License-Identifier: Apache-2.0
"""The literature's models on digits, measured alike: `uv run python benchmarks/literature.py [NAME ...] [--out DIR]`.

Trains every recipe of recipes/digits, or those named, as `vdmkit run` does (a run that is there is not repeated), and
prints the same test bound of each by `vdmkit likelihood`, with 95% intervals: in continuous time between the ends of
its own schedule, or of T steps where it was trained on them; and by the ODE where the paper measures that.
Half an hour on 2 cores.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

RECIPES = Path(__file__).parents[1] / "recipes" / "digits"
SAME_MODEL = {"ddim"}  # another way of sampling ddpm
HEADER = f"{'recipe':16} {'bound, bits/dim':>18} {'test set':>9}   {'ODE, bits/dim':>18}   what was measured"


def vdmkit(*arguments: str) -> str:
    """Returns what a command printed; it goes to standard error besides."""
    command = [sys.executable, "-m", "vdmkit", *arguments]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    print(printed, file=sys.stderr)
    return printed


def measure(run: Path, *arguments: str) -> dict:
    """Returns what `vdmkit likelihood` reports."""
    return json.loads(vdmkit("likelihood", "--json", "--ckpt", str(run), *arguments))


def row(name: str, out: Path) -> str:
    run, recipe = out / name, RECIPES / f"{name}.toml"
    if not (run / "evaluation.json").exists():
        vdmkit("run", str(recipe), "--out", str(run))
    bound = measure(run, "--estimator", "bound", "--precision", "0.02")
    has_flow = 'name = "ode"' in recipe.read_text()
    flow = measure(run, "--set", "likelihood.images=64") if has_flow else None
    test_set = f"{bound['half_width_test_set'] or float('nan'):.4f}"
    return f"{name:16} {_number(bound):>18} {test_set:>9}   {_number(flow):>18}   {bound['estimator']}"


def _number(found: dict | None) -> str:
    return f"{found['bpd']:.4f} +/- {(found['bpd_high'] - found['bpd_low']) / 2:.4f}" if found else ""


def main() -> None:
    names = sorted({path.stem for path in RECIPES.glob("*.toml")} - SAME_MODEL)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--out", type=Path, default=Path("runs") / "literature")
    given = parser.parse_args()
    if unknown := set(given.names) - set(names):
        parser.error(f"no recipe {', '.join(sorted(unknown))} in {RECIPES}")
    print(HEADER)
    for name in given.names or names:
        print(row(name, given.out), flush=True)


if __name__ == "__main__":
    main()
