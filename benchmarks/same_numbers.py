# SPDX-License-Identifier: Apache-2.0
"""Equality of numbers across a refactoring: `uv run python benchmarks/same_numbers.py OLD_COMMIT [RECIPE ...]`.

Unpacks OLD_COMMIT into a temporary folder, trains the same short recipes with it and with the working tree, each in its
own environment, and compares bit for bit:

    parameters   SHA-256 of the arrays after training, raw and averaged
    evaluation   the floats of evaluation.json
    likelihood   the floats that each estimator reports, and every image's estimates
    samples      SHA-256 of the drawn levels
    codec        SHA-256 of the restored images, and the payload of the compressed file

Floats are compared and printed in hexadecimal. A command that refuses a model has the row "refused", which is equal if
both sides refuse. The exit code is 1 if anything differs. Only commands, options and result keys that keep their names
are used, and those of `SPELLINGS`. Numbers of two machines differ, so both sides run on one, in parallel. Reasons of
refusals go to standard error.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ("digits", "digits_eps", "digits_learned", "oracle_mixture", "digits/edm", "digits/ddpm")
SETTINGS = {
    "training.steps": 30,
    "training.checkpoint_every": 30,
    "training.evaluate_every": 0,
    "evaluation.draws": 2,
    "sampling.steps": 4,
    "sampling.count": 2,
}
# Options of `vdmkit likelihood`. The precision is so wide that every estimator makes its smallest number of draws.
ESTIMATORS = {
    "bound": ("--estimator", "bound", "--steps", "0"),
    "bound, T = 4": ("--estimator", "bound", "--steps", "4"),
    "importance, T = 4": ("--estimator", "importance", "--steps", "4"),
    "ode": ("--estimator", "ode", "--solver-steps", "4"),
}
FLOATS = ("bpd", "bpd_low", "bpd_high", "half_width_monte_carlo", "half_width_test_set", "exact", "terms")

# Options whose name may change: all names that either side has, tried in order. A refactoring adds its own.
SPELLINGS = {"--allow-untrusted": ("--allow-untrusted", "--untrusted")}

# Arrays are sorted by their contents: neither the names of fields nor their order count.
PARAMETERS = """
import hashlib, json, sys
import equinox as eqx, jax, numpy as np, vdmkit

def digest(model):
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))]
    rows = sorted(f"{a.shape} {a.dtype} {hashlib.sha256(a.tobytes()).hexdigest()}" for a in arrays)
    return f"{len(rows)} arrays, {hashlib.sha256(repr(rows).encode()).hexdigest()}"

print(json.dumps({kind: digest(vdmkit.load(sys.argv[1], weights=kind).model) for kind in ("raw", "ema")}))
"""
# Test images, the same on both sides; the codec gets them as an array.
IMAGES = """
import sys
import numpy as np, vdmkit

np.save(sys.argv[2], np.asarray(vdmkit.load(sys.argv[1]).data("test").pixels[:8], np.uint8))
"""
# The payload of a one-chunk file. Fails with a container of a different layout; then the bytes are searched for.
PAYLOAD = """
import sys
from vdmkit_codec.container import open_reader

with open_reader(sys.argv[1]) as reader:
    print(reader.chunk(0).payload.hex())
