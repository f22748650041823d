# SPDX-License-Identifier: Apache-2.0
"""Components from outside vdmkit: how they are found, and what happens when they are wrong."""

from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from vdmkit import plugins
from vdmkit.errors import RegistryError
from vdmkit.plugins import load_plugins, plugin_sources
from vdmkit.registry import registry

SCHEDULE = """
from dataclasses import KW_ONLY
import equinox as eqx
import vdmkit
from vdmkit.noise import AbstractSchedule

@vdmkit.register("schedule", "{name}")
class Straight(AbstractSchedule):
    '''A straight line.'''

    _: KW_ONLY
    gamma_min: float = eqx.field(static=True, default=-13.3)
    gamma_max: float = eqx.field(static=True, default=5.0)

    def __call__(self, t):
        return self.gamma_min + (self.gamma_max - self.gamma_min) * t
"""


@pytest.fixture(autouse=True)
def _keep_registry():
    """What a test registers is gone after it."""
    load_plugins()
    schedules = registry("schedule").components
    before = dict(schedules)
    yield
    schedules.clear()
    schedules.update(before)


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "mine.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_a_file_adds_a_component(write):
    """The one-file plugin of the README would not work, or would lose its keyword-only keys."""
    path = write(SCHEDULE.format(name="straight"))
    load_plugins([path])
    component = registry("schedule").get("straight")
    assert component.origin == str(path)
    assert component.injected == ()
    assert list(component.parameters) == ["gamma_min", "gamma_max"]
    assert component.build({}, gamma_max=2.0)(1.0) == 2.0


def test_a_file_given_twice_is_loaded_once(write):
    """Giving `--plugin` twice would be an error about a name that is taken."""
    path = write(SCHEDULE.format(name="straight"))
    load_plugins([path, path])
    load_plugins([path])


def test_a_taken_name_names_both_owners(write):
    """The user would not know which two packages clash."""
    first = write(SCHEDULE.format(name="straight"), "first.py")
    second = write(SCHEDULE.format(name="straight"), "second.py")
    with pytest.raises(RegistryError) as caught:
        load_plugins([first, second])
    assert f"--plugin {second} does not load: schedule 'straight' of {second}" in str(caught.value)
    assert f"the name is taken by {first}" in str(caught.value)


def test_a_builtin_name_is_taken_by_vdmkit(write):
    """A plugin could replace a component of vdmkit without a word."""
    with pytest.raises(RegistryError, match="the name is taken by vdmkit"):
        load_plugins([write(SCHEDULE.format(name="fixed_linear"))])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("import equinox", "1 / 0\nimport equinox", r"ZeroDivisionError: division by zero \(.*mine.py:3\)"),
        ("import equinox as eqx", "import no_such_module", r"No module named 'no_such_module' \(.*mine.py:3\)"),
        ("class Straight", "klass Straight", r"SyntaxError: invalid syntax \(mine.py, line 8\)\. "),
        ('"schedule"', '"schedul"', 'unknown kind of component.*Did you mean "schedule"'),
        ("def __call__", "def call", "Straight does not define __call__"),
        ("gamma_min: float", "lowest: float", "Straight does not define gamma_min"),
        ("(AbstractSchedule)", "(eqx.Module)", "Straight must subclass AbstractSchedule"),
        ("    _: KW_ONLY\n", "", r"\['gamma_min', 'gamma_max'\] are not supplied to a schedule.*keyword-only"),
        ("    _: KW_ONLY\n", "    _: KW_ONLY\n    name: str = 'x'\n", "Give this parameter another name"),
    ],
)
def test_a_broken_file_says_what_is_wrong(write, old, new, message):
    """A plugin's mistake would be a traceback, or show only when a recipe uses it."""
    text = SCHEDULE.format(name="straight")
    assert old in text
    path = write(text.replace(old, new))
    with pytest.raises(RegistryError, match=message) as caught:
        load_plugins([path])
    assert str(caught.value).startswith(f"--plugin {path} does not load: ")


@pytest.mark.parametrize("name", ["none.py", "mine.txt"])
def test_what_is_no_python_file(write, name):
    """A mistyped path would be a traceback."""
    write("", "mine.txt")
    with pytest.raises(RegistryError, match=f"--plugin .*{name}"):
        load_plugins([write("").parent / name])


def test_a_broken_package_names_its_distribution(monkeypatch):
    """The user would not know which installed package to repair or uninstall."""

    def entry_points(group):
        entry = EntryPoint("x", "no_such_module", group)
        return [SimpleNamespace(dist=SimpleNamespace(name="vdmkit-broken"), value=entry.value, load=entry.load)]

    monkeypatch.setattr(plugins.importlib.metadata, "entry_points", entry_points)
    with pytest.raises(RegistryError, match=r"plugin package 'vdmkit-broken' \(no_such_module\) does not load: Module"):
        load_plugins()


def test_what_was_executed_is_what_is_kept(tmp_path):
    """A run would keep, and be evaluated with, other code than it was trained with; or a stale .pyc would run."""
    path = tmp_path / "edited.py"
    path.write_text("VERSION = 1\n")
    load_plugins([path])
    path.write_text("VERSION = 2\n")
    assert plugin_sources([path]) == {"edited.py": b"VERSION = 1\n"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["edited.py"]


def test_two_files_of_one_name(tmp_path):
    """One of two plugin files would be lost, as a run keeps them by their names."""
    paths = [tmp_path / folder / "same.py" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(f"FOLDER = {path.parent.name!r}\n")
    load_plugins(paths)
    with pytest.raises(RegistryError, match="two files have the same name"):
        plugin_sources(paths)
