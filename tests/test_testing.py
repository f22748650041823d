# SPDX-License-Identifier: Apache-2.0
"""The conformance kit: vdmkit's own components pass it, and broken ones do not."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vdmkit import testing
from vdmkit.data import AbstractAugmentation, AbstractSource, Images, identified
from vdmkit.denoiser import Eps, Estimate, X, solve_direction
from vdmkit.distribution import GaussianMixture
from vdmkit.errors import ConformanceError, RecipeError
from vdmkit.kernel import AbstractKernel, AbstractStep, GaussianKernel, MixtureKernel
from vdmkit.likelihood import AbstractEstimator, Estimates, VariationalBound
from vdmkit.networks import AbstractNetwork
from vdmkit.noise import AbstractGrid, AbstractPath, AbstractSchedule, FixedLinear
from vdmkit.objective import AbstractTimeSampler, AbstractWeighting
from vdmkit.observation import AbstractObservation, CategoricalObservation, level_values
from vdmkit.registry import Choice, kinds, load_plugins, registry
from vdmkit.sampling import Ancestral
from vdmkit.testing import (
    check_augmentation,
    check_data,
    check_estimator,
    check_grid,
    check_kernel,
    check_network,
    check_observation,
    check_optimizer,
    check_path,
    check_prediction,
    check_sampler,
    check_schedule,
    check_time_sampler,
    check_weighting,
)

SHAPE = (8, 8, 1)
CONTEXT = {
    "key": jax.random.key(0, impl="rbg"),
    "shape": SHAPE,
    "levels": 17,
    "level_counts": jnp.ones((*SHAPE, 17), jnp.int32),
    "distribution": GaussianMixture(SHAPE, (1.0,), ((0.0,) * 64,), ((0.5,) * 64,)),
    "classes": 10,
    "gamma_range": (-8.0, 5.0),
}


def every(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", sorted(registry(kind).components))


def build(kind: str, name: str, *, outputs: int = 1, **params):
    return registry(kind).get(name).build({**CONTEXT, "outputs": outputs}, **params)


def test_every_kind_has_its_check():
    """The author of a component could not know what is asked of it."""
    assert {f"check_{kind}" for kind in kinds()} <= set(testing.__all__)
    assert len(kinds()) == 14


@every("schedule")
def test_schedules(name):
    """A registered schedule would not be one."""
    check_schedule(build("schedule", name))


@every("path")
def test_paths(name):
    """A registered path would have another SNR than exp(-gamma)."""
    check_path(build("path", name))


@every("prediction")
def test_predictions(name):
    """x_hat and eps_hat of a registered prediction would contradict z."""
    check_prediction(build("prediction", name), SHAPE)


@every("weighting")
def test_weightings(name):
    """A registered weighting would be negative, or infinite."""
    check_weighting(build("weighting", name))


@every("time_sampler")
def test_times(name):
    """Registered times would bias the loss."""
    check_time_sampler(build("time_sampler", name))


@every("grid")
def test_grids(name):
    """A registered grid would leave out an end, or rise."""
    params = {"gammas": (5.0, -13.3)} if name == "gammas" else {}
    check_grid(build("grid", name, **params), FixedLinear(), 1 if name in ("tabulated", "gammas") else 7)


@every("sampler")
def test_samplers(name):
    """A chain of a registered sampler would not end at what the denoiser knows."""
    check_sampler(build("sampler", name))


@pytest.mark.system
def test_plugins_are_tested_whatever_is_run():
    """Tests that run over a registry would leave out installed plugins, unless some other file were run with them."""
    load_plugins()
    files = [Path(__file__).parent / "theory" / name for name in ("test_orders.py", "test_schedules.py")]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-m",
        "",
        "-p",
        "no:cacheprovider",
        *map(str, files),
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registered = [name for kind in ("sampler", "schedule") for name in registry(kind).components]
    assert all(f"[{name}]" in found for name in registered if name != "ode")  # which has a test of its own


# One output is all that `translated` is about: tests/theory/test_translated.py.
@pytest.mark.parametrize("name", sorted(set(registry("network").components) - {"translated"}))
def test_networks(name):
    """A registered network would not give what its prediction asks for."""
    around = {"network": Choice("network", "small_unet", {"channels": 8})}
    small = {"vdm_unet": {"channels": 32, "blocks": 1}, "labelled": around}.get(name, {})  # compile in seconds
    check_network(lambda outputs: build("network", name, outputs=outputs, **small), SHAPE)


@pytest.mark.parametrize("name", sorted(set(registry("observation").components) - {"gaussian"}))
def test_observations(name):
    """A registered decoder would give more than probability 1."""
    check_observation(build("observation", name))


def knowledge(levels: int = 5) -> tuple[Estimate, np.ndarray, np.ndarray]:
    """What a denoiser knows of an image of 4 x 4 values, the image, and the noise in it."""
    rng = np.random.default_rng(0)
    x = np.asarray(level_values(levels))[rng.integers(0, levels, (4, 4, 1))]
    eps, log_probs = rng.standard_normal((4, 4, 1)), rng.standard_normal((4, 4, 1, levels))
    log_probs -= np.logaddexp.reduce(log_probs, axis=-1, keepdims=True)
    return Estimate(*map(jnp.asarray, (0.8 * x, eps + 0.1, log_probs))), x, eps


def check_steps(kernel: AbstractKernel) -> None:
    """Short and long, clean and noisy ones."""
    for gamma_t, gamma_s in ((4.0, 2.0), (0.0, -0.1), (-4.0, -9.0)):
        check_kernel(kernel, *knowledge(), np.asarray(gamma_t), np.asarray(gamma_s))


@every("kernel")
def test_kernels(name):
    """A registered kernel would be no density, or its KL and its samples those of another."""
    params = {"optimal_variance": {"gammas": (-5.0, 5.0), "errors": (0.1, 0.5)}}
    check_steps(build("kernel", name, **params.get(name, {})))


@pytest.mark.parametrize("levels", [0, 17])
@every("estimator")
def test_estimators(name, levels):
    """A registered estimator would not bound -log P, or its replicates share their draws."""
    few = {"importance": {"steps": 8}}
    context: dict[str, Any] = {"trained_steps": 0, "trained_kernel": Choice("kernel", "gaussian")}
    context["trained_grid"] = Choice("grid", "uniform")
    check_estimator(registry("estimator").get(name).build(context, **few.get(name, {})), levels)


@pytest.mark.parametrize("name", ["digits", "gaussian", "mixture"])  # the others take files: tests/data
def test_data(name):
    """A registered source would give other images than it says, or others a second time."""
    check_data(build("data", name))


@every("augmentation")
def test_augmentations(name):
    """A registered augmentation would make images that are not of the data's levels."""
    check_augmentation(build("augmentation", name), np.random.default_rng(0).integers(0, 5, (6, 4, 4, 3)), 5)


