# SPDX-License-Identifier: Apache-2.0
"""Costs of a kernel's steps between any two gammas; one evaluation of the network serves all ends s of steps from t."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Real

from vdmkit.data.batches import equal_batches
from vdmkit.model import DiffusionModel
from vdmkit.process import diffuse
from vdmkit.randomness import fold_purpose
from vdmkit.reverse import AbstractKernel


def steps_from(
    model: DiffusionModel,
    kernel: AbstractKernel,
    images: Real[np.ndarray, "n h w c"],
    gamma: Float[np.ndarray, " g"],
    number: int,
    *,
    batch_size: int,
    key: PRNGKeyArray,
) -> Float[np.ndarray, "2 g n"]:
    """Returns two draws per image of the KL in nats of the steps from gamma[number] to each gamma[s] below it.

    Entries with s >= number are 0. It takes 2 n evaluations of the network, and none for number 0. The draws depend on
    `number` and on an image's index in `images`.

    Raises:
        RecipeError: the prediction lacks what the kernel needs.
    """
    nodes, n = jnp.asarray(gamma, float), len(images)
    found = np.zeros((2, len(gamma), n))
    for replicate in (0, 1):
        of_draw = jax.random.fold_in(fold_purpose(key, "pairs"), 2 * number + replicate)
        for index in equal_batches(n, batch_size) if number else ():
            batch = jnp.asarray(images[index]), jnp.asarray(index)
            found[replicate][:, index] = np.asarray(
                _steps(model, kernel, *batch, nodes, jnp.asarray(number), of_draw)
            ).T
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

        def with_step(s: Array, found: Float[Array, " g"]) -> Float[Array, " g"]:
            return found.at[s].set(kernel.kl(estimate, x, eps, gamma_t, nodes[s], key=key_kernel).sum())

        # Loops over the gammas below t only, on average half of them.
        return jax.lax.fori_loop(0, t, with_step, jnp.zeros_like(nodes))

    return jax.vmap(one)(images, index)
