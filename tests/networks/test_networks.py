# SPDX-License-Identifier: Apache-2.0
"""What holds for both networks, and what each promises."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.errors import RecipeError
from vdmkit.networks import SmallUNet, VDMUNet

KEY = jax.random.key(0)
GAMMA = jnp.asarray(1.0)
SHAPE = (4, 6, 3)

NETWORKS = {
    "vdm_unet": lambda shape, outputs, **params: VDMUNet(
        shape, outputs, (-13.3, 5.0), KEY, **{"channels": 32, "blocks": 1, "attention": True} | params
    ),
    "small_unet": lambda shape, outputs, **params: SmallUNet(
        shape, outputs, (-13.3, 5.0), KEY, **{"channels": 16} | params
    ),
}


@pytest.fixture(params=NETWORKS)
def build(request):
    return NETWORKS[request.param]


@eqx.filter_jit
def run(network, z, gamma=GAMMA, key=None):
    return network(z, gamma, {}, key=key)


def at_random(build, outputs, **params):
    """A network with random parameters, so that its zero-initialised layers work. No time goes into initialisers."""
    rng = np.random.default_rng(0)
    shapes = eqx.filter_eval_shape(lambda: build(SHAPE, outputs, **params))
    return jax.tree.map(lambda leaf: jnp.asarray(0.1 * rng.normal(size=leaf.shape), leaf.dtype), shapes)


@pytest.mark.costly
@pytest.mark.parametrize("outputs", [1, 5])
def test_untrained_output(build, outputs):
    """An untrained network gives eps_hat = z with one output, and zeros with several."""
    z = jax.random.normal(KEY, SHAPE)
    output = run(build(SHAPE, outputs), z)
    expected = z[..., None] if outputs == 1 else jnp.zeros((*SHAPE, outputs))
    np.testing.assert_array_equal(output, expected)


@pytest.mark.costly
def test_batch_equals_single_examples(build):
    """A batch gives what its examples give one by one. 1e-5: a batched convolution sums in a different order."""
    network = at_random(build, 2)
    z, gamma = jax.random.normal(KEY, (3, *SHAPE)), jnp.array([-10.0, 0.0, 4.0])
    together = jax.vmap(run, in_axes=(None, 0, 0))(network, z, gamma)
    alone = jnp.stack([run(network, *pair) for pair in zip(z, gamma, strict=True)])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)


def test_nothing_is_narrower_than_its_parameters(build):
    """In float64 no operation is in float32, on which portable compressed files depend."""
    with jax.enable_x64(True):
        network = jax.tree.map(lambda leaf: leaf.astype(float), at_random(build, 2))
        traced = str(eqx.filter_make_jaxpr(network)(jnp.zeros(SHAPE, float), jnp.zeros((), float), {})[0])
    assert "f64[" in traced
    assert "f32[" not in traced


@pytest.mark.costly
def test_every_parameter_has_an_effect(build):
    """Every parameter has a gradient, so every layer is connected to the output, and gamma reaches it.

    64 channels make groups of two: a normalisation of single channels would hide constants that are added to them.
    A key's bias shifts all logits of a softmax alike, so it has no effect on purpose.
    """
    network = at_random(build, 2, channels=64)
    z = jax.random.normal(KEY, SHAPE)
    gradient = eqx.filter_jit(eqx.filter_grad(lambda network: jnp.sum(jnp.sin(run(network, z)))))(network)
    sizes = {
        jax.tree_util.keystr(path): float(jnp.linalg.norm(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
    }
    silent = [name for name, size in sizes.items() if size < 1e-6 * max(sizes.values())]
    assert all(name.endswith(".k.bias") for name in silent), silent


@pytest.mark.costly
def test_dropout_needs_a_key(build):
    """Dropout is on exactly if there is a key."""
    network = at_random(build, 1, dropout=0.5)
    z = jax.random.normal(KEY, SHAPE)
    np.testing.assert_array_equal(run(network, z), run(network, z))
    first, second = (run(network, z, key=jax.random.key(seed)) for seed in (1, 2))
    assert not jnp.allclose(first, second)


def test_nothing_but_parameters_is_trained(build):
    """Every leaf is a kernel, a bias or a scale; a constant would receive gradients and weight decay."""
    leaves = jax.tree_util.tree_leaves_with_path(at_random(build, 1))
    assert {path[-1].name for path, _ in leaves} == {"kernel", "bias", "scale"}


@pytest.mark.costly
@pytest.mark.parametrize(
    ("channels", "blocks", "attention", "count"),
    [
        (128, 32, False, 30_578_181 - 2),
        (256, 32, False, 122_140_677 - 3074),
        (256, 32, True, 139_279_877 - 3074),
        (256, 64, False, 237_603_845 - 2),
    ],
)
def test_parameter_counts_of_the_paper(channels, blocks, attention, count):
    """Counts are the authors', less the 2 or 3074 of the schedule. No weight is allocated."""
    network = eqx.filter_eval_shape(
        lambda key: VDMUNet((32, 32, 3), 1, (-13.3, 5.0), key, channels=channels, blocks=blocks, attention=attention),
        KEY,
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(network)) == count


