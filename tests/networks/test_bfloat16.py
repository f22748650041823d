# SPDX-License-Identifier: Apache-2.0
"""A network that computes in bfloat16 multiplies in it, and sums, measures and remembers in float32."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vdmkit
from vdmkit.losses import Objective
from vdmkit.model import Compute, DiffusionModel
from vdmkit.networks import SmallUNet, VDMUNet
from vdmkit.predictions import Eps
from vdmkit.schedules import FixedLinear
from vdmkit.training import TrainState, Update, train_step
from vdmkit.training.step import initial_state

SHAPE, RANGE, KEY = (8, 8, 1), (-8.0, 5.0), jax.random.key(0, impl="unsafe_rbg")
NETWORKS = {
    "small_unet": lambda: SmallUNet(SHAPE, 1, RANGE, KEY, channels=8),
    "vdm_unet": lambda: VDMUNet(SHAPE, 1, RANGE, KEY, channels=32, blocks=1, attention=True),
}


def model_of(network: Any) -> DiffusionModel:
    schedule = FixedLinear(gamma_min=RANGE[0], gamma_max=RANGE[1])
    return DiffusionModel(schedule=schedule, prediction=Eps(), network=network, shape=SHAPE, levels=17)


@pytest.mark.parametrize("name", NETWORKS)
def test_products_are_in_bfloat16_and_statistics_in_float32(name, equations, wide):
    """Products are in bfloat16; sums, softmax, phases and the output are in float32."""
    model = model_of(eqx.filter_eval_shape(NETWORKS[name]))
    arrays, static = eqx.partition(model, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))

    def denoise(arrays: Any, z: Any, gamma: Any) -> Any:
        return eqx.combine(arrays, static).computing_in("bfloat16").denoise(z, gamma).eps_hat

    given = jax.ShapeDtypeStruct(SHAPE, jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    program = jax.make_jaxpr(denoise)(arrays, *given)
    found = list(equations(program.jaxpr))
    products = [e for e in found if e.primitive.name in ("dot_general", "conv_general_dilated")]
    assert len(products) > 10
    weights_times_values = {str(v.aval.dtype) for e in products for v in e.invars}
    assert weights_times_values == {"bfloat16"}
    assert products[-1].outvars[0].aval.dtype == jnp.float32  # the last convolution
    for equation in found:
        types = [v.aval.dtype for v in equation.invars if hasattr(v.aval, "dtype")]
        assert equation.primitive.name not in wide or jnp.bfloat16 not in types, equation
    assert program.out_avals[0].dtype == jnp.float32


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    """A small network whose parameters all differ from zero, as after training."""
    rng = np.random.default_rng(0)
    shapes = eqx.filter_eval_shape(NETWORKS["small_unet"])
    draw = lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]) + 1), jnp.float32)  # noqa: E731
    is_shape = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)  # noqa: E731
    return model_of(jax.tree.map(lambda leaf: draw(leaf) if is_shape(leaf) else leaf, shapes))


@pytest.mark.costly
def test_a_step_keeps_its_state_in_float32_and_learns_the_same(model):
    """Parameters stay in float32, and a step in bfloat16 has the direction of one in float32."""
    images = np.random.default_rng(1).integers(0, 17, (8, *SHAPE)).astype(np.uint8)
    wide, narrow = (after_a_step(model, jnp.asarray(images), compute) for compute in (None, "bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(eqx.filter(narrow, eqx.is_inexact_array))} == {np.dtype("float32")}
    one, other = (parameters(state.model) - parameters(model) for state in (wide, narrow))
    assert one @ other > 0.99 * np.linalg.norm(one) * np.linalg.norm(other)  # roundings of 2^-8, each for itself


def after_a_step(model: DiffusionModel, images: jax.Array, compute: Compute | None) -> TrainState:
    update = Update(optax.sgd(1.0), 0.9, False, compute)
    own = jax.tree.map(lambda leaf: leaf.copy() if eqx.is_array(leaf) else leaf, model)  # a step uses its state up
    return train_step((update, {"image": images}, KEY), initial_state(own, update.optimizer, Objective()))[0]


def parameters(model: DiffusionModel) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))])


@pytest.mark.costly
def test_a_likelihood_in_bfloat16_can_be_compared(model):
    """The likelihood in bfloat16, of the same images and draws, is within 2^-8 of that in float32."""
    images = np.random.default_rng(2).integers(0, 17, (6, *SHAPE)).astype(np.uint8)
    models = model, model.computing_in("bfloat16")
    wide, narrow = (vdmkit.log_likelihood(one, images, key=jax.random.key(0)) for one in models)
    assert 0 < abs(vdmkit.compare(wide, narrow).value) < 2**-8 * wide.bits_per_dim.value
