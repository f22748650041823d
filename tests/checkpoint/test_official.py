# SPDX-License-Identifier: Apache-2.0
"""The authors' format, from files that are written here; their own files are in tests/reference."""

import contextlib
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import pytest

from vdmkit.decoders import CategoricalObservation
from vdmkit.errors import CheckpointError
from vdmkit.importers.formats import read_checkpoint
from vdmkit.importers.vdm import load_official, official_parameters, official_recipe
from vdmkit.model import DiffusionModel
from vdmkit.networks import VDMUNet
from vdmkit.predictions import Eps
from vdmkit.process import VariancePreserving
from vdmkit.schedules import FixedLinear, LearnedLinear, LearnedMonotone

CONFIG: dict[str, Any] = {
    "vocab_size": 256,
    "sample_softmax": False,
    "antithetic_time_sampling": True,
    "with_fourier_features": True,
    "with_attention": False,
    "gamma_type": "learnable_scalar",
    "gamma_min": -13.3,
    "gamma_max": 5,
    "sm_n_timesteps": 250,
    "sm_n_embd": 128,
    "sm_n_layer": 32,
    "sm_pdrop": 0.1,
    "sm_kernel_init": "normal",
}
SCHEDULES = {"fixed": FixedLinear, "scalar": LearnedLinear, "nnet": lambda: LearnedMonotone(jax.random.key(1))}


def model_like(schedule="scalar", *, blocks=1, **network) -> DiffusionModel:
    """An untrained model of the authors' kind, every parameter another random number."""
    unet = VDMUNet((4, 4, 3), 1, (-13.3, 5.0), jax.random.key(0), channels=32, blocks=blocks, **network)
    model = DiffusionModel(
        schedule=SCHEDULES[schedule](),
        path=VariancePreserving(),
        prediction=Eps(),
        network=unet,
        observation=CategoricalObservation(256),
        shape=(4, 4, 3),
    )
    leaves, structure = jax.tree.flatten(model)
    rng = np.random.default_rng(0)
    return jax.tree.unflatten(structure, [jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype) for leaf in leaves])


def state_of(model: DiffusionModel) -> dict[str, Any]:
    """The authors' training state: ema, mu and nu are 2, 3 and 4 times the parameters."""
    trees = [nested({name: i * leaf for name, leaf in official_parameters(model).items()}) for i in (1, 2, 3, 4)]
    params, ema, mu, nu = trees
    adam = {"count": np.asarray(7, np.int32), "mu": mu, "nu": nu}
    return {"step": 7, "params": params, "ema_params": ema, "opt_state": {"0": {}, "1": {"0": adam, "1": {}}}}


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def write(path, tree: Any):
    """As `flax.serialization.msgpack_serialize` does."""

    def encode(leaf: Any) -> msgpack.ExtType:
        if isinstance(leaf, complex):
            return msgpack.ExtType(2, msgpack.packb((leaf.real, leaf.imag)))
        array = np.asarray(leaf)
        code = 3 if isinstance(leaf, np.generic) else 1
        return msgpack.ExtType(code, msgpack.packb((array.shape, array.dtype.name, array.tobytes())))

    path.write_bytes(msgpack.packb(tree, default=encode))
    return path


@pytest.mark.costly
@pytest.mark.parametrize(
    ("schedule", "attention", "fourier", "blocks"),
    [
        (schedule, attention, fourier, blocks)
        for (schedule, attention, fourier), blocks in zip(
            itertools.product(SCHEDULES, (False, True), (False, True)), itertools.cycle((1, 2, 12)), strict=False
        )
    ],
)
def test_round_trip_of_every_kind_of_model(tmp_path, schedule, attention, fourier, blocks):
    """Otherwise some parameter of some configuration is lost, doubled or put in another's place."""
    model = model_like(schedule, attention=attention, fourier=fourier, blocks=blocks)
    template = eqx.filter_eval_shape(lambda: model)
    checkpoint = load_official(write(tmp_path / "ckpt-7.flax", state_of(model)), template)
    assert checkpoint.step == 7
    assert checkpoint.count == 7
    for factor, tree in enumerate((checkpoint.model, checkpoint.ema, checkpoint.mu, checkpoint.nu), start=1):
        expected = jax.tree.map(lambda leaf, factor=factor: factor * leaf, model)
        jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(tree), jax.tree.leaves(expected))


@pytest.mark.costly
def test_names_of_the_authors():
    """Otherwise the files of the authors are not understood (names as in their released code)."""
    names = official_parameters(model_like("nnet", attention=True)).keys()
    assert {
        "gamma/l3/kernel",
        "score_model/dense1/kernel",
        "score_model/conv_in/bias",
        "score_model/down.block_0/GroupNorm_1/scale",
        "score_model/down.attn_0/GroupNorm_0/bias",
        "score_model/mid.block_2/cond_proj/kernel",
        "score_model/mid.attn_1/proj_out/kernel",
        "score_model/up.block_1/nin_shortcut/bias",
        "score_model/up.attn_1/q/kernel",
        "score_model/GroupNorm_0/scale",
        "score_model/conv_out/kernel",
    } <= names


