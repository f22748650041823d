# SPDX-License-Identifier: Apache-2.0
"""The reverse kernel of a run is kept when a different estimator is chosen."""

from types import SimpleNamespace

import pytest

from vdmkit.cli.options import _own_kernel
from vdmkit.recipes import load_recipe

CLIPPED = ["likelihood.estimator.kernel.name=learned_range", "likelihood.estimator.kernel.clip=true"]
RUN = ["objective.steps=10", "likelihood.estimator.name=bound", *CLIPPED]


def kept(own: list[str], *overrides: str) -> list[str]:
    """Returns the overrides that keep the kernel, for the digits recipe with the overrides `own`."""
    read = lambda more: load_recipe("digits", [*own, *more])  # noqa: E731
    return _own_kernel(SimpleNamespace(read_recipe=read, recipe=read(overrides)))


def test_importance_weights_clip_as_the_bound_does():
    """The importance-weighted estimator of a run uses the clipping of the run's kernel."""
    (override,) = kept(RUN, "likelihood.estimator.name=importance")
    assert load_recipe("digits", [*RUN, "likelihood.estimator.name=importance", override]).likelihood.estimator.params[
        "kernel"
    ].params == {"clip": True}


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("likelihood.estimator.name=ode",),
        ("likelihood.estimator.name=importance", "likelihood.estimator.kernel.name=gaussian"),
    ],
    ids=["the run's own", "no kernel", "a kernel of one's own"],
)
def test_what_the_user_asks_for_is_not_replaced(overrides):
    """A kernel chosen by the user is not replaced by that of the run."""
    assert kept(RUN, *overrides) == []
    assert kept(["objective.steps=10"], "likelihood.estimator.name=importance") == []
