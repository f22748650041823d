# SPDX-License-Identifier: Apache-2.0
"""Components from outside vdmkit: finding them, and reporting their errors."""

import sys

import pytest

from vdmkit import plugins as _plugins
from vdmkit.errors import PluginError, PluginWarning, RecipeError, RegistryError
from vdmkit.plugins import allow, load_plugins, plugin_packages, plugin_sources
from vdmkit.recipes import load_recipe
from vdmkit.recipes.build import is_told_labels
from vdmkit.registry import Choice, kinds, registry

SCHEDULE = """
from dataclasses import KW_ONLY
import equinox as eqx
import vdmkit
from vdmkit.schedules import AbstractSchedule

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
def _keep_registry(monkeypatch):
    """Restores registries and imported modules after each test."""
    load_plugins()
    monkeypatch.setattr(_plugins, "_loads", dict(_plugins._loads))
    before, modules = {kind: dict(registry(kind).components) for kind in kinds()}, set(sys.modules)
    yield
    for kind, components in before.items():
        registry(kind).components.clear()
        registry(kind).components.update(components)
    for module in sys.modules.keys() - modules:
        if module.startswith(("plug_", "vdmkit_plugin_")):
            del sys.modules[module]


@pytest.fixture
def install(tmp_path, monkeypatch):
    """`install("vdmkit-x", {"plug_x.py": text})` installs a package with an entry point for every module."""
    folder = tmp_path / "site-packages"
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def install(name: str, files: dict[str, str]) -> None:
        for file, text in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
        entries = sorted({file.partition("/")[0].removesuffix(".py") for file in files})
        about = folder / f"{name.replace('-', '_')}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(
            "[vdmkit.plugins]\n" + "".join(f"{entry} = {entry}\n" for entry in entries)
        )

    return install


def everything() -> dict[str, list[str]]:
    """Returns the names of all components."""
    return {kind: sorted(registry(kind).components) for kind in kinds()}


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "mine.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_a_file_adds_a_component(write):
    """A plugin file registers a component with its keyword-only parameters."""
    path = write(SCHEDULE.format(name="straight"))
    load_plugins([path])
    component = registry("schedule").get("straight")
    assert component.origin == str(path)
    assert component.injected == ()
    assert list(component.parameters) == ["gamma_min", "gamma_max"]
    assert component.build({}, gamma_max=2.0)(1.0) == 2.0


RANGES = """
from dataclasses import KW_ONLY
from typing import Annotated
import equinox as eqx
import vdmkit
from annotated_types import Ge
from vdmkit.schedules import AbstractSchedule

class Straight(AbstractSchedule):
    def __call__(self, t):
        return self.gamma_min + (self.gamma_max - self.gamma_min) * t

@vdmkit.register("schedule", "of_fields")
class OfFields(Straight):
    '''States the range of a field that is a key.'''

    _: KW_ONLY
    gamma_min: float = eqx.field(static=True, default=-13.3)
    gamma_max: float = eqx.field(static=True, default=5.0)
    power: Annotated[float, Ge(1)] = eqx.field(static=True, default=1.5)
    free: float = eqx.field(static=True, default=1.0)

@vdmkit.register("schedule", "of_constructor")
class OfConstructor(Straight):
    '''States the range of a field that the constructor sets.'''

    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)
    power: Annotated[float, Ge(1)] | None = eqx.field(static=True)
    free: float = eqx.field(static=True)

    def __init__(self, *, power: float | None = None, free: float = 1.0):
        self.gamma_min, self.gamma_max, self.power, self.free = -13.3, 5.0, power, free
