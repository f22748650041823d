# SPDX-License-Identifier: Apache-2.0
"""Every file of a run folder in turn is deleted, truncated or has one byte flipped.

The damage must be reported with the name of the file, or have no effect on the results.
"""

import random
import shutil
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from vdmkit.errors import VdmkitError
from vdmkit.report import read_metrics
from vdmkit.report.page import page
from vdmkit.report.run_contents import read_contents

GRID, KERNEL = "schedule/gaussian_dynamic_2.toml", "schedule/optimal_variance.toml"

Damage = Callable[[Path, random.Random], None]


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def truncate(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))] if data else data)


def delete(path: Path, rng: random.Random) -> None:
    path.unlink()


DAMAGES: dict[str, Damage] = {"deleted": delete, "truncated": truncate, "flipped": flip}


def files_of(run: Path) -> list[str]:
    return sorted(
        (str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()), key=lambda name: name.count("/")
    )


def names(message: str, file: str) -> bool:
    """Returns whether a message names the file, by its path or as a file of a checkpoint."""
    folder, *inside = Path(file).parts
    if folder != "checkpoints":
        return f"run/{file}" in message or f"no {file}" in message
    step, *rest = inside
    reasons = ("/".join(rest), "was not finished", "checksums.json is damaged", "is not in checksums.json")
    return f"checkpoints/{step}" in message and any(reason in message for reason in reasons)


def what_is_wrong(program, tiny: str, whole: Path, file: str, damage: Damage, seed: int) -> str:
    """Damages a file in a copy of the run, then reads and continues it. Returns the failure, or ''."""
    run = Path(shutil.copytree(whole, program.cwd / "run"))
    try:
        damage(run / file, random.Random(seed))
        if is_on_page(file) and (words := wrong_on_page(run, whole, file)):
            return words
        for name, command in commands_on(file).items():
            read = program(*command, "-o", name) if name.endswith(".npy") else program(*command)
            if read.code and not names(read.err, file):
                return f"{command[0]} does not name it: {read.err}"
            if not read.code and result_of(program, name, read.out) != (whole.parent / name).read_bytes():
                return f"{command[0]} gives another result: {read.out}"
        again = program("run", tiny, "--out", "run")
        if again.code and not names(again.err, file):
            return f"run does not name it: {again.err}"
        if not again.code and (run / "evaluation.json").read_bytes() != (whole / "evaluation.json").read_bytes():
            return "another number after it was run again"
    finally:
        shutil.rmtree(run)
    return ""


def commands_on(file: str) -> dict[str, tuple[str, ...]]:
    """Returns the commands that read a run or this file of it, by the name of what they write."""
    run, given = ("--ckpt", "run"), {GRID: "--grid", KERNEL: "--kernel"}
    found: dict[str, tuple[str, ...]] = {"evaluated.txt": ("evaluate", *run)}
    if not file.startswith("checkpoints"):  # which are read alike
        found["a.npy"] = ("sample", *run, "-n", "2")
    if file in given:
        found[f"{Path(file).stem}.npy"] = ("sample", *run, "-n", "2", "--steps", "2", given[file], f"run/{file}")
    return found


def result_of(program, name: str, out: str) -> bytes:
    return (program.cwd / name).read_bytes() if name.endswith(".npy") else out.encode()


def wrong_on_page(run: Path, whole: Path, file: str) -> str:
    """Returns what the report of the damaged run shows wrongly without a warning, or ''."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found, metrics = page_of(run).replace(str(whole), ""), read_metrics(run)  # which is in the manifest
        except VdmkitError as error:
            return "" if names(str(error), file) else f"the page does not name it: {error}"
    if not part_of(metrics, read_metrics(whole)):
        return "other metrics"
    is_named = any(names(str(one.message), file) for one in said) or f"Not shown: /{file}: " in found
    if (file.endswith(".json") or file == "samples.png") and not (run / file).exists():
        return ""  # a result that was not made, or not yet
    return "" if is_named or found == page_of_whole(whole) else f"another page for {file}"


def is_on_page(file: str) -> bool:
    """Returns whether the report may read a file; of checkpoints it reads the JSON only."""
    return not file.startswith("checkpoints") or file.endswith(".json")


def page_of(run: Path) -> str:
    """Returns the part of the report that comes from the files of the folder, not from the loaded run."""
    return page([read_contents(run)]).html.replace(str(run), "")


page_of_whole = cache(page_of)


def part_of(found: dict, expected: dict) -> bool:
    """Returns whether every value of these metrics is one of the expected values at its step."""
    known = {(name, step, value) for name, rows in expected.items() for step, value in zip(*rows, strict=True)}
    return {(name, step, value) for name, rows in found.items() for step, value in zip(*rows, strict=True)} <= known


@pytest.fixture(scope="module")
def read_whole(whole, program_in) -> Path:
    """The undisturbed run, and next to it what commands print and draw from it."""
    leave_results(program_in(whole.parent), "")
    return whole


def leave_results(program, file: str) -> None:
    for name, command in commands_on(file).items():
        done = program(*command, "-o", name) if name.endswith(".npy") else program(*command)
        assert done.code == 0, done.err
        (program.cwd / name).write_bytes(result_of(program, name, done.out))


def wrong_of(program, tiny: str, whole: Path, files: list[str], seed: int, flips: int) -> dict:
    """Damages these files one after the other. Returns the failures by file, damage and seed."""
    cases = [(file, name, seed) for file in files for name in ("deleted", "truncated")]
    cases += [(file, "flipped", seed + number) for file in files for number in range(flips)]
    found = {}
    for case in cases:
        if words := what_is_wrong(program, tiny, whole, case[0], DAMAGES[case[1]], case[2]):
            found[case] = words
            print(case, words, flush=True)
    print(f"{len(cases)} cases of {len(files)} files, seed {seed}")
    return found


@pytest.mark.costly
def test_a_few_files(program_in, tiny, read_whole, chosen, tmp_path):
    """A damaged recipe, manifest or log never changes a reported number, and its error names the file."""
    files = ["manifest.json", "resolved.toml", "metrics.jsonl"]
    assert not wrong_of(program_in(tmp_path), tiny, read_whole, files, chosen.seed, flips=2)


@pytest.mark.slow
def test_every_file(program_in, tiny, read_whole, chosen, tmp_path):
    """No damaged file of a run folder changes a reported number, and every error names the file."""
    program = program_in(read_whole.parent)
    assert program("likelihood", "--ckpt", "run", "--set", "likelihood.images=6").code == 0
    assert program("study", "--ckpt", "run", "--steps", "2", "--nodes", "11", "--images", "6").code == 0
    assert program("likelihood", "--ckpt", "run", "--audit", "--set", "likelihood.images=6").code == 0
    for file in (GRID, KERNEL):
        leave_results(program, file)
    files = files_of(read_whole)
    assert not wrong_of(program_in(tmp_path), tiny, read_whole, files, chosen.seed, flips=chosen.cases(3))
