# SPDX-License-Identifier: Apache-2.0
"""The literature's U-Nets as networks of vdmkit: sizes, labels, dropout, noise embeddings and units."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.errors import RecipeError
from vdmkit.networks import UNet
from vdmkit.networks.unet import adm_unet, ddpm_unet, ddpmpp, iddpm_unet, ncsnpp
from vdmkit.process import VarianceExploding
from vdmkit.recipes import find_recipe, load_recipe
from vdmkit.registry import Choice, registry

KEY = jax.random.key(0)
SHAPE = (4, 6, 3)
GAMMA = jnp.asarray(1.0)
NAMES = ("ddpm_unet", "ddpmpp", "ncsnpp", "iddpm_unet", "adm_unet")
TINY = {"channels": 8, "multipliers": (1.0, 2.0), "blocks": 1, "attention": (2,)}
GROUPS = {"ddpm_unet": {"groups": 4}, "iddpm_unet": {"groups": 4}, "adm_unet": {"groups": 4, "head_channels": 8}}
LABELLED = {"labels": 3}


def shapes(name: str, shape=SHAPE, outputs: int = 1, classes: int = 3, **params) -> UNet:
    context = {"shape": shape, "outputs": outputs, "gamma_range": (-13.3, 5.0), "classes": classes}
    return eqx.filter_eval_shape(lambda key: registry("network").get(name).build(context | {"key": key}, **params), KEY)


def tiny(name: str, **params) -> UNet:
    """A network with random parameters, so that its zero-initialised layers work. No time goes into initialisers."""
    rng = np.random.default_rng(0)
    draw = lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape), leaf.dtype)  # noqa: E731
    built = shapes(name, **TINY, **GROUPS.get(name, {}), **params)
    return jax.tree.map(lambda leaf: draw(leaf) if leaf.dtype != jnp.int32 else jnp.zeros_like(leaf), built)


@eqx.filter_jit
def run(network, z, condition=None, key=None, gamma=GAMMA):
    return network(z, gamma, condition or {}, key=key)


DDPM = "its layers added up by the authors' code, diffusion_tf/models/unet.py; the paper says 35.7 million"
SCORE_SDE = "score_sde_pytorch, run with configs/{}: parameters with requires_grad"
EDM = "NVlabs/edm, run with the arguments that train.py makes of {}: parameters, without buffers"
OPENAI = "{}, run with the flags in its README; without learned variances 3,459 less, which the last layer has"
I_DODE = "VDM's configuration (PAPER.md section 11) without the two ends of its schedule"
COUNTS = [
    ("cifar10/ddpm", {}, 1, 35_746_307, DDPM),
    ("cifar10/ddim", {}, 1, 35_746_307, DDPM),
    ("cifar10/score_sde_vp", {}, 1, 106_632_579, SCORE_SDE.format("vp/cifar10_ddpmpp_deep_continuous")),
    ("cifar10/score_sde_vp", {"blocks": 4}, 1, 61_804_419, SCORE_SDE.format("vp/cifar10_ddpmpp_continuous")),
    ("cifar10/score_sde_subvp", {}, 1, 106_632_579, SCORE_SDE.format("subvp/cifar10_ddpmpp_deep_continuous")),
    ("cifar10/score_sde_ve", {}, 1, 107_586_947, SCORE_SDE.format("ve/cifar10_ncsnpp_deep_continuous")),
    ("cifar10/score_sde_ve", {"blocks": 4}, 1, 62_758_787, SCORE_SDE.format("ve/cifar10_ncsnpp_continuous")),
    ("cifar10/edm", {}, 1, 55_733_891, EDM.format("--arch=ddpmpp --cond=0")),
    ("cifar10/edm", {"labels": 10}, 1, 55_735_299, EDM.format("--arch=ddpmpp --cond=1")),
    ("cifar10/iddpm_cosine", {}, 1, 52_542_979, OPENAI.format("improved-diffusion")),
    ("cifar10/iddpm_cosine", {}, 2, 52_546_438, OPENAI.format("improved-diffusion")),
    ("cifar10/i_dode", {}, 1, 30_578_179, I_DODE),
    ("imagenet32/i_dode", {}, 1, 122_137_603, I_DODE),
    ("imagenet64/iddpm_cosine", {}, 1, 121_060_483, OPENAI.format("improved-diffusion")),
    ("imagenet64/iddpm_cosine", {}, 2, 121_063_942, OPENAI.format("improved-diffusion")),
    ("imagenet64/iddpm_cosine", {"channels": 192, "labels": 1000}, 2, 273_049_350, OPENAI.format("improved-diffusion")),
    ("imagenet64/adm", {}, 2, 295_904_454, OPENAI.format("guided-diffusion")),
    ("imagenet64/edm", {}, 1, 295_899_267, EDM.format("--arch=adm --cond=1 --augment=0")),
]
"""Recipe, changes of its network, outputs, the authors' count of parameters, and how it was found."""