"""


@pytest.mark.parametrize("name", ["of_fields", "of_constructor"])
def test_ranges_of_fields(write, digits_toml, name):
    """Ranges annotated on dataclass fields are enforced; without one, any finite number is accepted."""
    path = write(RANGES)

    def schedule(keys: str):
        return load_recipe(digits_toml, [f"model.schedule={{name='{name}', {keys}}}"], [path]).model.schedule

    assert schedule("power = 2, free = -1e30").params["free"] == -1e30
    with pytest.raises(RecipeError, match=r"model\.schedule\.power: expected greater than or equal to 1, found 0\.5\."):
        schedule("power = 0.5")
    for value in ("inf", "-inf", "nan"):
        with pytest.raises(RecipeError, match=rf"model\.schedule\.free: expected a finite number, found {value}\."):
            schedule(f"free = {value}")


def test_a_file_given_twice_is_loaded_once(write):
    """Giving the same `--plugin` twice loads it once."""
    path = write(SCHEDULE.format(name="straight"))
    load_plugins([path, path])
    load_plugins([path])


def test_a_taken_name_names_both_owners(write):
    """The error for a name that is registered twice gives both owners."""
    first = write(SCHEDULE.format(name="straight"), "first.py")
    second = write(SCHEDULE.format(name="straight"), "second.py")
    with pytest.raises(RegistryError) as caught:
        load_plugins([first, second])
    assert f"--plugin {second} does not load: schedule 'straight' of {second}" in str(caught.value)
    assert f"the name is taken by {first}" in str(caught.value)


def test_a_builtin_name_is_taken_by_vdmkit(write):
    """A plugin file cannot replace a component of vdmkit."""
    with pytest.raises(RegistryError, match="the name is taken by vdmkit"):
        load_plugins([write(SCHEDULE.format(name="fixed_linear"))])


@pytest.fixture
def both(install, write):
    """A package and a file with the same schedule "straight", from -13.3 and from -7. The file also has "own"."""
    install("vdmkit-straight", {"plug_straight.py": SCHEDULE.format(name="straight")})
    text = SCHEDULE.replace("-13.3", "-7.0")
    return write(text.format(name="own") + text.format(name="straight"))


def test_a_file_does_not_replace_a_package(both):
    """A plugin file cannot register a name that an installed package has."""
    before = everything()
    with pytest.raises(RegistryError) as caught:
        load_plugins([both])
    assert str(caught.value) == (
        f"--plugin {both} does not load: schedule 'straight' of {both}: the name is taken by vdmkit-straight, which is "
        "installed. Omit --plugin to use that, uninstall it, or choose another name."
    )
    added = {kind: {*names} - {*before[kind]} for kind, names in everything().items()}
    assert {kind: names for kind, names in added.items() if names} == {"schedule": {"straight"}}


def test_what_a_run_kept_goes_before_a_package(both, digits_toml):
    """A run uses the plugin file it was saved with, even if an installed package has the same name."""
    chosen = ["model.schedule={name='straight', gamma_max=1.0}"]
    allow([both])
    own = load_recipe(digits_toml, chosen, kept=[both]).model.schedule
    installed = load_recipe(digits_toml, chosen).model.schedule
    again = load_recipe(digits_toml, chosen, [both], kept=[both]).model.schedule
    for choice, origin, lowest in (
        (own, str(both), -7.0),
        (again, str(both), -7.0),
        (installed, "vdmkit-straight", -13.3),
    ):
        assert choice.component.origin == origin
        assert choice.build(key=None)(0.0) == lowest
    assert own.component is again.component
    assert not own.component.is_of_package
    assert registry("schedule").get("straight") is installed.component
    with pytest.raises(RegistryError, match="the name is taken by vdmkit-straight"):
        load_recipe(digits_toml, chosen, [both])


def test_what_two_runs_kept(write, digits_toml):
    """Two runs whose plugin files register the same name each use their own file."""
    files = [write(SCHEDULE.format(name="straight").replace("-13.3", low), f"{low}.py") for low in ("-7.0", "-6.0")]
    chosen = ["model.schedule={name='straight', gamma_max=1.0}"]
    allow(files)
    first, second = (load_recipe(digits_toml, chosen, kept=[file]).model.schedule for file in files)
    assert [one.build(key=None)(0.0) for one in (first, second)] == [-7.0, -6.0]


def test_what_a_run_kept_does_not_replace_vdmkit(write, digits_toml):
    """A plugin file in a run folder cannot replace a component of vdmkit."""
    file = write(SCHEDULE.format(name="fixed_linear"))
    allow([file])
    with pytest.raises(RegistryError, match=r"fixed_linear.*: the name is taken by vdmkit"):
        load_recipe(digits_toml, kept=[file])
    assert registry("schedule").get("fixed_linear").origin == "vdmkit"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("import equinox", "1 / 0\nimport equinox", r"ZeroDivisionError: division by zero \(.*mine.py:3\)"),
        ("import equinox as eqx", "import no_such_module", r"No module named 'no_such_module' \(.*mine.py:3\)"),
        ("class Straight", "klass Straight", r"SyntaxError: invalid syntax \(mine.py, line 8\)\. "),
        ('"schedule"', '"schedul"', 'unknown kind of component.*Did you mean "schedule"'),
        ('"schedule"', '"times"', "kind of component 'times' was renamed: 'time_sampler'"),
        ("def __call__", "def call", "Straight does not define __call__"),
        ("gamma_min: float", "lowest: float", "Straight does not define gamma_min"),
        ("(AbstractSchedule)", "(eqx.Module)", "Straight must subclass AbstractSchedule"),
        ("    _: KW_ONLY\n", "", r"\['gamma_min', 'gamma_max'\] are not supplied to a schedule.*keyword-only"),
        ("    _: KW_ONLY\n", "    _: KW_ONLY\n    name: str = 'x'\n", "Give this parameter another name"),
        ("max: float", "max: 'Missing'", "signature cannot be read: NameError: name 'Missing' is not defined"),
        ("import equinox", "raise SystemExit\nimport equinox", r"SystemExit \(.*mine.py:3\)"),
    ],
)
def test_a_broken_file_says_what_is_wrong(write, old, new, message):
    """An error in a plugin file is reported when the file is loaded."""
    text = SCHEDULE.format(name="straight")
    assert old in text
    path = write(text.replace(old, new))
    with pytest.raises(RegistryError, match=message) as caught:
        load_plugins([path])
    assert str(caught.value).startswith(f"--plugin {path} does not load: ")


@pytest.mark.parametrize("name", ["none.py", "mine.txt"])
def test_what_is_no_python_file(write, name):
    """A `--plugin` that is not a Python file is refused by name."""
    write("", "mine.txt")
    with pytest.raises(RegistryError, match=f"--plugin .*{name}"):
        load_plugins([write("").parent / name])


@pytest.mark.parametrize(
    ("end", "found"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module' ("),
        ("klass Broken", "SyntaxError: invalid syntax ("),
        ("raise SystemExit(0)", "SystemExit: 0 ("),
        ("raise ValueError('first\\nsecond')", "ValueError: first ("),
        (SCHEDULE.format(name="fixed_linear"), "the name is taken by vdmkit. "),
        (SCHEDULE.format(name="b").replace("_: KW_ONLY", "pass"), "are not supplied to a schedule"),
        (SCHEDULE.format(name="b").replace("_: KW_ONLY", "x: 'Missing' = 1"), "NameError: name 'Missing'"),
    ],
)
def test_a_broken_package_costs_one_line(install, end, found):
    """A broken package gives one warning, registers nothing and does not affect other packages."""
    before = everything()
    install("vdmkit-broken", {"plug_broken.py": SCHEDULE.format(name="half") + end})
    install("vdmkit-good", {"plug_good.py": SCHEDULE.format(name="straight")})
    with pytest.warns(PluginWarning) as warned:
        load_plugins()
    load_plugins()  # a second warning would be an error here
    (said,) = (str(warning.message) for warning in warned)
    assert said.startswith("plugin package 'vdmkit-broken' (plug_broken) does not load: ")
    assert found in said
    assert said.endswith(" Repair it, or uninstall it.")
    assert everything() == before | {"schedule": sorted([*before["schedule"], "straight"])}
    assert {"vdmkit-broken", "vdmkit-good"} & {*plugin_packages()} == {"vdmkit-good"}


def test_a_package_is_loaded_as_a_whole(install):
    """If one module of a package fails, none of its components is registered."""
    before = everything()
    files = {"plug_a.py": SCHEDULE.format(name="straight"), "plug_b/__init__.py": "from . import one, two"}
    files |= {"plug_b/one.py": SCHEDULE.format(name="one"), "plug_b/two.py": "1 / 0"}
    install("vdmkit-broken", files)
    with pytest.warns(PluginWarning, match=r"'vdmkit-broken' \(plug_b\) does not load: ZeroDivisionError: division by"):
        load_plugins()
    assert everything() == before
    assert not [module for module in sys.modules if module.startswith(("plug_a", "plug_b"))]


def test_what_a_broken_package_imported_loads_by_itself(install):
    """A package that a broken package imports is still loaded."""
    install("vdmkit-a", {"plug_a.py": "import plug_z\n1 / 0"})
    install("vdmkit-z", {"plug_z.py": SCHEDULE.format(name="straight")})
    with pytest.warns(PluginWarning) as warned:
        load_plugins()
    assert len(warned) == 1
    assert registry("schedule").get("straight").origin == "vdmkit-z"


def test_of_two_packages_the_first_name_wins(install):
    """If two packages register the same name, the first in alphabetical order wins."""
    for name in ("z", "a", "k"):
        install(f"vdmkit-{name}", {f"plug_{name}.py": SCHEDULE.format(name="straight")})
    with pytest.warns(PluginWarning) as warned:
        load_plugins()
    assert registry("schedule").get("straight").origin == "vdmkit-a"
    assert [str(warning.message).split("'")[1] for warning in warned] == ["vdmkit-k", "vdmkit-z"]


def test_a_broken_file_registers_nothing(write):
    """A file that fails registers nothing, and can be loaded once it is repaired."""
    path = write(SCHEDULE.format(name="straight") + "1 / 0")
    with pytest.raises(RegistryError, match="ZeroDivisionError"):
        load_plugins([path])
    assert "straight" not in registry("schedule").components
    load_plugins([write(SCHEDULE.format(name="straight"))])
    assert registry("schedule").get("straight").origin == str(path)


def test_an_unknown_component_may_be_that_of_a_broken_package(install, digits_toml):
    """An error for an unknown component mentions the plugin packages that did not load."""
    install("vdmkit-broken", {"plug_broken.py": "1 / 0"})
    sets = ["model.schedule.name=bent", "model.path.name=bent"]
    with pytest.warns(PluginWarning), pytest.raises(RecipeError) as caught:
        load_recipe(digits_toml, sets)
    lines = str(caught.value).splitlines()
    assert [line.count("'vdmkit-broken'") for line in lines] == [0, 0, 1]
    with pytest.raises(RecipeError) as caught:
        load_recipe(digits_toml, ["training.steps=0"])
    assert "vdmkit-broken" not in str(caught.value)


@pytest.mark.parametrize("failure", ["1 / 0", "None + 1", "self.nothing", "raise SystemExit(0)", "open('none')"])
def test_a_constructor_that_fails_names_its_package(install, failure):
    """An exception in a plugin's constructor is reported with the package, file and line."""
    text = SCHEDULE.format(name="fails").replace(
        "def __call__", f"def __check_init__(self):\n        {failure}\n\n    def __call__"
    )
    install("vdmkit-fails", {"plug_fails.py": text})
    load_plugins()
    with pytest.raises(PluginError, match=r"plug_fails\.py:16\)\. Repair") as caught:
        Choice("schedule", "fails").build(key=None)
    assert str(caught.value).startswith("schedule 'fails' of vdmkit-fails cannot be built: ")


