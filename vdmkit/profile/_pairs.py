# SPDX-License-Identifier: Apache-2.0
"""What a step of any kernel costs between any two gammas, measured: one evaluation of the network serves all ends s."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Real

from vdmkit.kernel import AbstractKernel
from vdmkit.model import DiffusionModel
from vdmkit.noise import diffuse
from vdmkit.randomness import fold_purpose


def measure_pairs(
    model: DiffusionModel,
    kernel: AbstractKernel,
    images: Real[np.ndarray, "n h w c"],
    gamma: Float[np.ndarray, " g"],
    *,
    batch_size: int,
    key: PRNGKeyArray,
    on_gamma: Callable[[], object] = lambda: None,
) -> Float[np.ndarray, "2 g g n"]:
    """KL of the step from gamma[t] to gamma[s], of each image with two independent draws, nats: at [:, s, t].

    0 where s >= t. 2 (g - 1) n evaluations of the network.

    Raises:
        RecipeError: the prediction lacks what the kernel needs.
    """
    nodes = jnp.asarray(gamma, float)
    found = np.zeros((2, len(gamma), len(gamma), len(images)))
    for t, replicate in np.ndindex(len(gamma), 2):
        of_draw = jax.random.fold_in(fold_purpose(key, "pairs"), 2 * t + replicate)
        for start in range(0, len(images) if t else 0, batch_size):
            index = np.resize(np.arange(start, min(start + batch_size, len(images))), min(batch_size, len(images)))
            batch = jnp.asarray(images[index]), jnp.asarray(index)
            of_batch = _steps(model, kernel, *batch, nodes, jnp.asarray(t), of_draw)
            found[replicate, :t, t, index] = np.asarray(of_batch)[:, :t]
        if replicate:
            on_gamma()
    return found


@eqx.filter_jit
def _steps(
    model: DiffusionModel,
    kernel: AbstractKernel,
    images: Array,
    index: Array,
    nodes: Array,
    t: Array,
    key: PRNGKeyArray,
) -> Float[Array, "n g"]:
    gamma_t = nodes[t]

    def one(image: Array, number: Array) -> Float[Array, " g"]:
        key_eps, key_kernel = jax.random.split(jax.random.fold_in(key, number))
        x = model.observation.encode(image)
        eps = jax.random.normal(key_eps, x.shape, x.dtype)
        estimate = model.denoise(diffuse(model.path, gamma_t, x, eps), gamma_t, {})

        def to(gamma_s: Array) -> Float[Array, ""]:
            safe = jnp.minimum(gamma_s, gamma_t - 1e-3)  # steps that go up are not looked at
            return kernel.kl(estimate, x, eps, gamma_t, safe, key=key_kernel).sum()

        return jax.lax.map(to, nodes)

    return jax.vmap(one)(images, index)