def test_small_unet_stays_small():
    """The default network has about 270,000 parameters on digits, so that its recipe takes two minutes."""
    network = eqx.filter_eval_shape(lambda key: SmallUNet((8, 8, 1), 17, (-8.0, 5.0), key), KEY)
    assert 250_000 < sum(leaf.size for leaf in jax.tree.leaves(network)) < 300_000


def test_the_authors_network_runs_without_fourier_features():
    """With `fourier = false` the first convolution takes z alone."""
    network = VDMUNet(SHAPE, 1, (-13.3, 5.0), KEY, channels=32, blocks=1, fourier=False)
    assert network.conv_in.kernel.shape == (3, 3, 3, 32)
    assert run(network, jnp.zeros(SHAPE)).shape == (*SHAPE, 1)


@pytest.mark.costly
@pytest.mark.parametrize("how", ["remat", "scan"])
def test_how_it_is_computed_changes_no_gradient(how):
    """`remat` and `scan` do not change gradients."""
    z = jax.random.normal(KEY, SHAPE)

    @eqx.filter_jit
    def gradient(network):
        gradient_of = eqx.filter_grad(lambda of: (of(z, jnp.array(0.0), {}, key=KEY) ** 2).sum())
        return jax.tree.leaves(gradient_of(network))

    plain, other_way = (
        gradient(at_random(NETWORKS["vdm_unet"], 1, dropout=0.5, attention=False, **{how: flag}))
        for flag in (False, True)
    )
    largest = max(np.abs(leaf).max() for leaf in plain)
    for one, other in zip(plain, other_way, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * largest)  # float32; other products are fused


def test_scanned_stages_are_one_program():
    """With `scan` the program does not grow with the number of blocks."""

    def convolutions(blocks):
        network = at_random(NETWORKS["vdm_unet"], 1, blocks=blocks, scan=True)
        program = eqx.filter_make_jaxpr(network)(jnp.zeros(SHAPE), GAMMA, {}, key=KEY)[0]
        return str(program).count("conv_general_dilated[")

    assert convolutions(2) == convolutions(5) == 2 + 4 * 2  # the first and last, and four stages of two


@pytest.mark.parametrize(
    ("name", "shape", "params", "message"),
    [
        ("vdm_unet", SHAPE, {"channels": 48}, r"channels = 48: expected a positive multiple of 32, such as 64"),
        ("small_unet", (7, 8, 1), {}, r"^images of 7 x 8 pixels cannot be halved.*vdm_unet"),
        ("small_unet", SHAPE, {"channels": 0}, r"channels = 0: expected a positive multiple of 8, such as 8"),
    ],
)
def test_impossible_values_are_refused(name, shape, params, message):
    """Impossible values are refused with a RecipeError."""
    with pytest.raises(RecipeError, match=message):
        NETWORKS[name](shape, 1, **params)