def test_a_constructor_that_refuses_names_its_package(install):
    """A value that a plugin refuses is reported with the name of its package."""
    text = SCHEDULE.format(name="refuses").replace(
        "def __call__", "def __check_init__(self):\n        int('x')\n\n    def __call__"
    )
    install("vdmkit-refuses", {"plug_refuses.py": text})
    load_plugins()
    with pytest.raises(RecipeError, match=r"^schedule 'refuses' of vdmkit-refuses: invalid .*plug_refuses.py:16\)$"):
        Choice("schedule", "refuses").build(key=None)


def test_a_function_that_gives_something_else_names_its_package(install):
    """A plugin that builds an object of the wrong type is named when it does."""
    text = "import vdmkit\n\n@vdmkit.register('path', 'other')\ndef other():\n    return 'no path'\n"
    install("vdmkit-other", {"plug_other.py": text})
    load_plugins()
    with pytest.raises(
        PluginError, match=r"^path 'other' of vdmkit-other gives a str, which is not of type AbstractPath\. "
    ):
        Choice("path", "other").build()


def test_a_failure_of_vdmkit_stays_one(monkeypatch):
    """An exception in a component of vdmkit is not reported as a plugin's."""
    component = registry("schedule").get("fixed_linear")
    monkeypatch.setattr(component.target, "__check_init__", lambda _: 1 / 0, raising=False)
    with pytest.raises(ZeroDivisionError):
        Choice("schedule", "fixed_linear").build(key=None)


