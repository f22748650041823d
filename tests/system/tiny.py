# SPDX-License-Identifier: Apache-2.0
"""A plugin with a network that compiles fast. Its dropout makes training depend on every key."""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

import vdmkit
from vdmkit.networks import AbstractNetwork


@vdmkit.register("network", "tiny")
class Tiny(AbstractNetwork):
    """Two dense layers on the whole image."""

    kernel: Array
    bias: Array
    out: Array
    outputs: int = eqx.field(static=True)

    def __init__(self, shape, outputs, gamma_range, key):
        sys.audit("troubled")  # see faults/forks.py
        height, width, channels = shape
        pixels = height * width * channels
        self.kernel = jax.random.normal(key, (pixels + 1, 8)) / 8
        self.bias = jnp.zeros(8)
        self.out = jnp.zeros((8, pixels * outputs))
        self.outputs = outputs

    def __call__(self, z, gamma, condition, *, key=None):
        sys.audit("troubled")
        hidden = jax.nn.silu(jnp.append(z, gamma) @ self.kernel + self.bias)
        kept = 1.0 if key is None else jax.random.bernoulli(key, 0.9, hidden.shape)
        return (kept * hidden @ self.out).reshape(*z.shape, self.outputs)