@pytest.mark.parametrize(("recipe", "params", "outputs", "count", "source"), COUNTS, ids=lambda value: str(value)[:30])
def test_parameter_counts_of_the_papers(recipe, params, outputs, count, source):
    """The number of parameters is the published one. No weight is allocated.

    Fourier frequencies, which are not trained, are not counted.
    """
    size = 64 if recipe.startswith("imagenet64") else 32
    choice = load_recipe(find_recipe(recipe)).model.network
    classes = params.get("labels", choice.params.get("labels", 0))
    context = {"shape": (size, size, 3), "outputs": outputs, "gamma_range": (-13.3, 5.0), "classes": classes}
    build = Choice("network", choice.name, {**choice.params, **params}).build
    network = eqx.filter_eval_shape(lambda key: build(**context, key=key), KEY)
    found = sum(leaf.size for leaf in jax.tree.leaves(network) if leaf.dtype == jnp.float32)
    assert found == count, source


@pytest.mark.parametrize("recipe", ["cifar10/ddpm", "cifar10/iddpm", "imagenet64/iddpm_cosine", "imagenet64/adm"])
def test_recipes_embed_timesteps_of_their_own_schedule(recipe):
    """The noise embedding is the timestep in the betas that the recipe trains on."""
    model = load_recipe(find_recipe(recipe)).model
    embedding, table = model.network.params["noise_embedding"], model.schedule.params
    assert embedding.name == "timestep"
    assert {key: embedding.params[key] for key in ("table", "steps", "betas")} == table


def test_the_recipe_of_ve_embeds_log_sigma_of_data_in_the_unit_interval():
    """NCSN++ embeds log sigma of data in [0, 1]."""
    embedding = load_recipe(find_recipe("cifar10/score_sde_ve")).model.network.params["noise_embedding"]
    assert embedding == Choice("noise_embedding", "log_sigma", {"factor": 1.0, "unit": 2.0})


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_narrower_than_its_parameters(name, equations):
    """In float64 nothing but the Fourier frequencies is in float32."""
    with jax.enable_x64(True):
        network = shapes(name, outputs=2, **TINY, **GROUPS.get(name, {}), **LABELLED)
        given = jnp.zeros(SHAPE, float), jnp.zeros((), float), {"label": jnp.asarray(1)}
        program = eqx.filter_make_jaxpr(lambda network, *given: network(*given))(network, *given)[0]
    types = {str(value.aval.dtype) for one in equations(program.jaxpr) for value in one.outvars}
    assert "float64" in types
    floats = [one.primitive.name for one in equations(program.jaxpr) if str(one.outvars[0].aval.dtype) == "float32"]
    assert set(floats) <= {"bitcast_convert_type", "pjit", "jit"}, floats  # the frequencies, before they are widened