@every("optimizer")
def test_optimizers(name):
    """A registered optimiser would climb."""
    check_optimizer(registry("optimizer").get(name).build({"steps": 100}))


class _Falling(AbstractSchedule):
    gamma_min: float = -1.0
    gamma_max: float = 1.0

    def __call__(self, t):
        return 1 - 2 * t


class _ElsewhereEnding(AbstractSchedule):
    gamma_min: float = -1.0
    gamma_max: float = 2.0

    def __call__(self, t):
        return 2 * t - 1


class _NearlyEnding(AbstractSchedule):
    """Without parameters, and 0.009 off."""

    gamma_min: float = -1.0
    gamma_max: float = 1.009

    def __call__(self, t):
        return 2 * t - 1


class _OtherSigma(AbstractPath):
    def log_alpha(self, gamma):
        return jnp.zeros_like(gamma)

    def sigma(self, gamma):
        return jnp.exp(gamma)


class _Half(Eps):
    """eps_hat of half the size."""

    def __call__(self, output, z, gamma, path):
        estimate = super().__call__(output, z, gamma, path)
        return Estimate(estimate.x_hat, estimate.eps_hat / 2)


class _Parallel(Eps):
    """A direction that is z's own on the variance exploding path, from which nothing is learnt there."""

    def direction(self, gamma, path):
        return jnp.ones_like(gamma), jnp.exp(gamma / 2)


