# SPDX-License-Identifier: Apache-2.0
"""Bits back: what is drawn is noise, and images take the bits of the model's T-step bound.

The model of the rates is of independent pixels, whose bound is a sum of integrals over one or two normal variables:
it is computed here to 1e-6 from the formulas of the kernels alone, for each level. The rate is the mean of many pixels
less the bound of the same levels; one pixel's has a standard deviation of about a bit.
"""

from dataclasses import dataclass, field

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp
from vdmkit_codec import chain as chain_module
from vdmkit_codec.chain import Chain
from vdmkit_codec.network import Network, _integers
from vdmkit_codec.rans import Stack, first_heads

from vdmkit.predictions import Categorical
from vdmkit.registry import Choice
from vdmkit.toy_data import Exact, LevelMixture

GAUSSIAN, MIXTURE = Choice("kernel", "gaussian"), Choice("kernel", "mixture")
LARGE = Choice("kernel", "gaussian", {"variance": "large"})
MEASURED = Choice("kernel", "optimal_variance", {"gammas": (-6.0, 0.0, 5.0), "errors": (0.3, 0.3, 0.2)})
COUNTS = np.array([4, 30, 3, 2, 961])
LANES = 4096


@dataclass(frozen=True)
class Watched(Network):
    """Keeps the latents that it was asked of."""

    seen: dict = field(default_factory=dict)

    def encoded(self, k, t):
        self.seen[t] = k
        return super().encoded(k, t)


def chain_of(codec, batch: int, kind=Network) -> Chain:
    network = codec.network(batch)
    return Chain(kind(network.model, network.layers, batch, network.dtype))


def rate(codec, images: np.ndarray, seed: int, batch: int = 4096) -> np.ndarray:
    """Net bits of each image: by what it pushed and popped, and together by what the stack grew."""
    stack = Stack(first_heads(seed, LANES), seed=seed)
    chain, start, bits = chain_of(codec, batch), stack.bits, []
    for first in range(0, len(images), batch):
        bits.append(chain.encode(stack, images[first : first + batch], 10**6 * (seed + 1) + first))
    bits = np.concatenate(bits)
    return bits + (stack.bits - start - bits.sum()) / len(bits)  # what words and lanes round is shared by all


@pytest.fixture(scope="module")
def independent(model_of):
    """Sixteen pixels with the same probabilities of levels, of 0.29 bits; no network."""
    return model_of(Categorical(jnp.broadcast_to(jnp.asarray(COUNTS), (4, 4, 1, 5)), smoothing=0.0))


@pytest.fixture(scope="module")
def of_levels() -> np.ndarray:
    """20,480 images of such pixels."""
    return np.random.default_rng(0).choice(5, (20480, 4, 4, 1), p=COUNTS / COUNTS.sum()).astype(np.uint8)


def bound_of_levels(layers, kernel: Choice) -> np.ndarray:
    """The T-step bound of a pixel of each level, bits."""
    eps, weight = _normal(241, 8.0)
    x, log_prior = 2 * (np.arange(5) + 0.5) / 5 - 1, np.log(COUNTS / COUNTS.sum())

    def log_probs(y, s):
        return log_softmax(log_prior - 0.5 * ((y[..., None] - x) / s) ** 2, axis=-1)

    s, total = np.exp(layers.gamma / 2), np.zeros(5)
    variance = 1 + s[-1] ** 2
    total += 0.5 * (x**2 / variance + s[-1] ** 2 / variance - 1 - np.log(s[-1] ** 2 / variance))
    y_0 = x[:, None] + s[0] * eps
    of_x = log_softmax(-0.5 * ((y_0[..., None] - x) / s[0]) ** 2, axis=-1)
    total -= (np.stack([of_x[k, :, k] for k in range(5)]) * weight).sum(1)
    for s_t, s_s in zip(s[1:], s[:-1], strict=True):
        y, c = x[:, None] + s_t * eps, 1 - (s_s / s_t) ** 2
        p = log_probs(y, s_t)
        if kernel.name == "gaussian":
            kl = 0.5 * ((s_t / s_s) ** 2 - 1) * ((np.exp(p) @ x - x[:, None]) / s_t) ** 2
        else:
            n, of_n = _normal(81, 7.0)
            d = np.sqrt(c) * (x[:, None] - x) / s_s
            likelihood = -n[:, None, None] * d - d**2 / 2  # of n, the true level, and the mixture's
            kl = -np.stack([logsumexp(p[k][:, None] + likelihood[:, k], axis=-1) @ of_n for k in range(5)])
        total += kl @ weight
    return total / np.log(2)