@pytest.mark.parametrize("name", NAMES)
def test_products_are_in_bfloat16_and_statistics_in_float32(name, equations, wide):
    """Products are in bfloat16; sums, phases and the output are in float32."""
    network = shapes(name, **TINY, **GROUPS.get(name, {}))
    narrow = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, "bfloat16" if x.dtype == "float32" else x.dtype), network
    )
    arrays, static = eqx.partition(narrow, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    program = jax.make_jaxpr(lambda arrays, z: eqx.combine(arrays, static)(z, GAMMA, {}))(arrays, jnp.zeros(SHAPE))
    products = [e for e in equations(program.jaxpr) if e.primitive.name in ("dot_general", "conv_general_dilated")]
    assert {str(v.aval.dtype) for e in products for v in e.invars} == {"bfloat16"}
    for one in equations(program.jaxpr):
        types = [v.aval.dtype for v in one.invars if hasattr(v.aval, "dtype")]
        assert one.primitive.name not in wide or jnp.bfloat16 not in types, one
    assert program.out_avals[0].dtype == jnp.float32


@pytest.mark.costly
def test_dropout_needs_a_key():
    """Dropout is on exactly if there is a key."""
    network = tiny("ddpmpp", dropout=0.5)
    z = jax.random.normal(KEY, SHAPE)
    np.testing.assert_array_equal(run(network, z), run(network, z))
    first, second = (run(network, z, key=jax.random.key(seed)) for seed in (1, 2))
    assert not jnp.allclose(first, second)


def test_labels_are_one_hot_and_dropped_in_training_only():
    """A dropped or absent label is not the first class; evaluation drops none."""
    network = shapes("ddpmpp", **TINY, label_dropout=0.5, **LABELLED)
    condition = {"label": jnp.asarray(1)}
    assert network._classes({}, None) is None
    np.testing.assert_array_equal(network._classes(condition, None), [0, 1, 0])
    drawn = jax.vmap(lambda key: network._classes(condition, key))(jax.random.split(KEY, 64))
    assert set(map(tuple, np.asarray(drawn))) == {(0, 1, 0), (0, 0, 0)}
    assert 16 < float(drawn.sum()) < 48  # 32 with standard deviation 4: false alarm 6e-5


@pytest.mark.costly
def test_a_score_network_sees_and_gives_the_authors_units():
    """The input has the scale of `latent`, and the output is divided by sigma with `by_sigma`."""
    parts = {"latent": VarianceExploding(), "by_sigma": True}
    network, z = tiny("ncsnpp", **parts), jax.random.normal(KEY, SHAPE)
    sigma = float(np.exp(GAMMA / 2))
    expected = eqx.filter_jit(network.evaluate)(z * np.sqrt(1 + sigma**2), jnp.asarray(np.log(sigma / 2))) / sigma
    np.testing.assert_allclose(run(network, z), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("remat", [False, True])
def test_every_block_has_its_dropout_and_is_computed_again_if_asked(remat, equations):
    """Every block has a dropout mask, and with `remat` every block is a checkpoint."""
    network = shapes("ddpmpp", **TINY, dropout=0.5, remat=remat)
    program = eqx.filter_make_jaxpr(lambda of, z, key: of(z, GAMMA, {}, key=key))(network, jnp.zeros(SHAPE), KEY)[0]
    blocks = len(list(network._shapes_of_blocks(*SHAPE[:2])))
    assert blocks == 2 + 1 + 2 + 4 + 1  # down, halving, middle, up, doubling
    names = [one.primitive.name for one in equations(program.jaxpr)]
    assert sum(name in ("checkpoint", "remat", "remat2") for name in names) == remat * blocks


@pytest.mark.parametrize(
    ("build", "shape", "classes", "params", "message"),
    [
        (ddpm_unet, (28, 28, 1), 0, {}, r"^images of 28 x 28 pixels cannot be halved 3 times. Give fewer multipliers"),
        (ddpm_unet, (32, 32, 3), 0, {"channels": 48}, r"^48 channels do not divide into 32 groups"),
        (iddpm_unet, (32, 32, 3), 0, {"heads": 5}, r"channels do not divide into 5 heads"),
        (ncsnpp, (32, 32, 3), 0, {"taps": (1.0, 2.0, 1.0)}, r"^taps = \[1.0, 2.0, 1.0\]: expected an even number"),
        (adm_unet, (64, 64, 3), 10, {"labels": 1000}, r"^labels = 1000, but the data have 10"),
        (ddpmpp, (32, 32, 3), 4, {"labels": 10}, r"^labels = 10, but the data have 4\."),
        (ddpmpp, (32, 32, 3), 0, {"channels": 13}, r"an even number is expected"),
        (ddpmpp, (32, 32, 3), 0, {"multipliers": ()}, r"^multipliers = \[\]: expected one for each level"),
    ],
)
def test_impossible_values_are_refused(build, shape, classes, params, message):
    """Impossible values are refused with a RecipeError."""
    with pytest.raises(RecipeError, match=message):
        eqx.filter_eval_shape(lambda key: build(shape, 1, (-13.3, 5.0), classes, key, **params), KEY)