class _Other(X):
    """Reads its output as the data, and says that it is -x."""

    def direction(self, gamma, path):
        return -jnp.ones_like(gamma), jnp.zeros_like(gamma)

    def __call__(self, output, z, gamma, path):
        return solve_direction(output[..., 0], z, (jnp.ones(()), jnp.zeros(())), gamma, path)


class _Negative(AbstractWeighting):
    def __call__(self, gamma, rate):
        return -jnp.ones_like(gamma)


class _Early(AbstractTimeSampler):
    """Twice as often in the first half, and without weights."""

    def __call__(self, n, *, key):
        return jax.random.uniform(key, (n,)) ** 2, jnp.ones(n)


class _Short(AbstractGrid):
    def __call__(self, schedule, steps):
        return jnp.linspace(5.0, -13.3, steps)


class _TooSmall(Ancestral):
    """Steps of half the size."""

    def step(self, denoise, y_t, gamma_t, gamma_s, history, noise):
        y_s, estimate = super().step(denoise, y_t, gamma_t, gamma_s, history, noise)
        return (y_t + y_s) / 2, estimate


class _Noise(Ancestral):
    """Nothing but noise, until the last step."""

    def step(self, denoise, y_t, gamma_t, gamma_s, history, noise):
        estimate = denoise(y_t, gamma_t)
        return jnp.where(jnp.isneginf(gamma_s), estimate.x_hat, 1000 * noise[0]), estimate


class _Quiet(Ancestral):
    """Half of the noise, which the last step hides."""

    def step(self, denoise, y_t, gamma_t, gamma_s, history, noise):
        return super().step(denoise, y_t, gamma_t, gamma_s, history, noise / 2)


class _Flat(AbstractNetwork):
    outputs: int = eqx.field(static=True)

    def __call__(self, z, gamma, condition, *, key=None):
        return z


class _Stopped(Eps):
    """A network whose gradient is stopped: its likelihood by an ODE is another's."""

    def __call__(self, output, z, gamma, path):
        return super().__call__(jax.lax.stop_gradient(output), z, gamma, path)


class _Social(AbstractNetwork):
    """An output that depends on the other images of a batch."""

    outputs: int = eqx.field(static=True)

    def __call__(self, z, gamma, condition, *, key=None):
        @jax.custom_batching.custom_vmap
        def centred(z):
            return z

        @centred.def_vmap
        def _(size, batched, z):
            return z - z.mean(0), batched[0]

        return jnp.repeat(centred(z)[..., None], self.outputs, axis=-1)


class _Told(CategoricalObservation):
    """A little more than probability 1 for every level of every value."""

    def log_probs(self, z_0, gamma_0, x_hat):
        return super().log_probs(z_0, gamma_0, x_hat) + 0.01


class _Cheaper(CategoricalObservation):
    """log_prob of half of what its log_probs say."""

    def log_prob(self, image, z_0, gamma_0, x_hat):
        return super().log_prob(image, z_0, gamma_0, x_hat) / 2


class _Hidden(AbstractObservation):
    """Half of the values count, and nothing shows the probabilities of the others."""

    levels: int = eqx.field(static=True)

    def log_prob(self, image, z_0, gamma_0, x_hat):
        log_probs = CategoricalObservation(self.levels).log_probs(z_0, gamma_0, x_hat)
        of_values = jnp.take_along_axis(log_probs, image[..., None].astype(int), axis=-1)
        return of_values[:, :1].sum()

    def decode(self, z_0, gamma_0, x_hat):
        return CategoricalObservation(self.levels).decode(z_0, gamma_0, x_hat)


class _WiderBins(CategoricalObservation):
    """Bins that overlap, of which an ODE's likelihood makes too much."""

    @property
    def spacing(self):
        return 2.5 / self.levels


class _HalfKl(GaussianKernel):
    def kl(self, *args, key):
        return super().kl(*args, key=key) / 2


