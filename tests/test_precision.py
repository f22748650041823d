# SPDX-License-Identifier: Apache-2.0
"""Measurements multiply in full float32 on every device.

A CPU does so at any setting. So a network records the setting that it is compiled with, and the programs for GPUs and
TPUs, which JAX exports on a CPU, are inspected.
"""

import itertools
import re
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.export import export

from vdmkit.devices import arithmetic, precisely
from vdmkit.likelihood import ImportanceWeighted, ProbabilityFlow, VariationalBound
from vdmkit.likelihood.log_likelihood import log_likelihood
from vdmkit.model import DiffusionModel
from vdmkit.networks import AbstractNetwork, SmallUNet
from vdmkit.predictions import Eps
from vdmkit.schedule_search import plan_study, study_schedules
from vdmkit.schedules import FixedLinear

KEY, RANGE = jax.random.key(0), (-8.0, 5.0)
ESTIMATORS = {
    "bound": VariationalBound(draws=2),
    "bound of few steps": VariationalBound(steps=2, draws=2),
    "ode": ProbabilityFlow(solver_steps=2),
    "importance": ImportanceWeighted(steps=2),
}
NUMBERS = itertools.count()
compiled_with: list[str] = []


class Noting(AbstractNetwork):
    """Multiplies by a number, and records the matmul precision that it is compiled with."""

    factor: jax.Array
    number: int = eqx.field(static=True)  # different in each test, so that nothing has been compiled yet

    def __call__(self, z, gamma, condition, *, key=None):
        compiled_with.append(arithmetic().matmul_precision)
        return self.factor * z[..., None]


@pytest.fixture
def model() -> DiffusionModel:
    compiled_with.clear()
    schedule = FixedLinear(gamma_min=RANGE[0], gamma_max=RANGE[1])
    network = Noting(jnp.asarray(0.1), next(NUMBERS))
    return DiffusionModel(schedule=schedule, prediction=Eps(), network=network, shape=(2, 2, 1), levels=5)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 5, (3, 2, 2, 1)).astype(np.uint8)


@pytest.mark.parametrize(
    "name", ["bound", *(pytest.param(name, marks=pytest.mark.costly) for name in list(ESTIMATORS)[1:])]
)
def test_every_likelihood(model, images, name):
    """Every likelihood is compiled with the highest matmul precision, and its result records it."""
    found = log_likelihood(model, images, key=KEY, estimator=ESTIMATORS[name])
    assert set(compiled_with) == {"highest"}
    assert found.arithmetic.matmul_precision == "highest"


@pytest.mark.costly
def test_a_study(model, images):
    """A schedule study is compiled with the highest matmul precision, and its result records it."""
    found = study_schedules(plan_study(model, images, images, nodes=3, key=KEY), (2,))
    assert set(compiled_with) == {"highest"}
    assert found.arithmetic.matmul_precision == "highest"


def test_the_users_own_setting_comes_first(model, images):
    """A matmul precision set by the user is respected and recorded."""
    with jax.default_matmul_precision("tensorfloat32"):
        found = log_likelihood(model, images, key=KEY)
    assert set(compiled_with) == {found.arithmetic.matmul_precision} == {"tensorfloat32"}


def products(program: Callable[..., object], *args: object, platform: str) -> list[str]:
    """Returns the precisions of the operands of every matrix product and convolution in a platform's program."""
    text = export(jax.jit(program), platforms=[platform])(*args).mlir_module()
    lines = re.findall(r"stablehlo\.(?:dot_general|convolution).*", text)
    return [word for line in lines for word in re.findall(r"DEFAULT|HIGHEST|HIGH", line) or ["none"]]


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_the_programs_of_accelerators(platform):
    """`precisely` sets the precision of every product of a network; without it, none has one."""
    shapes = eqx.filter_eval_shape(
        lambda: SmallUNet((8, 8, 1), 1, RANGE, KEY, channels=8)
    )  # no initialiser is compiled
    network, z = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes), jnp.zeros((8, 8, 1))

    def run(z: jax.Array) -> jax.Array:
        return network(z, jnp.asarray(0.0), {}, key=None)

    exact = products(precisely(eqx.filter_jit(run)), z, platform=platform)
    assert len(exact) > 10
    assert set(exact) == {"HIGHEST"}
    assert set(products(run, z, platform=platform)) <= {"DEFAULT", "none"}
