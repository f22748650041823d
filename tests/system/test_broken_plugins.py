# SPDX-License-Identifier: Apache-2.0
"""Installed plugin packages: broken ones beside one that is not, and one with the name of a run's own plugin file."""

import json
from pathlib import Path

import pytest

SCHEDULE = """
from dataclasses import KW_ONLY
import equinox as eqx
import vdmkit
from vdmkit.schedules import AbstractSchedule

@vdmkit.register("schedule", {name})
class Straight(AbstractSchedule):
    '''A straight line.'''

    _: KW_ONLY
    gamma_min: float = eqx.field(static=True, default=-8.0)
    gamma_max: float = eqx.field(static=True, default=5.0)

    def __call__(self, t):
        return self.gamma_min + (self.gamma_max - self.gamma_min) * t
"""
FAILS = """
@vdmkit.register("path", "fails")
def fails():
    '''A path that cannot be built.'''
    return None.nothing
"""
HALF = SCHEDULE.format(name="'half'")
BROKEN = {
    "absent": HALF + "import no_such_module",
    "annotation": HALF.replace("max: float", "max: 'Missing'"),
    "clash": HALF + SCHEDULE.format(name="'straight'"),
    "number": HALF + SCHEDULE.format(name="3"),
    "quits": HALF + "raise SystemExit(0)",
    "signature": HALF.replace("    _: KW_ONLY\n", ""),
    "syntax": HALF + "klass Broken",
    "taken": HALF + SCHEDULE.format(name="'fixed_linear'"),
}

DIGITS = str(Path(__file__).parents[2] / "recipes" / "digits.toml")


def install(folder: Path, name: str, text: str) -> None:
    """As pip leaves a package of one module."""
    module = f"plug_{name.replace('-', '_')}"
    (folder / f"{module}.py").write_text(text)
    about = folder / f"vdmkit_{name.replace('-', '_')}-1.0.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vdmkit-{name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[vdmkit.plugins]\n{name} = {module}\n")


@pytest.fixture
def packages(tmp_path) -> Path:
    """A folder where all of them are installed; of two that clash the first in the alphabet is the good one."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    install(folder, "a-good", SCHEDULE.format(name="'straight'") + FAILS)
    for name, text in BROKEN.items():
        install(folder, name, text)
    return folder


def named(err: str) -> list[str]:
    """The packages that warnings name, one a line."""
    return [line.split("'")[1] for line in err.splitlines() if line.startswith("warning: plugin package '")]


@pytest.mark.slow
def test_everything_else_works(processes, packages, tiny):
    """A broken package would break commands that do not need it, or the packages beside it."""
    all_broken = [f"vdmkit-{name}" for name in BROKEN]
    commands = (("list", "schedule"), ("check", DIGITS), ("check", DIGITS, "--set", "model.path.name=fails"))
    listed, checked, failed = processes.together(*commands, plugins=(), packages=packages)
    assert (listed.code, named(listed.err), len(listed.err.splitlines())) == (0, all_broken, len(BROKEN)), listed.err
    assert "straight  [vdmkit-a-good]" in listed.out
    assert "half" not in listed.out
    assert (checked.code, named(checked.err), len(checked.err.splitlines())) == (0, all_broken, len(BROKEN))
    assert (failed.code, failed.out, named(failed.err)) == (1, "", all_broken)
    last = failed.err.splitlines()[-1]
    assert last.startswith("path 'fails' of vdmkit-a-good cannot be built: AttributeError: 'NoneType' object")
    assert f"({packages / 'plug_a_good.py'}:21)" in last
    straight = ("--set", "model.schedule.name=straight")
    trained = processes("run", tiny, "--out", "run", *straight, packages=packages)
    assert (trained.code, named(trained.err)) == (0, all_broken), trained.err
    install(packages, "a-good", "1 / 0")  # now the other one has the name
    evaluated = processes("evaluate", "--ckpt", "run", plugins=(), packages=packages)
    assert (evaluated.code, evaluated.out) == (1, ""), evaluated.err
    assert "made with other packages of its components" in evaluated.err
    install(packages, "clash", "1 / 0")
    evaluated = processes("evaluate", "--ckpt", "run", plugins=(), packages=packages)
    assert (evaluated.code, evaluated.out) == (2, "")
    *_, unknown, reason = evaluated.err.splitlines()
    assert "unknown schedule 'straight'" in unknown
    assert "'vdmkit-a-good'" in reason


@pytest.mark.slow
def test_a_package_that_takes_the_name_of_a_run_s_file(processes, tiny):
    """A run made with a plugin file would be unreadable, or read by other code, once a package has its name."""
    file = processes.cwd / "straight.py"
    file.write_text(SCHEDULE.format(name="'straight'"))
    plugins = ("--plugin", str(Path(__file__).parent / "tiny.py"), "--plugin", "straight.py")
    run = ("run", tiny, "--out", "run", "--set", "model.schedule={name='straight', gamma_max=4.0}")
    assert processes(*run, plugins=plugins).code == 0
    own = json.loads((processes.cwd / "run" / "evaluation.json").read_text())
    del own["crc32"]
    folder = processes.cwd / "site-packages"
    folder.mkdir()
    install(folder, "straight", SCHEDULE.format(name="'straight'").replace("* t", "* t**2"))
    evaluate, drawn = ("evaluate", "--ckpt", "run", "--json"), ("sample", "--ckpt", "run", "-n", "1", "-o", "one.png")
    read, sampled = processes.together(evaluate, drawn, plugins=(), packages=folder)
    assert (read.code, json.loads(read.out)) == (0, own), read.err
    assert sampled.code == 0, sampled.err
    again = processes(*run, "--set", "training.steps=14", plugins=plugins, packages=folder)
    assert (again.code, "continuing run from step 12" in again.err) == (0, True), again.err

    new = processes("run", tiny, "--out", "new", plugins=plugins, packages=folder)
    assert (new.code, new.out) == (2, "")
    assert "straight.py: the name is taken by vdmkit-straight, which is installed. Omit --plugin" in new.err
    file.write_text(file.read_text() + "\n# edited\n")
    edited = processes(*evaluate, plugins=("--plugin", "straight.py"), packages=folder)
    assert (edited.code, edited.out) == (2, "")
    assert f"--plugin {file} does not load: schedule 'straight' of " in edited.err
    assert f"the name is taken by {processes.cwd.resolve() / 'run' / 'plugins' / 'straight.py'}. " in edited.err
