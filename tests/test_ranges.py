# SPDX-License-Identifier: Apache-2.0
"""Every number in a recipe has a range, which is enforced and can be used up to both ends."""

import math
import types
from dataclasses import is_dataclass
from inspect import Parameter, signature
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from annotated_types import Ge, Gt, Interval, Le, Lt, MultipleOf

from vdmkit.errors import VdmkitError
from vdmkit.recipes import Recipe
from vdmkit.recipes.validation import UnfitError, check_value
from vdmkit.registry import Choice, Component, kinds, registry
from vdmkit.schedules import FixedLinear, check_ends, gamma_and_derivative

PLUGINS = {"vdmkit-dit", "vdmkit-ipndm", "vdmkit-laplace"}


def components() -> list[Component]:
    """Returns the components of vdmkit and of plugins/, whatever else is installed."""
    known = [one for kind in kinds() for one in registry(kind).components.values()]
    return [one for one in known if one.origin in {"vdmkit", *PLUGINS}]


def settings(section: type = Recipe, prefix: str = "") -> list[tuple[str, Parameter]]:
    """Returns the recipe's own keys, dotted."""
    found = []
    for name, parameter in signature(section, eval_str=True).parameters.items():
        nested = isinstance(parameter.annotation, type) and is_dataclass(parameter.annotation)
        found += settings(parameter.annotation, f"{prefix}{name}.") if nested else [(f"{prefix}{name}", parameter)]
    return found


def parameters() -> dict[str, Parameter]:
    """Returns every key that a recipe can have, by a name for messages."""
    of_components = {f"{one.kind} {one.name}: {p.name}": p for one in components() for p in one.parameters.values()}
    return {**dict(settings()), **of_components}


def numbers(annotation: Any) -> list[Any]:
    """Returns the annotations of all numbers inside, with their constraints, or any for a key without annotation."""
    if annotation in (int, float, complex, Any, object, Parameter.empty):
        return [annotation]
    if get_origin(annotation) is Annotated:
        base, *constraints = get_args(annotation)
        return [annotation] if base in (int, float) else [Annotated[one, *constraints] for one in numbers(base)]
    if get_origin(annotation) is Literal:
        return []
    return [one for inner in get_args(annotation) for one in numbers(inner)]


def ends(number: Any) -> tuple[float, float]:
    """Returns the smallest and the largest value; infinite without a bound."""
    base, *constraints = get_args(number) or (number,)
    low, high = -math.inf, math.inf
    for one in (part for each in constraints for part in (each if isinstance(each, Interval) else (each,))):
        low = one.ge if isinstance(one, Ge) else _beside(one.gt, 1, base) if isinstance(one, Gt) else low
        high = one.le if isinstance(one, Le) else _beside(one.lt, -1, base) if isinstance(one, Lt) else high
    return (base(low), base(high)) if math.isfinite(low) and math.isfinite(high) else (low, high)


def _beside(value: float, sign: int, base: type) -> float:
    return value + sign if base is int else math.nextafter(value, sign * math.inf)


def has_range(number: Any) -> bool:
    return all(map(math.isfinite, ends(number)))


@pytest.mark.parametrize(
    ("annotation", "found"),
    [
        (float, False),
        (int | None, False),
        (Optional[Annotated[int, Ge(1)]], False),  # noqa: UP045
        (tuple[float, ...], False),
        (tuple[Annotated[int, Interval(ge=1, le=3)], int], False),
        (list[dict[str, float]], False),
        (Parameter.empty, False),
        (Annotated[tuple[float, ...], Le(3)], False),
        (Annotated[int, Ge(1), Lt(3)], True),
        (tuple[Annotated[float, Gt(0), Lt(1)], ...] | None, True),
        (Annotated[Choice, "kernel"], True),
        (Literal[1, 2] | bool | str, True),
    ],
)
def test_numbers_without_a_range_are_seen(annotation, found):
    """`has_range` finds numbers that lack a range."""
    assert all(map(has_range, numbers(annotation))) == found


def test_every_number_has_a_range():
    """Every numeric parameter of a component has a range."""
    assert {one.origin for one in components()} == {"vdmkit", *PLUGINS}
    without = [name for name, one in parameters().items() if not all(map(has_range, numbers(one.annotation)))]
    assert without == []


@pytest.mark.parametrize("name", [name for name, one in parameters().items() if numbers(one.annotation)])
def test_ranges_are_enforced(name):
    """Values just outside a range, infinities and NaN are refused, and both ends are accepted."""
    for number in numbers(parameters()[name].annotation):
        base, low, high = get_args(number)[0], *ends(number)
        assert [check_value(number, end) for end in (low, high)] == [low, high]
        step = max([1, *(one.multiple_of for one in get_args(number) if isinstance(one, MultipleOf))])
        beyond = (low - step, high + step) if base is int else (_beside(low, -1, base), _beside(high, 1, base))
        for value in (*beyond, math.inf, -math.inf, math.nan):
            with pytest.raises(UnfitError):
                check_value(number, value)