class _Heavy(AbstractStep):
    """A density of mass 1.1."""

    step: AbstractStep

    def sample(self, noise):
        return self.step.sample(noise)

    def log_prob(self, y_s):
        return self.step.log_prob(y_s) + np.log(1.1)

    def cdf(self, y_s):
        return self.step.cdf(y_s)


class _HeavyKernel(MixtureKernel):
    def __call__(self, *args):
        return _Heavy(super().__call__(*args))


class _WiderSamples(_Heavy):
    def sample(self, noise):
        return self.step.sample(1.2 * noise)

    def log_prob(self, y_s):
        return self.step.log_prob(y_s)


class _Heavier(GaussianKernel):
    """Weights that are larger than those of its density."""

    def log_ratio(self, estimate, x, eps, n, gamma_t, gamma_s):
        return super().log_ratio(estimate, x, eps, n, gamma_t, gamma_s) + 0.01


class _WiderKernel(GaussianKernel):
    def __call__(self, *args):
        return _WiderSamples(super().__call__(*args))


class _Estimator(AbstractEstimator[None]):
    """Another estimator, whose estimates a liar changes."""

    honest: AbstractEstimator = VariationalBound()

    def describe(self, levels):
        return "a lie"

    def plan(self, *args, **options):
        return self.honest.plan(*args, **options)

    def rounds(self, plan):
        return 1

    def __call__(self, *args, **options):
        return self.honest(*args, **options)


class _NoPrior(_Estimator):
    def __call__(self, *args, **options):
        found = self.honest(*args, **options)
        terms = {name: values for name, values in found.terms.items() if name != "prior"}
        return Estimates(terms, found.evaluations, found.failed)


class _Cheap(_Estimator):
    def __call__(self, *args, **options):
        found = self.honest(*args, **options)
        return Estimates({name: 0.9 * values for name, values in found.terms.items()}, found.evaluations, found.failed)


class _Same(_Estimator):
    """Two replicates that are one."""

    def __call__(self, *args, replicate, **options):
        return self.honest(*args, replicate=0, **options)


class _InStep(_Estimator):
    """The same draws for every image."""

    def __call__(self, model, images, index, *args, **options):
        return self.honest(model, images, jnp.zeros_like(index), *args, **options)


class _NotFinite(_Estimator):
    def __call__(self, *args, **options):
        found = self.honest(*args, **options)
        return Estimates({"diffusion": found.nats * np.nan}, found.evaluations, found.failed)


class _Data(AbstractSource):
    shape, levels = (2, 2, 1), 5

    def load(self, split):
        pixels = np.random.default_rng(0).integers(0, 5, (8, 2, 2, 1)).astype(np.uint8)
        return identified(pixels, 5, name="mine", split=split)


class _Changing(_Data):
    """Other images every time."""

    def __init__(self):
        self.loads = 0

    def load(self, split):
        self.loads += 1
        images = super().load(split)
        return identified((images.pixels + self.loads) % 5, 5, name="mine", split=split)


