# SPDX-License-Identifier: Apache-2.0
"""A network conditioned on labels, and guidance from two estimates."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.errors import RecipeError
from vdmkit.model import DiffusionModel
from vdmkit.networks import LabelConditioned
from vdmkit.predictions import Estimate
from vdmkit.registry import Choice
from vdmkit.sampling import Ancestral
from vdmkit.sampling.sampler import Guidance, draw, guided

SHAPE, CLASSES = (4, 4, 1), 3
INNER = Choice("network", "small_unet", {"channels": 8, "dropout": 0.0})
Z, GAMMA = jnp.linspace(-1, 1, 16).reshape(SHAPE), jnp.asarray(0.5)


@pytest.fixture(scope="module")
def network() -> LabelConditioned:
    """With random embeddings, and a last layer that is not zero."""
    built = LabelConditioned(SHAPE, 1, (-6.0, 5.0), CLASSES, jax.random.key(0), network=INNER, label_dropout=0.5)
    rng = np.random.default_rng(0)
    parts = (lambda n: n.embeddings, lambda n: n.inner.conv_out.kernel)
    for part in parts:
        new = jnp.asarray(rng.normal(size=part(built).shape), jnp.float32)
        built = eqx.tree_at(part, built, new)
    return built


@eqx.filter_jit
def output(network, label=None, key=None):
    condition = {} if label is None else {"label": label}
    return network(Z, GAMMA, condition, key=key)


@pytest.mark.costly
def test_every_label_and_none_has_an_output_of_its_own(network):
    """Outputs differ between all labels and no label."""
    outputs = [output(network), *(output(network, jnp.asarray(label)) for label in range(CLASSES))]
    for i, first in enumerate(outputs):
        assert first.shape == (*SHAPE, 1)
        assert all(float(abs(first - other).max()) > 1e-3 for other in outputs[:i])


@pytest.mark.costly
def test_an_untrained_network_does_not_know_labels():
    """Embeddings start at zero, so that an untrained network does not depend on the label."""
    built = LabelConditioned(SHAPE, 1, (-6.0, 5.0), CLASSES, jax.random.key(0), network=INNER)
    np.testing.assert_array_equal(output(built, jnp.asarray(1)), output(built))


def test_labels_are_dropped_in_training_only(network):
    """Training replaces a label by none with probability `label_dropout`; evaluation never does."""
    unknown, known = output(network), output(network, jnp.asarray(2))
    keys = jax.random.split(jax.random.key(1), 64)
    trained = eqx.filter_jit(jax.vmap(lambda key: network(Z, GAMMA, {"label": jnp.asarray(2)}, key=key)))(keys)
    near = [abs(trained - other).max((1, 2, 3, 4)) < 1e-4 for other in (unknown, known)]  # float32 of another batch
    assert bool((near[0] ^ near[1]).all())
    assert 16 < int(near[0].sum()) < 48  # 32 with standard deviation 4: false alarm 6e-5


def test_data_without_labels_are_refused():
    """Data without labels are refused."""
    with pytest.raises(RecipeError, match="the data have no labels"):
        LabelConditioned(SHAPE, 1, (-6.0, 5.0), 0, jax.random.key(0), network=INNER)


@pytest.mark.parametrize(("scale", "expected"), [(0.0, 1.0), (1.0, 3.0), (2.5, 6.0)])
def test_guidance_goes_on_from_one_estimate_to_the_other(scale, expected):
    """eps_hat is 1 + scale (3 - 1), and x_hat is consistent with it and y."""

    def knows(value):
        return lambda y, gamma: Estimate(jnp.zeros_like(y), jnp.full_like(y, value))

    estimate = guided(knows(1.0), knows(3.0), scale)(Z, GAMMA)
    np.testing.assert_allclose(estimate.eps_hat, expected)
    np.testing.assert_allclose(estimate.x_hat + jnp.exp(GAMMA / 2) * estimate.eps_hat, Z, atol=1e-6)


@pytest.fixture(scope="module")
def model(network, tiny_model) -> DiffusionModel:
    return eqx.tree_at(lambda m: m.network, tiny_model, network)


def drawn(model, guidance, count=6, first=0):
    grid = jnp.linspace(5.0, -6.0, 4)
    return draw(model, Ancestral(), grid, count, key=jax.random.key(3), first=first, guidance=guidance)


@pytest.mark.costly
def test_samples_have_the_labels_in_turn_or_the_one_asked_for(model):
    """Image i has label i mod 3 in any batch; a chosen label is that of all images."""
    in_turn = drawn(model, Guidance(1.0, CLASSES))
    chosen = [drawn(model, Guidance(1.0, CLASSES, label)) for label in range(CLASSES)]
    for i in range(6):
        np.testing.assert_array_equal(in_turn[i], chosen[i % CLASSES][i])
        assert not np.array_equal(in_turn[i], chosen[(i + 1) % CLASSES][i])
    np.testing.assert_array_equal(drawn(model, Guidance(1.0, CLASSES), 2, 4), in_turn[4:])


@pytest.mark.costly
def test_more_guidance_is_another_image(model):
    """Images depend on the guidance scale, and at 0 they are those without a label."""
    none, label, more = (drawn(model, guidance) for guidance in (None, Guidance(1.0, 3, 0), Guidance(3.0, 3, 0)))
    assert not np.array_equal(label, none)
    assert not np.array_equal(label, more)
    np.testing.assert_array_equal(drawn(model, Guidance(0.0, 3, 0)), none)