def test_a_type_that_nobody_knows(write, digits_toml):
    """A parameter whose type cannot be resolved gives an error about the recipe key."""
    text = SCHEDULE.format(name="straight").replace("max: float", "max: list['Missing']")
    with pytest.raises(RecipeError, match=r"model\.schedule\.gamma_max: a recipe cannot give a value of type list"):
        load_recipe(digits_toml, ["model.schedule={name='straight', gamma_max=[5]}"], [write(text)])


def test_annotations_are_read_once(write):
    """Annotations are resolved at registration, so a plugin may delete names afterwards."""
    text = SCHEDULE.format(name="straight").replace("min: float", "min: 'Real'")
    load_plugins([write("Real = float\n" + text + "\ndel Real\n")])
    assert registry("schedule").get("straight").parameters["gamma_min"].annotation is float


def test_what_was_executed_is_what_is_kept(tmp_path):
    """The source kept for a run is the source that was executed, and no .pyc is written."""
    path = tmp_path / "edited.py"
    path.write_text("VERSION = 1\n")
    load_plugins([path])
    path.write_text("VERSION = 2\n")
    assert plugin_sources([path]) == {"edited.py": b"VERSION = 1\n"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["edited.py"]


def test_two_files_of_one_name(tmp_path):
    """Two plugin files with the same name are refused, because a run saves them by name."""
    paths = [tmp_path / folder / "same.py" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(f"FOLDER = {path.parent.name!r}\n")
    load_plugins(paths)
    with pytest.raises(RegistryError, match="two files have the same name"):
        plugin_sources(paths)


WRAPPER = """
from typing import Annotated, ClassVar
import vdmkit
from vdmkit.networks import AbstractNetwork
from vdmkit.registry import Choice

@vdmkit.register("network", "wrapper")
class Wrapper(AbstractNetwork):
    '''Another.'''

    requires_label: ClassVar[bool] = {requires_label}
    inner: AbstractNetwork

    def __init__(self, shape, outputs, gamma_range, classes, key, *, network: Annotated[Choice, "network"]):
        context = {{"outputs": outputs, "gamma_range": gamma_range, "classes": classes, "key": key}}
        self.inner = network.build(shape=shape, **context)

    def __call__(self, z, gamma, condition, *, key=None):
        return self.inner(z, gamma, condition, key=key)
"""


@pytest.mark.parametrize(
    ("requires_label", "inner", "told"),
    [
        (False, "{name='small_unet'}", False),
        (False, "{name='label_conditioned', network={name='small_unet'}}", True),
        (False, "{name='wrapper', network={name='small_unet'}}", False),
        (True, "{name='small_unet'}", True),
    ],
)
def test_a_wrapper_does_not_require_the_labels_it_passes_on(write, digits_toml, requires_label, inner, told):
    """A wrapper requires labels exactly if the network inside it does."""
    file = write(WRAPPER.format(requires_label=requires_label))
    recipe = load_recipe(digits_toml, [f"model.network={{name='wrapper', network={inner}}}"], [file])
    assert is_told_labels(recipe.model.network) == told
