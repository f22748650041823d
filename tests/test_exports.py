# SPDX-License-Identifier: Apache-2.0
"""The programs of published models for GPUs and TPUs, exported on a CPU from shapes only."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from jax.export import export

import vdmkit
from vdmkit.devices import precisely
from vdmkit.likelihood.ode import _field
from vdmkit.losses import eps_error, prior_loss, reconstruction_loss
from vdmkit.model import DiffusionModel
from vdmkit.recipes import Recipe, load_recipe
from vdmkit.recipes.build import build_optimizer, build_sampling, build_update, state_like
from vdmkit.sampling.sampler import _step, no_history
from vdmkit.training import TrainState

RECIPES = Path(vdmkit.__file__).parents[1] / "recipes"
SHAPES = {
    "digits": ((8, 8, 1), 17),
    "vdm_cifar10": ((32, 32, 3), 256),
    "cifar10/edm": ((32, 32, 3), 256),
    "vdm_imagenet64": ((64, 64, 3), 256),
}
KEY = jax.random.key(0)


def of(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def training_step(recipe: Recipe, state: TrainState) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Returns the update for a batch of 8 images, with its arguments."""
    update, shape = build_update(recipe, build_optimizer(recipe)), state.model.shape
    batch = {"image": of(8, *shape, dtype=jnp.uint8)}
    return lambda state, batch: update(state, batch, key=KEY)[1], (state, batch)


def draw_of_the_bound(recipe: Recipe, state: TrainState) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The three terms of the bound for one image."""

    @precisely
    def draw(model: DiffusionModel, image: Any, gamma: Any, eps: Any) -> Any:
        x = model.observation.encode(image)
        diffusion = eps_error(model, x, gamma, eps, {})
        return prior_loss(model, x), reconstruction_loss(model, image, eps), diffusion

    shape = state.model.shape
    return draw, (state.ema_model, of(*shape, dtype=jnp.uint8), of(), of(*shape))


def side_of_the_ode(recipe: Recipe, state: TrainState) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The right-hand side of the probability flow, with one probe of its divergence."""

    @precisely
    def side(model: DiffusionModel, gamma: Any, z: Any, probes: Any) -> Any:
        return _field(gamma, (z, jnp.zeros(())), (model, probes))

    shape = state.model.shape
    return side, (state.ema_model, of(), of(*shape), of(1, *shape))


def sampler_step(recipe: Recipe, state: TrainState) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Returns one step of the recipe's sampler for two images, with its arguments."""
    sampler = build_sampling(recipe).sampler

    def step(model: DiffusionModel, y: Any, gamma_t: Any, gamma_s: Any) -> Any:
        history = jax.vmap(lambda _: no_history(model.shape, jnp.asarray(10)))(jnp.arange(2))
        return _step(model, sampler, (y, history), gamma_t, gamma_s, jax.random.split(KEY, 2), jnp.arange(2), None)

    return step, (state.ema_model, of(2, *state.model.shape), of(), of())


def network_of_the_codec(recipe: Recipe, state: TrainState) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The estimate that the codec rounds to integers."""
    x_hat = precisely(lambda model, y, gamma: model.x_hat(y, gamma))
    return x_hat, (state.ema_model, of(*state.model.shape), of())


def precisions(program: Callable[..., Any], given: tuple[Any, ...], platform: str) -> list[str]:
    """Returns the precision of each operand of every product in the program for a platform."""
    shapes, static = eqx.partition(given, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    leaves, structure = jax.tree.flatten(shapes)

    def run(*leaves: Any) -> Any:
        result = program(*eqx.combine(jax.tree.unflatten(structure, leaves), static))
        return eqx.filter(result, eqx.is_array)

    text = export(jax.jit(run), platforms=[platform])(*leaves).mlir_module()
    lines = re.findall(r"stablehlo\.(?:dot_general|convolution).*", text)
    return [word for line in lines for word in re.findall(r"DEFAULT|HIGHEST|HIGH", line) or ["none"]]


FAST = ["digits"]
NAMES = [pytest.param(name, marks=pytest.mark.costly if name in FAST else pytest.mark.slow) for name in SHAPES]
MEASURED = [draw_of_the_bound, side_of_the_ode, network_of_the_codec]


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", NAMES)
def test_products_have_the_precision_that_was_asked_for(name, platform):
    """Programs lower for every platform, and each matrix product has the requested precision."""
    recipe = load_recipe(RECIPES / f"{name}.toml", ["training.matmul_precision=high"])
    state = state_like(recipe, *SHAPES[name])
    assert set(precisions(*training_step(recipe, state), platform)) == {"HIGH"}
    assert set(precisions(*sampler_step(recipe, state), platform)) <= {"DEFAULT", "none"}
    for measured in MEASURED:
        found = precisions(*measured(recipe, state), platform)
        assert len(found) > 10
        assert set(found) == {"HIGHEST"}, measured.__doc__


def test_a_product_that_is_left_to_the_device_is_found():
    """`precisions` finds a planted product without a precision."""
    at = jax.lax.Precision.DEFAULT
    planted = precisely(lambda x: (x @ x) @ jnp.dot(x, x, precision=at))
    assert precisions(planted, (of(3, 3),), "cuda") == ["HIGHEST", "HIGHEST", "none", "HIGHEST", "HIGHEST"]