def with_ends(component: Component) -> list[dict[str, Any]]:
    """Returns sets of keys for a component: its defaults, with one key at one end of its range."""
    required = {"train": "nowhere", "test": "nowhere", "path": "nowhere", "gammas": (-1.0, 1.0), "errors": (1.0, 1.0)}
    choices = {key: Choice(*pair) for key, pair in CHOICES.items()}
    small = {"multipliers": (1.0, 2.0), "blocks": 1} if "multipliers" in component.parameters else {}
    defaults = {
        name: (required | choices)[name] if one.default is one.empty else one.default
        for name, one in component.parameters.items()
    } | small
    return [
        {**defaults, name: value}
        for name, one in component.parameters.items()
        for value in values_at_ends(one.annotation, defaults[name])
    ]


CHOICES = {
    "network": ("network", "none"),
    "trained_as": ("prediction", "eps"),
    "trained_on": ("path", "variance_preserving"),
    "read_as": ("prediction", "v"),
    "read_on": ("path", "straight_line"),
}


def values_at_ends(annotation: Any, default: Any) -> list[Any]:
    """Returns the values at the ends of a range; a list has all its entries at one end."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [value for inner in get_args(annotation) for value in values_at_ends(inner, default)]
    if get_origin(annotation) is tuple:
        inner = get_args(annotation)
        each = inner[:1] * len(default or (0, 0)) if inner[-1] is ... else inner
        return [tuple(_end(one, place) for one in each) for place in (0, 1)] if numbers(annotation) else []
    return list(ends(annotation)) if numbers(annotation) else []


def _end(annotation: Any, place: int) -> Any:
    return get_args(annotation)[place] if get_origin(annotation) is Literal else ends(annotation)[place]


AT_ENDS = {
    f"{one.kind}-{one.name}-{number}": (one, keys) for one in components() for number, keys in enumerate(with_ends(one))
}


def _marks(component: Component, keys: dict[str, Any]) -> list[pytest.MarkDecorator]:
    """Marks cases with hundreds of blocks, which take 10 s to build."""
    return [pytest.mark.slow] if keys.get("blocks", 0) > 100 else []


@pytest.mark.costly
@pytest.mark.parametrize("case", [pytest.param(case, marks=_marks(*AT_ENDS[case])) for case in AT_ENDS])
def test_both_ends_of_a_range_can_be_used(case):
    """A component with a parameter at an end of its range gives finite numbers.

    It may be refused because of its other parameters: gamma_min = 30 lies above the default gamma_max.
    """
    component, keys = AT_ENDS[case]
    try:
        if component.kind == "network":  # 16,384 channels need not be allocated
            eqx.filter_eval_shape(component.build, CONTEXT, **keys)
            return
        used = USES.get(component.kind, lambda built: ())(component.build(CONTEXT, **keys))
    except VdmkitError:
        return
    assert all(bool(jnp.isfinite(jnp.asarray(value)).all()) for value in used)


def _schedule(schedule) -> Any:
    check_ends(schedule)
    return gamma_and_derivative(schedule, jnp.asarray(0.5))


def _times(times) -> Any:
    t, weight = times(8, key=jax.random.key(0))
    assert ((t >= 0) & (t < 1)).all()
    return weight, times.after(t, jnp.ones(8))(8, key=jax.random.key(1))[1]


def _optimizer(optimizer) -> Any:
    parameter = {"kernel": jnp.ones(2)}
    updates, _ = optimizer.update({"kernel": jnp.array([0.0, 1.0])}, optimizer.init(parameter), parameter)
    return jax.tree.leaves(updates)


USES = {
    "schedule": _schedule,
    "grid": lambda grid: (grid(FixedLinear(), 4),),
    "time_sampler": _times,
    "weighting": lambda weighting: [weighting(jnp.asarray(gamma), jnp.ones(())) for gamma in (-13.3, 5.0)],
    "optimizer": _optimizer,
    "data": lambda source: (source.shape, source.levels) if source.distribution else (),
}
CONTEXT = {
    "key": jax.random.key(0),
    "shape": (8, 8, 1),
    "outputs": 1,
    "gamma_range": (-13.3, 5.0),
    "classes": 10,
    "levels": 17,
    "level_counts": jnp.zeros((8, 8, 1, 17), int),
    "distribution": None,
    "steps": 10,
    "trained_steps": 10,
    "trained_kernel": Choice("kernel", "gaussian", {"variance": "small"}),
    "trained_grid": Choice("grid", "uniform"),
}