class _OtherIdentity(_Data):
    """The test set of a published data set, in name."""

    def load(self, split):
        images = super().load(split)
        return Images(images.pixels // 2, 5, images.identity)


class _Brighter(AbstractAugmentation):
    def moves(self, shape):
        return [lambda pixels: pixels + 1]


class _Mixing(AbstractAugmentation):
    def moves(self, shape):
        return [lambda pixels: pixels[::-1]]


def _climbing() -> optax.GradientTransformation:
    return optax.chain(optax.sgd(0.01), optax.scale(-1.0))


SOME = np.random.default_rng(0).integers(0, 5, (6, 4, 4, 3)).astype(np.uint8)
BROKEN = {
    "_Stopped": (
        lambda: check_prediction(_Stopped(), SHAPE),
        "the derivative of eps_hat by JAX .* gradient is stopped",
    ),
    "_Social": (
        lambda: check_network(_Social, SHAPE),
        "output for one image changes by up to .* with the other images",
    ),
    "_Told": (
        lambda: check_observation(_Told(5)),
        "levels of one value sum to more than 1: .* 0.0144 bits/dim too low",
    ),
    "_Cheaper": (lambda: check_observation(_Cheaper(5)), "log_prob of an image is .*, and by its log_probs"),
    "_Hidden": (lambda: check_observation(_Hidden(5)), "sum to more than 1: what it gives is 1.1610 bits/dim too low"),
    "_WiderBins": (lambda: check_observation(_WiderBins(5)), "levels lie up to 0.4 apart, and its spacing says 0.5"),
    "_HalfKl": (lambda: check_steps(_HalfKl()), r"its KL\(q \|\| p\) is .* nats, and by quadrature of its density"),
    "_Heavier": (lambda: check_steps(_Heavier()), "its log p / q is 0.01 nats off that of its density"),
    "_HeavyKernel": (lambda: check_steps(_HeavyKernel()), "integrates to 1.1 "),
    "_WiderKernel": (lambda: check_steps(_WiderKernel()), "samples are not drawn from its distribution function"),
    "_NoPrior": (lambda: check_estimator(_NoPrior(), 17), "it does not bound -log P"),
    "_Cheap": (lambda: check_estimator(_Cheap(), 17), "it does not bound -log P"),
    "_Same": (lambda: check_estimator(_Same(), 17), "replicates are not independent, with correlation 1.000"),
    "_InStep": (lambda: check_estimator(_InStep(), 17), "images share their draws: the error of their mean is 10"),
    "_NotFinite": (lambda: check_estimator(_NotFinite(), 17), "its term diffusion is not finite"),
    "_Changing": (lambda: check_data(_Changing()), "test loads with other pixels, or another order, a second time"),
    "_OtherIdentity": (lambda: check_data(_OtherIdentity()), "identity of train names pixels"),
    "_Brighter": (lambda: check_augmentation(_Brighter(), SOME, 5), "move 0 makes a value 5 of images of 5 levels"),
    "_Mixing": (lambda: check_augmentation(_Mixing(), SOME, 5), "moves an image otherwise by itself than among others"),
    "_climbing": (lambda: check_optimizer(_climbing()), "it climbs: in 20 steps parameters move by"),
    "_ElsewhereEnding": (lambda: check_schedule(_ElsewhereEnding()), "gamma_max = 2, but gamma is 1 there"),
    "_NearlyEnding": (lambda: check_schedule(_NearlyEnding()), "gamma_max = 1.009, but gamma is 1 there"),
    "_OtherSigma": (lambda: check_path(_OtherSigma()), r"log sigma\^2 / alpha\^2"),
    "_Half": (lambda: check_prediction(_Half(), SHAPE), "alpha x_hat \\+ sigma eps_hat is not z"),
    "_Parallel": (lambda: check_prediction(_Parallel(), SHAPE), "alpha x_hat \\+ sigma eps_hat is not z"),
    "_Other": (lambda: check_prediction(_Other(), SHAPE), "given a x \\+ b eps it does not give x and eps back"),
    "_Negative": (lambda: check_weighting(_Negative()), "w = -1"),
    "_Early": (lambda: check_time_sampler(_Early()), "the weighted share of times from 0 to 0.1 is 0.3"),
    "_Short": (lambda: check_grid(_Short(), FixedLinear(), 7), r"7 steps give \(7,\) gammas: expected 8"),
    "_TooSmall": (lambda: check_sampler(_TooSmall()), "the chain ends .* away from the only image"),
    "_Noise": (lambda: check_sampler(_Noise()), "the noise is .* times as large as it should be at gamma = 2.9"),
    "_Quiet": (lambda: check_sampler(_Quiet()), "the noise is .* times as large as it should be"),
    "_Flat": (lambda: check_network(_Flat, SHAPE), r"output of shape \(8, 8, 1\): expected \(8, 8, 1, 1\)"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_components_are_told_why(name):
    """An author whose component is wrong would be told that it is right, or not why."""
    check, message = BROKEN[name]
    with pytest.raises(ConformanceError, match=message):
        check()


def test_a_falling_schedule_is_told_why():
    """A schedule that runs from noise to data would pass."""
    with pytest.raises(RecipeError, match="does not rise"):
        check_schedule(_Falling())
