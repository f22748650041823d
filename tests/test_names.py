# SPDX-License-Identifier: Apache-2.0
"""Public names: one name, one thing."""

import importlib
import pkgutil
from collections import defaultdict
from collections.abc import Iterator

import vdmkit


def public_packages() -> Iterator[str]:
    """Returns the names of vdmkit's modules and packages that a user may import from."""
    for module in pkgutil.walk_packages(vdmkit.__path__, "vdmkit."):
        if not any(part.startswith("_") for part in module.name.split(".")):
            yield module.name


def public_classes() -> dict[str, set[type]]:
    """Returns vdmkit's classes by their public names: those in `__all__`, or, of a module without, all of its own."""
    classes = defaultdict(set)
    for package in map(importlib.import_module, public_packages()):
        own = [name for name, value in vars(package).items() if getattr(value, "__module__", "") == package.__name__]
        for name in getattr(package, "__all__", [name for name in own if not name.startswith("_")]):
            found = getattr(package, name)
            if isinstance(found, type) and found.__module__.startswith("vdmkit."):
                classes[name].add(found)
    return classes


def test_no_two_public_classes_share_a_name():
    """False if `Gaussian` in a notebook were data in one import and a kernel in another."""
    classes = public_classes()
    assert len(classes) > 100
    assert {name: found for name, found in classes.items() if len(found) > 1} == {}


def test_a_public_class_has_one_name():
    """False if one class were found under two names, of which a reader would search for the other."""
    assert [(name, one) for name, found in public_classes().items() for one in found if one.__name__ != name] == []