def test_kinds_of_leaves(tmp_path):
    """Otherwise complex numbers, scalars, bfloat16 or arrays that Flax split above 2^30 bytes are misread."""
    chunks = {str(i): np.arange(3.0) + 3 * i for i in range(2)}
    split = {"__msgpack_chunked_array__": True, "shape": {"0": 2, "1": 3}, "chunks": chunks}
    half = np.asarray(jnp.array([1.5, -2], jnp.bfloat16))
    tree = {"a": {"split": split, "complex": 1 + 2j}, "scalar": np.float32(3), "half": half, "text": "x"}
    found = read_checkpoint(write(tmp_path / "leaves", tree)).tree
    np.testing.assert_array_equal(found["a"]["split"], np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(found["half"].astype(float), [1.5, -2])
    assert found["a"]["complex"] == 1 + 2j
    assert (found["scalar"], found["text"]) == (3, "x")


def test_everything_that_does_not_fit_is_listed_once(tmp_path):
    """Otherwise a wrong config is a puzzle: missing, surplus and misshapen paths must all be named, with shapes."""
    path = write(tmp_path / "ckpt-1.flax", state_of(model_like("scalar", blocks=2)))
    with pytest.raises(CheckpointError) as error:
        load_official(path, model_like("nnet", blocks=1, fourier=False))
    lines = str(error.value).splitlines()
    assert "  gamma/w: (1,) in the file, nothing in the model" in lines
    assert "  gamma/l2/kernel: nothing in the file, (1, 1024) in the model" in lines
    assert "  score_model/conv_in/kernel: (3, 3, 15, 32) in the file, (3, 3, 3, 32) in the model" in lines
    assert sum("down.block_1/conv1/kernel" in line for line in lines) == 1
    assert not any("down.block_0" in line for line in lines)


@pytest.mark.parametrize("length", [0, 1, 100, 20_000, -1])
def test_truncated_file(tmp_path, length):
    """Otherwise half a download gives a traceback, or weights."""
    path = write(tmp_path / "ckpt-1.flax", state_of(model_like()))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"ckpt-1.flax: .*(again|expected)"):
        load_official(path, model_like())


@pytest.mark.costly
def test_damaged_bytes(tmp_path):
    """Otherwise some damage ends in a traceback: whatever bytes change, a CheckpointError or a model must result."""
    model = model_like()
    content = write(tmp_path / "good", state_of(model)).read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(0, 4000, size=40):
        path = tmp_path / "bad"
        path.write_bytes(content[:position] + rng.bytes(2) + content[position + 2 :])
        with contextlib.suppress(CheckpointError):
            load_official(path, model)


@pytest.mark.parametrize("content", [b"not msgpack at all", b"\x01", msgpack.packb({"step": 1}), msgpack.packb([1])])
def test_another_kind_of_file(tmp_path, content):
    """Otherwise a file of another kind gives a traceback instead of its name and what was expected."""
    path = tmp_path / "ckpt-1.flax"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"ckpt-1\.flax"):
        load_official(path, model_like())


def test_no_such_file(tmp_path):
    """Otherwise a mistyped name gives a traceback."""
    with pytest.raises(CheckpointError, match="no such file"):
        load_official(tmp_path / "missing.flax", model_like())


def test_recipe_of_a_configuration():
    """Otherwise a field of the configuration does not reach the recipe."""
    tables = official_recipe(CONFIG)
    assert tables["model"]["schedule"] == {"name": "learned_linear", "gamma_min": -13.3, "gamma_max": 5.0}
    assert tables["model"]["network"] == {
        "name": "vdm_unet",
        "channels": 128,
        "blocks": 32,
        "attention": False,
        "fourier": True,
        "dropout": 0.1,
    }
    assert tables["objective"] == {"time_sampler": "low_discrepancy", "weighting": "elbo", "steps": 250}


def test_every_wrong_field_is_named():
    """Otherwise a configuration that vdmkit cannot build is taken for another one."""
    config = CONFIG | {"sample_softmax": True, "gamma_type": "cosine", "sm_n_embd": "128", "extra": 1}
    del config["sm_n_layer"]
    with pytest.raises(CheckpointError) as error:
        official_recipe(config)
    for problem in (
        "sm_n_layer: missing",
        "sample_softmax: True, but False is expected",
        "gamma_type: 'cosine', but 'fixed' or 'learnable_scalar' or 'learnable_nnet' is expected",
        "sm_n_embd: '128', but int is expected",
        "extra: unknown field",
    ):
        assert problem in str(error.value)
