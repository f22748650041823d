# SPDX-License-Identifier: Apache-2.0
"""MuLAN where the answer is known: its noise, its latent, and its bound where it is VDM's.

`tests/reference/test_mulan.py` compares it with the authors' code.
"""

import itertools
import math
from dataclasses import astuple, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import vdmkit_mulan
from vdmkit_mulan import Draws, Mulan, MulanBound, MulanError, PolynomialSchedule

import vdmkit
from vdmkit import DiffusionModel, VdmkitError
from vdmkit.importers.vdm import official_parameters
from vdmkit.likelihood import VariationalBound
from vdmkit.networks.layers import Conditioning
from vdmkit.predictions import V
from vdmkit.schedules import FixedLinear

SHAPE, M, K, ENDS = (3, 2, 3), 6, 2, (-7.0, 3.0)
SMALL = {"latent": M, "ones": K, "gamma_range": ENDS, "channels": 64, "blocks": 1, "encoder_blocks": 1}
KEY = jax.random.key(5)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def filled(build):
    """What `build` makes of a key, with parameters of which none is zero."""
    shapes, draw = eqx.filter_eval_shape(build, KEY), np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 * draw.normal(size=leaf.shape)), shapes)


def schedule() -> PolynomialSchedule:
    return filled(lambda key: PolynomialSchedule(SHAPE, M, ENDS, key))


def images(count: int) -> jax.Array:
    return jax.random.randint(KEY, (count, *SHAPE), 0, 256).astype(jnp.uint8)


def latents() -> jax.Array:
    return jnp.asarray([[1.0 if i in ones else 0.0 for i in range(M)] for ones in itertools.combinations(range(M), K)])


def test_gamma_rises_between_its_ends_by_its_derivative():
    """A pixel's noise would fall somewhere, end elsewhere, or the loss weigh it by what is not its derivative."""
    noise = schedule()

    @jax.jit
    def of(z, t):
        return noise(z, t), jax.jacfwd(noise, 1)(z, t), noise.derivative(z, t)

    gamma, slope, derivative = jax.vmap(jax.vmap(of, (None, 0)), (0, None))(latents()[:4], jnp.linspace(0, 1, 101))
    assert (jnp.diff(gamma, axis=1) > 0).all()
    np.testing.assert_allclose(gamma[:, 0], ENDS[0])
    np.testing.assert_allclose(gamma[:, -1], ENDS[1], rtol=1e-14)
    np.testing.assert_allclose(derivative, slope, rtol=1e-10, atol=1e-12)
    assert np.ptp(gamma[:, 50], axis=0).min() > 1e-3  # it depends on z
    assert np.ptp(gamma[0, 50]) > 1e-3  # and on the pixel


def test_times_of_even_length_cut_the_curve_into_equal_pieces():
    """The curve from t = 0 would be another share of the whole than was asked for, by more than a point's distance."""
    noise, z, t = schedule(), latents()[3], jnp.linspace(0, 1, 4001)
    gamma = jax.jit(jax.vmap(lambda t: noise(z, t).ravel()))(t)
    length = jnp.append(0, jnp.cumsum(jnp.linalg.norm(jnp.diff(gamma, axis=0), axis=1)))
    shares = jnp.asarray([0.1, 0.5, 0.9])
    times, total = jax.jit(jax.vmap(lambda u: noise.at_length(z, u)))(shares)
    np.testing.assert_allclose(total, length[-1], rtol=1e-4)
    speed = jax.vmap(lambda t: jnp.linalg.norm(noise.derivative(z, t)))(times)
    assert (abs(jnp.interp(times, t, length) / length[-1] - shares) < 0.51 / 999 * speed / length[-1] + 1e-4).all()


def test_a_latent_has_k_ones_and_a_gradient():
    """q(z | x) would have values that the prior does not have, or the encoder not be trained as the authors' is."""
    logits = jnp.asarray([0.3, -1.0, 2.0, 0.1, 0.2, 1.0])
    z, of_logits = jax.jit(lambda v: (vdmkit_mulan.k_hot(v, K), jax.jacrev(vdmkit_mulan.k_hot)(v, K)))(logits)
    np.testing.assert_allclose(z, [0, 0, 1, 0, 0, 1], atol=1e-12)
    centred = logits - logits.mean()
    unit = centred / np.linalg.norm(centred)
    expected = (np.eye(M) - np.outer(unit, unit)) @ (np.eye(M) - 1 / M) / np.linalg.norm(centred)
    np.testing.assert_allclose(of_logits, expected, atol=1e-12)


def test_equal_logits_give_k_ones():
    """The prior gives a z with more ones probability 0, so that log(m over k) would not bound the KL."""
    equal = jnp.asarray([1e6, 1e6, 1e6, 0.0, 0.0, 0.0])  # the noise is rounded away beside large logits
    np.testing.assert_allclose(sorted(vdmkit_mulan.k_hot(equal, K)), [0] * (M - K) + [1] * K, atol=1e-6)


