# SPDX-License-Identifier: Apache-2.0
"""`vdmkit new-plugin`: writes a template of a package that adds a component."""

import importlib.util
import keyword
import re
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from vdmkit import __version__
from vdmkit.errors import RegistryError
from vdmkit.io import whole_folder

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the package, such as vdmkit-bent.")]

PYPROJECT = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "$name"
version = "0.1.0"
description = "A noise schedule as a plugin of vdmkit"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["vdmkit>=$version", "annotated-types", "equinox", "jax", "jaxtyping"]

[project.entry-points."vdmkit.plugins"]
$component = "$module"
"""

MODULE = '''"""A schedule whose gamma is a power of t."""

from dataclasses import KW_ONLY
from typing import Annotated

import equinox as eqx
import vdmkit
from annotated_types import Ge
from vdmkit.schedules import AbstractSchedule, Scalar


@vdmkit.register("schedule", "$component")
class Schedule(AbstractSchedule):
    """gamma rises as a power of t.

    Args:
        gamma_min: gamma at t = 0.
        gamma_max: gamma at t = 1.
        power: Exponent of t; 1 is the linear schedule.
    """

    _: KW_ONLY
    gamma_min: float = eqx.field(static=True, default=-13.3)
    gamma_max: float = eqx.field(static=True, default=5.0)
    power: Annotated[float, Ge(1)] = eqx.field(static=True, default=1.5)

    def __call__(self, t: Scalar) -> Scalar:
        return self.gamma_min + (self.gamma_max - self.gamma_min) * t**self.power
'''

TEST = '''"""The component does what every component of its kind must."""

from $module import Schedule
from vdmkit.conformance import check_schedule


def test_conforms():
    """The schedule gives a valid bound."""
    check_schedule(Schedule())
    check_schedule(Schedule(gamma_min=-4.0, gamma_max=9.0, power=2.0))
'''

RECIPE = """# The default model of digits, which comes with vdmkit, with this package's schedule.
extends = "digits"

[model.schedule]
name = "$component"
gamma_min = -8.0
gamma_max = 5.0
"""

README = """# $name

A plugin of vdmkit: the schedule `$component`.

```
pip install -e .          # or: uv pip install -e .
vdmkit list schedule
vdmkit run digits.toml
pytest
```
"""


def _refuse_taken(name: str, module: str, component: str) -> None:
    """Raises RegistryError if the name is already that of a Python module or a component."""
    from vdmkit.plugins import load_plugins
    from vdmkit.registry import registry

    if keyword.iskeyword(module) or importlib.util.find_spec(module):
        what = "a word of Python" if keyword.iskeyword(module) else "the name of a module that is there already"
        raise RegistryError(f"{name}: {module} is {what}. Choose another name.")
    load_plugins()
    if taken := registry("schedule").components.get(component):
        raise RegistryError(f"{name}: the schedule {component!r} is {taken.origin}'s. Choose another name.")


def new_plugin(name: Name) -> None:
    """Write a package with a schedule, an entry point, a recipe and tests, as a template for a plugin."""
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name):
        raise RegistryError(f"{name}: expected small letters and digits, joined by hyphens, such as vdmkit-bent.")
    folder, module = Path(name), name.replace("-", "_")
    if folder.exists():
        raise RegistryError(f"{folder}: is there already. Choose another name, or another folder to work in.")
    component = module.removeprefix("vdmkit_")
    _refuse_taken(name, module, component)
    files = {
        "pyproject.toml": PYPROJECT,
        f"src/{module}/__init__.py": MODULE,
        f"tests/test_{component}.py": TEST,
        "digits.toml": RECIPE,
        "README.md": README,
    }
    words = {"name": name, "module": module, "component": component, "version": __version__}
    with whole_folder(folder) as part:
        for path, text in files.items():
            target = part / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(Template(text).substitute(words))
    typer.echo(
        f"{folder}: {', '.join(files)}\n  next  pip install -e {folder} && vdmkit list schedule"
        f"\n        (or: uv pip install -e {folder})"
    )