"""


class Refused(Exception):
    """A command ended with an error that it explains."""


@dataclass(frozen=True)
class Side:
    """A source tree, and the folder of its runs and caches."""

    tree: Path
    work: Path

    def sync(self) -> None:
        self.work.mkdir()
        command = ["uv", "sync", "--quiet", "--no-compile-bytecode", "--project", str(self.tree)]
        subprocess.run(command, check=True, env=_environment())

    def python(self, *arguments: str) -> str:
        """Returns what Python printed in this tree's environment. The working folder holds no package of either."""
        caches = {"JAX_COMPILATION_CACHE_DIR": str(self.work / "jax"), "VDMKIT_CACHE": str(self.work / "cache")}
        command = [str(self.tree / ".venv" / "bin" / "python"), *arguments]
        environment = _environment() | caches | {"JAX_PLATFORMS": "cpu"}
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.work, env=environment)
        if done.returncode and ("Traceback" in done.stderr or done.returncode < 0):
            raise SystemExit(f"{self.tree}: {' '.join(arguments)}\n{done.stderr}")
        if done.returncode:
            raise Refused(done.stderr)
        return done.stdout

    def vdmkit(self, *arguments: str) -> str:
        """Returns what a command printed, after trying all spellings of its options."""
        for renamed, names in SPELLINGS.items():
            for name in names[:-1] if renamed in arguments else ():
                try:
                    return self.python("-m", "vdmkit", *(name if a == renamed else a for a in arguments))
                except Refused as error:
                    if "No such option" not in str(error):
                        raise
            arguments = tuple(names[-1] if a == renamed else a for a in arguments)
        try:
            return self.python("-m", "vdmkit", *arguments)
        except Refused as error:
            if "Usage:" in str(error):  # a renamed option is no refusal: both sides would agree on nothing
                raise SystemExit(f"{self.tree}: vdmkit {' '.join(arguments)}\n{error}") from None
            print(f"{self.work.name}: vdmkit {arguments[0]}: {str(error).strip()[-300:]}", file=sys.stderr, flush=True)
            raise

    def measure(self, recipe: str) -> dict[str, str]:
        """Returns the numbers of a recipe by quantity, as text that is equal only if all bits are."""
        run = self.work / recipe.replace("/", "-")
        settings = [f"--set={key}={value}" for key, value in SETTINGS.items()]
        try:
            self.vdmkit("run", recipe, "--out", str(run), *settings)
        except Refused as error:
            raise SystemExit(f"{self.tree}: vdmkit run {recipe}\n{error}") from None
        found = {f"parameters, {k}": v for k, v in json.loads(self.python("-c", PARAMETERS, str(run))).items()}
        found |= _floats("evaluation", json.loads((run / "evaluation.json").read_text()))
        for name, options in ESTIMATORS.items():
            found |= self._likelihood(run, name, options)
        return found | self._samples(run) | self._codec(run)

    def _likelihood(self, run: Path, name: str, options: Sequence[str]) -> dict[str, str]:
        before = set(run.glob("likelihood/*.npz"))
        command = ("likelihood", "--ckpt", str(run), "--precision", "10", "--json", "--allow-untrusted", *options)
        try:
            found = _floats(name, json.loads(self.vdmkit(*command)))
        except Refused:
            return {name: "refused"}
        for file in set(run.glob("likelihood/*.npz")) - before:
            with np.load(file) as arrays:  # names of arrays may change, and are not compared
                digests = sorted(_sha256(arrays[key]) for key in arrays.files if arrays[key].dtype.kind == "f")
            found[f"{name}: images"] = hashlib.sha256(repr(digests).encode()).hexdigest()
        return found

    def _samples(self, run: Path) -> dict[str, str]:
        file = run.with_name(f"{run.name}-samples.npy")
        try:
            self.vdmkit("sample", "--ckpt", str(run), "-n", "4", "--steps", "4", "--seed", "1", "-o", str(file))
        except Refused:
            return {"samples": "refused"}
        return {"samples": _sha256(np.load(file))}

    def _codec(self, run: Path) -> dict[str, str]:
        images, coded, restored = (run.with_name(run.name + end) for end in ("-images.npy", ".vdmz", "-restored.npy"))
        self.python("-c", IMAGES, str(run), str(images))
        try:
            self.vdmkit("compress", str(images), "--ckpt", str(run), "--steps", "8", "-o", str(coded))
            self.vdmkit("decompress", str(coded), "--ckpt", str(run), "-o", str(restored))
        except Refused:
            return {"codec": "refused"}
        found = {"codec: images": _sha256(np.load(restored)), "codec: file": coded.read_bytes().hex()}
        try:
            return found | {"codec: payload": self.python("-c", PAYLOAD, str(coded)).strip()}
        except (Refused, SystemExit):
            return found


def _environment() -> dict[str, str]:
    """Returns the environment without that of `uv run`, which would lead both sides to one tree."""
    return {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(f"{array.shape} {array.dtype}".encode() + array.tobytes()).hexdigest()


def _floats(name: str, report: dict[str, Any]) -> dict[str, str]:
    """Returns the floats of a report in hexadecimal."""
    values = {key: report[key] for key in FLOATS if key in report}
    values |= {f"terms.{key}": value for key, value in values.pop("terms", {}).items()}
    return {f"{name}: {key}": "null" if x is None else float(x).hex() for key, x in values.items()}


def _same_payload(old: dict[str, str], new: dict[str, str]) -> None:
    """Leaves "codec: payload" for comparison, or no row of it if the containers differ in layout."""
    files = [side.pop("codec: file", "") for side in (old, new)]
    payloads = [side.pop("codec: payload", "") for side in (old, new)]
    if payloads[0] and not payloads[1] and payloads[0] in files[1]:
        payloads[1] = payloads[0]
    if all(payloads):
        for side, payload in zip((old, new), payloads, strict=True):
            side["codec: payload"] = hashlib.sha256(payload.encode()).hexdigest()


def compare(recipe: str, old: dict[str, str], new: dict[str, str]) -> bool:
    """Prints the rows of a recipe, and returns whether all are equal."""
    _same_payload(old, new)
    for quantity in old | new:
        values = [side.get(quantity, "missing") for side in (old, new)]
        short = [value if len(value) <= 24 else f"{value[:10]}..{value[-12:]}" for value in values]
        word = "equal" if values[0] == values[1] else "DIFFERENT"
        print(f"{recipe:16}{quantity:44}{short[0]:26}{short[1]:26}{word}", flush=True)
    return old == new


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare numbers of a commit and of the working tree, bit for bit.")
    parser.add_argument("old", metavar="OLD_COMMIT")
    parser.add_argument("recipes", metavar="RECIPE", nargs="*", default=RECIPES)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        old, new = Side(Path(folder) / "tree", Path(folder) / "old"), Side(ROOT, Path(folder) / "new")
        old.tree.mkdir()
        archive = subprocess.run(["git", "-C", str(ROOT), "archive", given.old], stdout=subprocess.PIPE, check=True)
        subprocess.run(["tar", "-x", "-C", str(old.tree)], input=archive.stdout, check=True)
        for side in (old, new):
            side.sync()
        print(f"{'recipe':16}{'quantity':44}{'old':26}{'new':26}")
        same = True
        with ThreadPoolExecutor(2) as pool:
            for recipe in given.recipes:
                same &= compare(recipe, *pool.map(lambda side, recipe=recipe: side.measure(recipe), (old, new)))
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
