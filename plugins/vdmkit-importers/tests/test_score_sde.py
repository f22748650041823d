# SPDX-License-Identifier: Apache-2.0
"""Score-SDE's two codes: the names in Flax files are those of the torch files, in another order and layout.

Their Flax code numbers modules of a class as they are made. The names and shapes that it gives for these configurations
(traced, with Flax 0.12) were compared with those that are read here; no published file was at hand.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
import pytest
from vdmkit_importers.score_sde import ScoreSdeImporter, with_score_sde_arrays

from vdmkit.importers.formats import Adam, Weights, adam_of_old_flax, adam_of_torch
from vdmkit.importers.loader import Described, described, state_of

NETWORKS = Path(__file__).parents[3] / "tests" / "reference" / "networks"
LAYERS = {"Combine": "Conv_0", "Downsample": "Conv2d_0"}


def weights_of(folder: str) -> dict[str, np.ndarray]:
    with np.load(NETWORKS / folder / "weights.npz") as file:
        return {name: array for name, array in file.items() if name != "sigmas"}


def config_of(folder: str) -> dict[str, Any]:
    config = json.loads((NETWORKS / "score_sde-ncsnpp" / "config.json").read_text())
    if folder.endswith("skip"):
        config["model"] |= {"progressive": "output_skip", "progressive_input": "input_skip", "num_res_blocks": 1}
    return config


def made(folder: str) -> Described:
    config = config_of(folder)
    return described(ScoreSdeImporter(), config, "a file", ["data.name=npz", "data.path=x.npz"])


def kind_of(parts: dict[str, np.ndarray]) -> str:
    """The class of a module, by its parameters."""
    if "W" in parts:
        return "GaussianFourierProjection"
    if any(name.startswith("NIN") for name in parts):
        return "AttnBlockpp"
    if "GroupNorm_0.weight" in parts:
        return "ResnetBlockBigGANpp"
    if "weight" in parts:
        return {4: "Conv", 2: "Dense", 1: "GroupNorm"}[parts["weight"].ndim]
    return "Combine" if "Conv_0.weight" in parts else "Downsample"


def in_flax(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays as Flax has them: inputs before outputs, and scales and kernels by these names."""
    modules: dict[int, dict[str, np.ndarray]] = {}
    for name, array in weights.items():
        _, number, rest = name.split(".", 2)
        modules.setdefault(int(number), {})[rest] = array
    numbers: Counter[str] = Counter()
    found = {}
    for _, parts in sorted(modules.items()):
        kind = kind_of(parts)
        for name, array in parts.items():
            field = name.rpartition(".")[2]
            if field == "weight":
                plain = {1: "scale", 2: "kernel", 4: "weight" if "Conv2d" in name else "kernel"}[array.ndim]
                array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
                name = name.removesuffix("weight") + plain
            found[f"{kind}_{numbers[kind]}/{name.replace('.', '/')}"] = array
        numbers[kind] += 1
    return found


@pytest.mark.costly
@pytest.mark.parametrize("folder", ["score_sde-ncsnpp", "score_sde-ncsnpp_skip"])
def test_a_flax_file_has_the_network_of_the_torch_file(folder):
    """A layer would be filled with the arrays of another, or transposed."""
    config = config_of(folder)
    build = made(folder).recipe.model.network.build
    context = {"shape": ScoreSdeImporter().shape(config), "outputs": 1, "gamma_range": (-13.3, 5.0), "classes": 0}
    template = eqx.filter_eval_shape(lambda key: build(**context, key=key), jax.random.key(0))
    weights = weights_of(folder)
    torch, flax = (with_score_sde_arrays(template, one) for one in (dict(weights), in_flax(weights)))
    assert eqx.tree_equal(torch, flax)


def moments_in_torch(weights: dict[str, np.ndarray]) -> Adam | None:
    """Newer torch counts the updates by a float."""
    trained = [name for name in weights if name != "all_modules.0.W"]
    moments = {
        i: {"step": np.asarray(9.0, np.float32), "exp_avg": weights[name], "exp_avg_sq": 2 * weights[name]}
        for i, name in enumerate(trained)
    }
    return adam_of_torch({"state": moments}, trained, weights)


def moments_in_flax(weights: dict[str, np.ndarray]) -> Adam | None:
    tree: dict[str, Any] = {}
    for name, array in in_flax(weights).items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = {"grad_ema": array, "grad_sq_ema": 2 * array}
    state = {"step": np.asarray(9), "param_states": tree}
    return adam_of_old_flax({"state": state}, list(in_flax(weights)))


@pytest.mark.costly
@pytest.mark.parametrize("moments", [moments_in_torch, moments_in_flax])
def test_adams_moments_are_taken_over(moments):
    """Training on would begin with a new optimiser, and its first updates be too large."""
    weights = weights_of("score_sde-ncsnpp_skip")
    adam = moments(weights)
    named = weights if moments is moments_in_torch else in_flax(weights)
    held = Weights("score_sde", named, None, 9, {}, adam)
    state = state_of(Path("file"), ScoreSdeImporter(), made("score_sde-ncsnpp_skip"), held, {})
    mu, nu = (optax.tree_utils.tree_get(state.opt_state, name) for name in ("mu", "nu"))
    assert {int(count) for _, count in optax.tree_utils.tree_get_all_with_path(state.opt_state, "count")} == {9}
    params = eqx.filter(state.model, eqx.is_inexact_array)
    assert eqx.tree_equal(mu, params)
    assert eqx.tree_equal(nu, jax.tree.map(lambda one: 2 * one, params))


@pytest.mark.costly
def test_a_new_optimiser_takes_little_memory():
    """An import would need three times the memory of its file, for moments that are zero."""
    held = Weights("score_sde", weights_of("score_sde-ncsnpp_skip"))
    state = state_of(Path("file"), ScoreSdeImporter(), made("score_sde-ncsnpp_skip"), held, {})
    mu, nu = (jax.tree.leaves(optax.tree_utils.tree_get(state.opt_state, name)) for name in ("mu", "nu"))
    assert len(mu) == len(jax.tree.leaves(state.ema))
    assert len({id(leaf) for leaf in mu + nu}) == len({leaf.shape for leaf in mu})
    assert not any(leaf.any() for leaf in mu + nu)