def test_the_latent_terms():
    """The bound would miss part of the code for z: all latents are as likely, and one of them takes log(m over k)."""
    logits = jnp.asarray([3.0, -1.0, 0.5, 0.0, 2.0, 1.0])
    np.testing.assert_allclose(vdmkit_mulan.largest_kl(logits, K), math.log(len(latents())), rtol=1e-12)
    q = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(vdmkit_mulan.kl_of_one(logits, K), (q * np.log(q * M)).sum(), rtol=1e-12)
    assert abs(vdmkit_mulan.kl_of_one(jnp.full(M, 2.0), K)) < 1e-12


def without_latent() -> tuple[Mulan, DiffusionModel]:
    """A MuLAN whose gamma is linear at all pixels and whose U-Net ignores z, and VDM's model with the same network."""
    model = filled(lambda key: Mulan(SHAPE, key, prediction=V(), **SMALL))

    def linear(model):
        rates = model.schedule.dense_out_a, model.schedule.dense_out_b
        return *jax.tree.leaves(rates), *jax.tree.leaves(model.encoder.dense_layer_final)

    model = eqx.tree_at(linear, model, replace_fn=jnp.zeros_like)
    model = eqx.tree_at(lambda m: m.network.conditioning.dense0.kernel, model, replace_fn=lambda w: w.at[-M:].set(0))
    told = model.network.conditioning
    of_vdm = filled(lambda key: Conditioning(SMALL["channels"], 4 * SMALL["channels"], ENDS, key))
    kernel = told.dense0.kernel[: 1 - M]
    replaced = kernel, told.dense0.bias, told.dense1
    of_vdm = eqx.tree_at(lambda c: (c.dense0.kernel, c.dense0.bias, c.dense1), of_vdm, replaced)
    network = eqx.tree_at(lambda n: n.conditioning, model.network, of_vdm)
    ends = FixedLinear(gamma_min=ENDS[0], gamma_max=ENDS[1])
    return model, DiffusionModel(schedule=ends, prediction=V(), network=network, shape=SHAPE, levels=256)


@pytest.mark.costly
def test_without_a_latent_it_is_vdm():
    """A term, or the interval, would not be vdmkit's where gamma is one of all pixels and z is ignored, but for z."""
    model, vdm = without_latent()
    test, options = images(4), {"key": KEY, "batch_size": 2}
    found = vdmkit_mulan.log_likelihood(model, test, draws=2, **options)
    expected = vdmkit.log_likelihood(vdm, test, estimator=VariationalBound(draws=4), **options)
    assert found.terms.keys() == {*expected.terms, "latent"}
    for name, values in expected.terms.items():
        np.testing.assert_allclose(found.terms[name], values, rtol=1e-9, err_msg=name)
    np.testing.assert_allclose(found.terms["latent"], math.log(len(latents())), rtol=1e-12)
    of_latent = math.log2(len(latents())) / math.prod(SHAPE)
    expected = replace(expected.bits_per_dim, value=expected.bits_per_dim.value + of_latent)
    np.testing.assert_allclose(astuple(found.bits_per_dim), astuple(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.slow  # it compiles gradients of two U-Nets
def test_every_parameter_is_trained():
    """The bound's gradient would not reach the encoder, the noise or the U-Net."""
    model = filled(lambda key: Mulan(SHAPE, key, prediction=V(), **SMALL))
    eps, eps_0 = jax.random.normal(KEY, (2, *SHAPE))
    draws = Draws(jnp.asarray(0.4), eps, eps_0, jax.random.gamma(KEY, 1 / K, (10, M)))

    @eqx.filter_jit
    @eqx.filter_grad
    def of_bound(model):
        terms = vdmkit_mulan.terms(model, images(1)[0], draws, latent_term=vdmkit_mulan.kl_of_one, key=KEY)
        return sum(terms.values())

    zero = [name for name, leaf in official_parameters(of_bound(model)).items() if not jnp.abs(leaf).max() > 0]
    assert [name for name in zero if not name.endswith("attn_1/k/bias")] == []  # softmax takes no notice of that one


def test_models_of_one_gamma_are_not_mulan():
    """A model of VDM would be measured as MuLAN, or MuLAN by an estimator of one gamma: a wrong number."""
    model = filled(lambda key: Mulan(SHAPE, key, prediction=V(), **SMALL))
    with pytest.raises(MulanError, match="noise level for every pixel"):
        vdmkit.log_likelihood(model.vdm, images(2), key=KEY)
    vdm = eqx.tree_at(lambda of: of.network, model.vdm, model.network)
    with pytest.raises(MulanError, match="measures models of MuLAN"):
        vdmkit.log_likelihood(vdm, images(2), key=KEY, estimator=MulanBound(2, vdmkit_mulan.largest_kl))
    with pytest.raises(VdmkitError, match="cannot measure images given their labels"):
        vdmkit_mulan.bits_per_dim(model, images(2), key=KEY, condition={"label": np.zeros(2, int)})
    with pytest.raises(VdmkitError, match="draws"):
        vdmkit_mulan.bits_per_dim(model, images(2), key=KEY, draws=0)
    with pytest.raises(MulanError, match="7 of 6 values"):
        Mulan(SHAPE, KEY, prediction=V(), **{**SMALL, "ones": 7})
