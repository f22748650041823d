# SPDX-License-Identifier: Apache-2.0
"""`vdmkit new-plugin`: what it writes works as it is."""

import os
import subprocess
import sys


def test_a_new_plugin_passes_its_tests_and_trains(program):
    """An author would start from a package that does not load, does not conform, or that no recipe can name."""
    made = program("new-plugin", "vdmkit-bent", plugins=())
    assert made.code == 0, made.err
    folder = program.cwd / "vdmkit-bent"
    paths = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert paths == {
        "pyproject.toml",
        "README.md",
        "digits.toml",
        "src/vdmkit_bent/__init__.py",
        "tests/test_bent.py",
    }
    environment = os.environ | {"PYTHONPATH": str(folder / "src")}
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(tests, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    module = str(folder / "src" / "vdmkit_bent" / "__init__.py")
    checked = program("check", "vdmkit-bent/digits.toml", "--plugin", module, plugins=())
    assert checked.code == 0, checked.err
    assert "bent gamma_min=-8.0" in checked.out


def test_names_and_folders_that_will_not_do(program):
    """A package would be written over another, or under a name that Python or a recipe knows as something else."""
    for name, message in (
        ("Bent!", "expected small letters"),
        ("there", "there: is there already"),
        ("vdmkit", "vdmkit is the name of a module that is there already"),
        ("jax", "jax is the name of a module that is there already"),
        ("class", "class is a word of Python"),
        ("vdmkit-cosine", "the schedule 'cosine' is vdmkit's"),
    ):
        (program.cwd / "there").mkdir(exist_ok=True)
        refused = program("new-plugin", name, plugins=())
        assert (refused.code, refused.out) == (2, "")
        assert message in refused.err
        assert [path.name for path in program.cwd.iterdir()] == ["there"]
