# SPDX-License-Identifier: Apache-2.0
"""Commands added by installed packages: listing, calling and refusing them."""

import re
import sys
import warnings
from pathlib import Path

import pytest

import vdmkit

GREET = '''"""A command."""
from typing import Annotated
import typer
from vdmkit.errors import DataError

def greet(name: str, loud: Annotated[bool, typer.Option("--loud", help="In capitals.")] = False) -> None:
    """Greet somebody, who has a name."""
    if name == "nobody":
        raise DataError("nobody: not here. Greet somebody else.")
    if name == "stop":
        raise KeyboardInterrupt
    typer.echo(name.upper() if loud else name)
'''


@pytest.fixture
def install(tmp_path, monkeypatch):
    """`install("vdmkit-x", "x = plug_x:f", {"plug_x.py": text})` installs a package with a command, as pip would."""
    folder = tmp_path / "site-packages"
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def install(name: str, commands: str, files: dict[str, str], group: str = "vdmkit.commands") -> None:
        about = folder / f"{name.replace('-', '_')}-1.0.dist-info"
        about.mkdir(parents=True)
        for file, text in files.items():
            (folder / file).write_text(text)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[{group}]\n{commands}\n")

    yield install
    for module in sys.modules.keys() - before:
        if module.startswith("plug_"):
            del sys.modules[module]


@pytest.fixture
def say(run):
    """`say("greet", "you")` runs the program with warnings printed as a user sees them."""

    def say(*arguments: str):
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            return run(*arguments)

    return say


def test_a_package_brings_a_command(install, say):
    """A package can add a command, with the help, errors and exit codes of vdmkit's own."""
    install("vdmkit-greet", "greet = plug_greet:greet", {"plug_greet.py": GREET})
    listed = say("--help")
    assert "  greet       Greet somebody, who has a name." in listed.out.splitlines()
    assert listed.err == ""
    assert say("greet", "you", "--loud").out == "YOU\n"
    assert "In capitals." in say("greet", "--help").out
    assert (say("greet").code, say("greet", "nobody").code, say("greet", "stop").code) == (2, 1, 3)
    assert say("greet", "nobody").err == "nobody: not here. Greet somebody else.\n"
    assert say("greet", "stop").err == "Stopped.\n"


def test_a_package_is_imported_only_for_its_own_command(install, say):
    """A plugin package is imported only when its own command is called."""
    install("vdmkit-greet", "greet = plug_greet:greet", {"plug_greet.py": GREET})
    assert say("list", "recipe").code == 0
    assert "plug_greet" not in sys.modules


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module' ("),
        ("raise SystemExit(0)", "SystemExit: 0 ("),
        ("def greets(): ...", "AttributeError: module 'plug_greet' has no attribute 'greet'"),
        ("greet = 1", "expected a function, found int."),
        ("def greet(what: int | str): ...", "support Union types"),
    ],
)
def test_a_broken_package_costs_one_line(install, say, text, found):
    """A package that does not load gives one warning, and `vdmkit --help` still works."""
    install("vdmkit-greet", "greet = plug_greet:greet", {"plug_greet.py": text})
    listed = say("--help")
    assert listed.code == 0
    assert "greet" not in listed.out
    (line,) = listed.err.splitlines()
    assert line.startswith("warning: plugin package 'vdmkit-greet' (plug_greet:greet) does not load: ")
    assert found in line
    assert line.endswith(" Repair it, or uninstall it.")
    called = say("greet")
    assert called.code == 2
    assert called.err.startswith("warning: plugin package 'vdmkit-greet'")
    assert "No such command 'greet'" in called.err


def test_a_name_belongs_to_vdmkit(install, say):
    """A package cannot replace a command of vdmkit, and a warning says so."""
    install("vdmkit-greet", "list = plug_greet:greet", {"plug_greet.py": GREET})
    warned = (
        "warning: plugin package 'vdmkit-greet' (plug_greet:greet): command 'list': the name is taken by vdmkit. "
        "Rename it there, or uninstall it.\n"
    )
    assert say("--help").err == warned
    listed = say("list", "recipe")
    assert (listed.code, listed.err) == (0, warned)
    assert listed.out.startswith("recipe: ")
    assert "plug_greet" not in sys.modules


def test_of_two_packages_the_first_has_the_name(install, say):
    """If two packages add the same command, the first in alphabetical order wins."""
    for name in ("z", "a"):
        install(f"vdmkit-{name}", f"greet = plug_{name}:greet", {f"plug_{name}.py": f"def greet(): print({name!r})"})
    called = say("greet")
    assert called.out == "a\n"
    assert "'vdmkit-z' (plug_z:greet): command 'greet': the name is taken by vdmkit-a." in called.err


def test_a_module_with_components_registers_them_once(install, say):
    """A module that provides both a command and components registers them once."""
    component = "\nimport vdmkit\n@vdmkit.register('optimizer', 'still')\ndef still():\n    '''Does nothing.'''\n"
    install("vdmkit-greet", "greet = plug_greet:greet", {"plug_greet.py": GREET + component})
    install("vdmkit-still", "still = plug_greet", {}, group="vdmkit.plugins")
    assert say("greet", "you").out == "you\n"
    listed = say("list", "optimizer")
    assert listed.err == ""


def test_help_imports_no_jax_for_a_package(install, run_process, tmp_path, monkeypatch):
    """`vdmkit --help` does not import JAX for a package's command."""
    install(
        "vdmkit-greet",
        "greet = plug_greet:greet",
        {"plug_greet.py": GREET + "import sys\nassert 'jax' not in sys.modules\n"},
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site-packages"))
    listed = run_process("--help")
    assert "Greet somebody" in listed.out
    assert listed.err == ""


@pytest.mark.parametrize("name", ["compress", "decompress", "inspect"])
def test_the_codec_is_said_to_be_a_plugin(say, monkeypatch, name):
    """Without the plugin its commands would be unknown, or end in a traceback; or other commands would not work."""
    monkeypatch.setattr(sys.modules["vdmkit.cli.app"], "plugin_commands", lambda own: {})
    missing = say(name, "a.npy", "-o", "a.vdmz")
    assert (missing.code, missing.out) == (2, "")
    (line,) = missing.err.splitlines()
    assert line.startswith(f"vdmkit {name}: is a command of the plugin vdmkit-codec, which is not installed. ")
    assert "pip install -e plugins/vdmkit-codec" in line
    assert name not in say("--help").out
    assert say("list", "recipe").code == 0


def test_vdmkit_does_not_import_the_codec():
    """vdmkit never imports the codec plugin."""
    sources = Path(vdmkit.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if re.search(r"(import|from) vdmkit_codec", path.read_text())] == []
