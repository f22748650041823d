# SPDX-License-Identifier: Apache-2.0
"""Conformance of networks: registered ones pass, and wrong ones are refused with a reason."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.custom_batching import custom_vmap

from vdmkit.conformance import check_network
from vdmkit.errors import ConformanceError
from vdmkit.networks import AbstractNetwork
from vdmkit.registry import Choice, registry

SHAPE = (8, 8, 1)


UNETS = {
    "unet": {"groups": 4},
    "ddpm_unet": {"groups": 4},
    "ddpmpp": {},
    "ncsnpp": {"progressive_input": "skip", "progressive_output": "skip"},
    "iddpm_unet": {"groups": 4},
    "adm_unet": {"group_size": 4, "head_channels": 8},
}
IN_CI = {"dit", "label_conditioned", "vdm_unet", "ncsnpp", "adm_unet"}  # which compile for ten seconds each
SLOW = UNETS.keys() - IN_CI  # made of the same parts as those two
# `translated` has a single output: see tests/theory/test_translated.py.
NETWORKS = [
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [pytest.mark.system] if name in IN_CI else [])
    for name in sorted(set(registry("network").components) - {"translated"})
]


@pytest.mark.costly
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(build, name):
    """Every registered network passes its conformance checks."""
    around = {"network": Choice("network", "small_unet", {"channels": 8})}
    small = {"vdm_unet": {"channels": 32, "blocks": 1}, "label_conditioned": around}  # compile in seconds
    unet = {"channels": 8, "multipliers": (1.0, 2.0), "blocks": 1, "attention": (4,)}
    small |= {name: {**unet, **given} for name, given in UNETS.items()}
    check_network(lambda outputs: build("network", name, {"outputs": outputs}, **small.get(name, {})), SHAPE)


@custom_vmap
def _shifted(z):
    return jnp.zeros_like(z)


@_shifted.def_vmap
def _(size, batched, z):
    return jnp.concatenate([jnp.zeros_like(z[:1]), z[:-1]]), True


class _Network(AbstractNetwork):
    """A correct network."""

    outputs: int = eqx.field(static=True)

    def __call__(self, z, gamma, condition, *, key=None):
        return jnp.repeat(jnp.tanh(z)[..., None], self.outputs, axis=-1)


class _Flat(_Network):
    def __call__(self, z, gamma, condition, *, key=None):
        return z


class _Neighbour(_Network):
    """Each image depends on the previous one in the batch. See also tests/system/lying.py."""

    def __call__(self, z, gamma, condition, *, key=None):
        return super().__call__(z, gamma, condition) + 0.1 * _shifted(jax.lax.stop_gradient(z))[..., None]


class _StopsClean(_Network):
    """The gradient is stopped at low noise."""

    def __call__(self, z, gamma, condition, *, key=None):
        return super().__call__(jnp.where(gamma < 0, jax.lax.stop_gradient(z), z), gamma, condition)


@jax.custom_jvp
def _tanh(z):
    return jnp.tanh(z)


@_tanh.defjvp
def _(primals, tangents):
    value, tangent = jax.jvp(jnp.tanh, primals, tangents)
    return value, 1.009 * tangent


class _OffByNineThousandths(_Network):
    def __call__(self, z, gamma, condition, *, key=None):
        return super().__call__(jnp.arctanh(_tanh(z) * 0.99), gamma, condition)


class _Remembers(_Network):
    """The output depends on the number of earlier calls."""

    def __call__(self, z, gamma, condition, *, key=None):
        calls = []

        def output(z):
            calls.append(len(z))
            return np.tanh(z) if len(calls) < 9 else np.zeros_like(z)

        shape = jax.ShapeDtypeStruct(z.shape, z.dtype)
        return super().__call__(jax.pure_callback(output, shape, z, vmap_method="sequential"), gamma, condition)


WRONG = {
    _Remembers: "it calls Python by pure_callback: its output may depend on earlier calls",
    _OffByNineThousandths: "the derivative of the network's output by JAX is .* a gradient is stopped or replaced",
    _Flat: r"output of shape \(8, 8, 1\): expected \(8, 8, 1, 1\)",
    _Neighbour: "the output for one image changes by up to .* with the other images of its batch",
    _StopsClean: "the derivative of the network's output by JAX is 0 .* gradient is stopped",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_networks(wrong):
    """A network is refused if its output depends on its batch or on earlier calls, or has a wrong derivative."""
    with pytest.raises(ConformanceError, match=WRONG[wrong]):
        check_network(wrong, SHAPE)
