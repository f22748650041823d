# SPDX-License-Identifier: Apache-2.0
"""Conformance of optimisers: registered ones pass, and one that increases the loss is refused."""

import optax
import pytest

from vdmkit.conformance import check_optimizer
from vdmkit.errors import ConformanceError
from vdmkit.registry import registry


@pytest.mark.parametrize("name", sorted(registry("optimizer").components))
def test_optimizers(build, name):
    """Every registered optimiser passes its conformance checks."""
    check_optimizer(build("optimizer", name))


def test_an_optimizer_that_climbs():
    """An optimiser that increases the loss is refused."""
    with pytest.raises(ConformanceError, match="it climbs: in 20 steps parameters move by"):
        check_optimizer(optax.chain(optax.sgd(0.01), optax.scale(-1.0)))
