# SPDX-License-Identifier: Apache-2.0
"""A plugin whose components make numbers too low, or other than they say."""

import os
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import vdmkit
from vdmkit.data import AbstractSource
from vdmkit.data.sources import identified
from vdmkit.decoders import AbstractObservation
from vdmkit.likelihood import AbstractEstimator, Estimates, VariationalBound
from vdmkit.losses import AbstractTimeSampler, AbstractWeighting
from vdmkit.networks import AbstractNetwork
from vdmkit.predictions import AbstractPrediction, Estimate, level_values
from vdmkit.process import AbstractGrid, AbstractPath
from vdmkit.reverse import AbstractKernel, GaussianKernel
from vdmkit.schedules import AbstractSchedule
from vdmkit.toy_data import LevelMixture


class _Levels(AbstractObservation):
    levels: int = eqx.field(static=True)

    def __init__(self, levels):
        self.levels = levels

    def of_values(self, image, z_0, gamma_0):
        distance = (z_0[..., None] - level_values(self.levels)) * jnp.exp(-gamma_0 / 2)
        log_probs = jax.nn.log_softmax(-0.5 * distance**2)
        return jnp.take_along_axis(log_probs, image[..., None].astype(int), axis=-1)

    def decode(self, z_0, gamma_0, estimate):
        return jnp.argmin(abs(z_0[..., None] - level_values(self.levels)), -1).astype(jnp.uint8)


@vdmkit.register("observation", "fat")
class Fat(_Levels):
    """Probabilities that sum to 1.15 at every pixel."""

    def log_prob(self, image, z_0, gamma_0, estimate):
        return (self.of_values(image, z_0, gamma_0) + jnp.log(1.15)).sum()


@vdmkit.register("observation", "upper_half")
class UpperHalf(_Levels):
    """Only the upper half of the rows counts."""

    def log_prob(self, image, z_0, gamma_0, estimate):
        return self.of_values(image, z_0, gamma_0)[: len(image) // 2].sum()


@vdmkit.register("path", "half_the_noise")
class HalfTheNoise(AbstractPath):
    """sigma is half of alpha exp(gamma / 2)."""

    def log_alpha(self, gamma):
        return -jax.nn.softplus(gamma) / 2

    def sigma(self, gamma):
        return jnp.exp(self.log_alpha(gamma) + gamma / 2) / 2


@vdmkit.register("prediction", "stopped")
class Stopped(AbstractPrediction):
    """The gradient of the network is stopped, so that an ODE has another divergence."""

    outputs: int = eqx.field(static=True, default=1, init=False)

    def __call__(self, output, z, gamma, path):
        eps_hat = jax.lax.stop_gradient(output[..., 0])
        return Estimate((z - path.sigma(gamma) * eps_hat) / path.alpha(gamma), eps_hat)


@vdmkit.register("network", "stopped_network")
class StoppedNetwork(AbstractNetwork):
    """z itself, without its gradient."""

    outputs: int = eqx.field(static=True)

    def __init__(self, outputs):
        self.outputs = outputs

    def __call__(self, z, gamma, condition, *, key=None):
        return jnp.repeat(jax.lax.stop_gradient(z)[..., None], self.outputs, axis=-1)


@vdmkit.register("network", "sociable")
class Sociable(AbstractNetwork):
    """An output that depends on the other images of a batch."""

    outputs: int = eqx.field(static=True)

    def __init__(self, outputs):
        self.outputs = outputs

    def __call__(self, z, gamma, condition, *, key=None):
        @jax.custom_batching.custom_vmap
        def centred(z):
            return z

        @centred.def_vmap
        def _(size, batched, z):
            return z - z.mean(0), batched[0]

        return jnp.repeat(centred(z)[..., None], self.outputs, axis=-1)


@vdmkit.register("schedule", "jumps")
class Jumps(AbstractSchedule):
    """Leaves out the noise levels around the middle."""

    gamma_min: float = eqx.field(static=True, default=-8.0, kw_only=True)
    gamma_max: float = eqx.field(static=True, default=5.0, kw_only=True)

    def __call__(self, t):
        return self.gamma_min + (self.gamma_max - self.gamma_min) * jnp.where(t < 0.5, 0.5 * t, 0.5 + 0.5 * t)


@vdmkit.register("kernel", "half_kl")
class HalfKl(AbstractKernel):
    """Half of the KL."""

    noise_draws: int = eqx.field(static=True, default=1, init=False)

    def __call__(self, *args):
        return GaussianKernel()(*args)

    def kl(self, *args, key):
        return GaussianKernel().kl(*args, key=key) / 2


@vdmkit.register("grid", "cut_short")
class CutShort(AbstractGrid):
    """Ends before gamma_0."""

    def __call__(self, schedule, steps):
        return jnp.linspace(schedule(jnp.ones(())), schedule(jnp.asarray(0.2)), steps + 1)


@vdmkit.register("estimator", "without_prior")
class WithoutPrior(AbstractEstimator):
    """The bound less its prior term."""

    bound: VariationalBound

    def __init__(self):
        self.bound = VariationalBound()

    def describe(self, levels):
        return "variational bound"

    def plan(self, *args, **options):
        return self.bound.plan(*args, **options)

    def rounds(self, plan):
        return self.bound.rounds(plan)

    def __call__(self, *args, **options):
        found = self.bound(*args, **options)
        terms = {name: values for name, values in found.terms.items() if name != "prior"}
        return Estimates(terms, found.evaluations, found.failed)


@vdmkit.register("time_sampler", "early")
class Early(AbstractTimeSampler):
    """Twice as often early, and without weights."""

    def __call__(self, n, *, key):
        return jax.random.uniform(key, (n,)) ** 2, jnp.ones(n)


@vdmkit.register("weighting", "negative")
class Negative(AbstractWeighting):
    """Trains the model to be wrong."""

    def __call__(self, gamma, rate):
        return -jnp.ones_like(gamma)


@vdmkit.register("data", "of_process")
class OfProcess(AbstractSource):
    """Other test images in every process, of which one would keep the easiest."""

    shape, levels = (4, 4, 1), 5

    def load(self, split):
        rng = np.random.default_rng(os.getpid() if split == "test" else 0)
        return identified(rng.integers(0, 5, (12, 4, 4, 1)).astype(np.uint8), 5, name="mine", split=split)


@vdmkit.register("data", "changing")
class Changing(AbstractSource):
    """Other images every time."""

    shape, levels = (4, 4, 1), 5

    def __init__(self):
        self.loads = 0

    def load(self, split):
        self.loads += 1
        pixels = np.random.default_rng(self.loads).integers(0, 5, (12, 4, 4, 1)).astype(np.uint8)
        return identified(pixels, 5, name="changing", split=split)


@dataclass(frozen=True)
class _TooProbable(LevelMixture):
    """P of each image is ten times too large."""

    def nats(self, images):
        return super().nats(images) - np.log(10)


@vdmkit.register("data", "boastful")
class Boastful(AbstractSource):
    """Gives an exact likelihood that is too high, which no check sees."""

    shape, levels = (4, 4, 1), 5
    distribution = _TooProbable(shape, levels, (1.0,), ((0.0,) * 16,), ((0.5,) * 16,))

    def load(self, split):
        pixels = self.distribution.sample(12, seed=int(split == "test"))
        return identified(pixels, self.levels, name="boastful", split=split)