def _normal(count: int, most: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of a mean over N(0, 1): the trapezoid rule."""
    n = np.linspace(-most, most, count)
    weight = np.exp(-(n**2) / 2)
    return n, weight / weight.sum()


def excess(codec, kernel, images, seeds: int) -> tuple[float, float]:
    """Net rate less the bound, bits per dimension, and its standard error."""
    bound = bound_of_levels(codec.layers, kernel)[images].reshape(len(images), -1).sum(1)
    differences = np.concatenate([(rate(codec, images, seed) - bound) / 16 for seed in range(seeds)])
    return float(differences.mean()), float(differences.std() / np.sqrt(len(differences)))


RATES = [
    (MIXTURE, 10, 0.01, 1),
    (MIXTURE, 20, 0.01, 1),
    (GAUSSIAN, 50, 0.005, 1),
    pytest.param(GAUSSIAN, 100, 0.005, 2, marks=pytest.mark.slow),
    pytest.param(GAUSSIAN, 250, 0.005, 2, marks=pytest.mark.slow),
    pytest.param(GAUSSIAN, 1000, 0.01, 1, marks=pytest.mark.slow),
]


@pytest.mark.statistical
@pytest.mark.parametrize(("kernel", "steps", "most", "seeds"), RATES)
def test_net_rate_is_the_bound(make_codec, independent, of_levels, kernel, steps, most, seeds) -> None:
    """Images and the initial state of the stack come back, and the net bits are those on the stack."""
    mean, error = excess(make_codec(independent, steps, kernel), kernel, of_levels, seeds)
    print(f"{kernel} T = {steps}: {mean:+.5f} +/- {error:.5f}")
    assert error <= most / 3
    assert mean <= most + 3 * error
    assert mean >= -0.05, "below, by less than wide tails and cells can give"


@pytest.mark.statistical
def test_whitening_is_needed(make_codec, model_of, of_levels, monkeypatch) -> None:
    """Whitened draws do not depend on what was pushed before, which would cost bits for an imperfect model.

    Both rates are of the same images and the same model, which takes the rarest levels for the most frequent.
    """
    codec = make_codec(model_of(Categorical(jnp.broadcast_to(jnp.asarray(COUNTS[::-1]), (4, 4, 1, 5)))), 50, GAUSSIAN)
    with_it = rate(codec, of_levels[:4096], 0) / 16
    monkeypatch.setattr(chain_module, "_keys", lambda seed, t, count: np.zeros(count, np.uint64))
    without = rate(codec, of_levels[:4096], 0) / 16
    error = np.sqrt((with_it.var() + without.var()) / len(with_it))
    print(f"without whitening: {(without - with_it).mean():+.4f} +/- {error:.4f}")
    assert (without - with_it).mean() > 0.01 + 3 * error


@pytest.mark.costly
@pytest.mark.parametrize("kernel", [MIXTURE, GAUSSIAN, LARGE, MEASURED], ids=str)
def test_innovations(make_codec, oracle, data, kernel) -> None:
    """Latents are draws of q: their mean is 0 and their variance 1 in every layer, the width of cells included."""
    codec, images = make_codec(oracle, 20, kernel), data.sample(4096, 3)
    chain = chain_of(codec, 4096, Watched)
    stack = Stack(first_heads(1, LANES), seed=1)
    push_bits = chain.encode(stack, images, 77)
    assert np.isfinite(push_bits).all()
    seen, layers = chain.network.seen, codec.layers
    before = layers.x[images]
    for t in range(21):
        y = seen[t] * layers.d[t]
        innovation = ((y - before) / layers.q_sd[t]).ravel()
        # 65,536 values: a standard error of the variance is 0.006, and cells without Sheppard's correction add 0.021.
        assert abs(innovation.mean()) < 0.02, t
        assert abs(innovation.var() - 1) < 0.02, (t, innovation.var())
        before = y


@pytest.mark.statistical
@pytest.mark.parametrize("kernel", [MIXTURE, GAUSSIAN], ids=str)
def test_a_model_that_cheats(make_codec, model_of, kernel) -> None:
    """With the true posterior's steps, the latents of a known image cost KL(y_T) and no more.

    q(y_T | x) is N(x, s_T^2) and p(y_T) is N(0, 1 + s_T^2); the image itself is all but certain from y_0.
    """
    levels = np.random.default_rng(4).integers(0, 5, 16)
    x = 2 * (levels + 0.5) / 5 - 1
    known = LevelMixture((4, 4, 1), 5, (1.0,), (tuple(x.tolist()),), ((1e-3,) * 16,))
    codec = make_codec(model_of(Exact(known)), 20, kernel)
    images = np.broadcast_to(levels.astype(np.uint8).reshape(4, 4, 1), (8192, 4, 4, 1))
    s = codec.layers.s[-1]
    prior = 0.5 * (x**2 / (1 + s**2) - 1 / (1 + s**2) + np.log1p(1 / s**2)).mean() / np.log(2)
    bits = rate(codec, images, 1) / 16
    mean, error = bits.mean(), bits.std() / np.sqrt(len(bits))
    print(f"{kernel}: {mean:.5f} +/- {error:.5f}, construction {prior:.5f}")
    assert error < 5e-4
    # Rounded means and tables of 2^26 slots: 20 r^2 / 24 log2 e for each of r = 1 / 256, 2e-5, several times over.
    assert abs(mean - prior) < 1e-3 + 3 * error


def test_networks_of_one_form_are_compiled_once(make_codec, learned) -> None:
    """Models of the same form share compiled functions and are computed with their own arrays."""
    other = eqx.tree_at(lambda m: m.network.bias, learned, -learned.network.bias)
    k, offsets = np.ones((1, 4, 4, 1), np.int64), np.zeros(1, np.int64)
    first, _ = make_codec(learned, 3).network(4).decoded(k, 1, offsets)
    compiled = _integers._cache_size()  # type: ignore[attr-defined]
    second, _ = make_codec(other, 3).network(4).decoded(k, 1, offsets)
    assert _integers._cache_size() == compiled  # type: ignore[attr-defined]
    assert (first != second).any()
