# SPDX-License-Identifier: Apache-2.0
"""The likelihood by the probability-flow ODE against exactly known densities, code lengths and entropies.

A solve at rtol = atol = TIGHT makes some hundred steps, each accurate to TIGHT in z and in log p per dimension. The
total error is 1e-7, or a few times that where an early error in z grows.
"""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from scipy import stats

from vdmkit.decoders import CategoricalObservation
from vdmkit.errors import RecipeError
from vdmkit.integrator import Integrator
from vdmkit.likelihood import Estimates, ProbabilityFlow
from vdmkit.likelihood import ode as _ode
from vdmkit.likelihood.estimator import truncated_normal, uniform
from vdmkit.likelihood.ode import Probes, log_prior, transport, value_and_divergence
from vdmkit.model import DiffusionModel
from vdmkit.predictions import Categorical
from vdmkit.process import AbstractPath, VariancePreserving
from vdmkit.registry import registry
from vdmkit.schedules import FixedLinear

SHAPE, LEVELS = (2, 2, 1), 3
COUNTS = np.array([1, 5, 14], np.int32)
IMAGES = jnp.asarray(np.random.default_rng(0).integers(0, LEVELS, (6, *SHAPE)).astype(np.uint8))
INDEX = jnp.arange(6)
TIGHT = 1e-9
WIDE = FixedLinear(gamma_min=-8.0, gamma_max=30.0)  # SNR_1 = 1e-13: z_1 is N(0, 1) to alpha_1 = 3e-7


FIRST = {"replicate": 0, "key": jax.random.key(0)}


@eqx.filter_jit
def log_p(model: DiffusionModel, z_0: Array) -> Array:
    """Returns log p(z_0) by the flow with exact divergence, for z_0 of shape (n, h, w, c)."""
    integrator = Integrator("Tsit5", jnp.array(TIGHT), jnp.array(TIGHT), 0, 4096)
    probes = Probes("exact", 1)(model.shape, key=jax.random.key(0))

    def one(z_0: Array) -> Array:
        end = transport(model, z_0, probes, integrator)
        return jnp.where(end.failed, jnp.nan, log_prior(model, end.z_1) + end.volume)

    return jax.vmap(one)(z_0)


@pytest.fixture(scope="module")
def pixels(model_of) -> DiffusionModel:
    """The exact denoiser of independent pixels: P of an image is a product of per-pixel probabilities."""
    return model_of(
        lambda z, gamma: jnp.zeros((*SHAPE, LEVELS)),
        schedule=WIDE,
        prediction=Categorical(jnp.broadcast_to(jnp.asarray(COUNTS), (*SHAPE, LEVELS))),
        observation=CategoricalObservation(LEVELS),
        shape=SHAPE,
    )


@pytest.fixture(scope="module")
def many(pixels) -> dict[int, Estimates]:
    """256 estimates of one image's code length with Gaussian probes, keyed by the number of draws."""
    images = jnp.broadcast_to(IMAGES[:1], (MANY, *SHAPE))
    return {
        draws: ProbabilityFlow(**NOISY, draws=draws)(pixels, images, jnp.arange(MANY), None, **FIRST)
        for draws in (1, 4)
    }


NOISY = {"probe": "gaussian", "probes": 16}
MANY = 256


def code_length(images: Array) -> np.ndarray:
    """Returns -log P of each image in nats."""
    share = (COUNTS + 0.5) / (COUNTS + 0.5).sum()
    return -np.log(share)[np.asarray(images)].sum((1, 2, 3))


@pytest.mark.parametrize("variance", [1.0, 0.25])
def test_density_of_gaussian_data_is_the_closed_form(gaussian, variance: float) -> None:
    """The ODE, its divergence and p_1 give the closed-form density of Gaussian data.

    The default schedule ends at SNR e^-5, so that q(z_1) is not p_1: the closed form is p_1 pulled back through the
    exact flow, which scales z by a known factor (PAPER 19.3).
    """
    model = gaussian(variance)
    z_0 = jax.random.normal(jax.random.key(0), (5, *model.shape)) * np.sqrt(variance)
    alpha2, sigma2 = 1 / (1 + np.exp([-13.3, 5.0])), 1 / (1 + np.exp([13.3, -5.0]))
    spread = alpha2 * variance + sigma2
    sd = np.sqrt(spread[0] / spread[1])  # standard deviation of z_0 for z_1 ~ N(0, 1)
    expected = stats.norm.logpdf(z_0, scale=sd).sum((1, 2, 3))
    np.testing.assert_allclose(log_p(model, z_0), expected, rtol=1e-7)  # 1e-9 a step: at most 1e-7; measured: 5e-10


@pytest.mark.statistical
def test_density_of_a_gaussian_mixture_is_the_closed_form(model_of) -> None:
    """The flow of a nonlinear denoiser of dependent pixels has the closed-form density (PAPER 19.5)."""
    weights = jnp.array([0.3, 0.7])
    means = jnp.array([[0.5, -0.3], [-0.4, 0.2]])
    covariances = jnp.array([[[0.1, 0.05], [0.05, 0.2]], [[0.3, -0.1], [-0.1, 0.1]]])
    path = VariancePreserving()

    def log_density(z: Array, gamma: Array) -> Array:
        alpha, sigma = path.alpha(gamma), path.sigma(gamma)
        covariance = alpha**2 * covariances + sigma**2 * jnp.eye(2)
        parts = jax.vmap(lambda m, c: jax.scipy.stats.multivariate_normal.logpdf(z, m, c))(alpha * means, covariance)
        return jax.nn.logsumexp(parts + jnp.log(weights))

    def eps_hat(z: Array, gamma: Array) -> Array:
        return -path.sigma(gamma) * jax.grad(log_density)(z.ravel(), gamma)

    model = model_of(eps_hat, schedule=WIDE, shape=(2, 1, 1))
    z_0 = jax.random.normal(jax.random.key(0), (6, 2, 1, 1)) / 2
    expected = jax.vmap(lambda z: log_density(z.ravel(), jnp.array(-8.0)))(z_0)
    # the data's mean of 0.3 is still in z_1: alpha_1 |m . z_1| = 3e-7 * 0.3 * a few; and the solver's 1e-7
    np.testing.assert_allclose(log_p(model, z_0), expected, rtol=0, atol=1e-6)


@pytest.mark.statistical
def test_another_path_gives_the_same_estimate(other_path, model_of) -> None:
    """The likelihood does not depend on the scaling of the latent: z / alpha is the same on both paths."""

    def on(path: AbstractPath) -> Estimates:
        def eps_hat(z: Array, gamma: Array) -> Array:
            x = z / path.alpha(gamma)
            return jnp.exp(-gamma / 2) * (x - jnp.tanh(x * jnp.exp(-gamma)))

        model = model_of(eps_hat, path=path, schedule=FixedLinear(gamma_min=-4.0, gamma_max=5.0))
        return ProbabilityFlow(rtol=TIGHT, atol=TIGHT, divergence="exact")(model, images, jnp.arange(2), None, **FIRST)

    images = jnp.asarray([[0, 1, 1, 0], [1, 1, 1, 0]], jnp.uint8).reshape(2, 4, 1, 1)
    here, there = on(VariancePreserving()), on(other_path)
    np.testing.assert_allclose(here.nats, there.nats, rtol=1e-7)  # the solver's error, as in the tests of densities
    assert (abs(here.terms["volume"] - there.terms["volume"]) > 1).all()


@pytest.mark.statistical
def test_estimate_of_independent_pixels_is_their_code_length(pixels) -> None:
    """Every single z_0 gives the image's exact code length.

    p(z_0) = sum_k share_k N(z_0; alpha_0 x_k, sigma_0^2), levels are 36 sigma_0 apart and bins extend 18 sigma_0 to
    either side, so q(z_0 | x) is the image's own term of the sum.
    """
    result = ProbabilityFlow(rtol=TIGHT, atol=TIGHT, divergence="exact")(pixels, IMAGES, INDEX, None, **FIRST)
    assert not result.failed.any()
    assert set(result.terms) == {"prior", "volume", "dequantisation"}
    # alpha_1 |E[x] . z_1| = 3e-7 * 0.4 * a few, and the solver's 1e-9 a step
    np.testing.assert_allclose(result.nats, code_length(IMAGES), rtol=0, atol=2e-6)


@pytest.mark.statistical
def test_noise_of_the_divergence_does_not_bias_the_estimate(many, pixels) -> None:
    """Random probes do not bias the estimate, and four draws halve its standard deviation.

    Rademacher probes would be exact here: the Jacobian of independent pixels is diagonal.
    """
    error = {draws: np.asarray(result.nats) - code_length(IMAGES[:1]) for draws, result in many.items()}
    assert error[1].std() > 0.1  # the estimates do have errors
    for errors in error.values():
        # 4 standard errors, false alarm 6e-5; one is 1% of the divergence's 76 nats
        np.testing.assert_allclose(errors.mean(), 0, atol=4 * errors.std() / np.sqrt(MANY))
    # the standard error of each is about 6% (kurtosis 3 to 5): 4 standard errors of the ratio
    np.testing.assert_allclose(error[4].std() / error[1].std(), 0.5, rtol=0.34)
    assert (many[4].evaluations > many[1].evaluations).all()


@pytest.mark.costly
def test_replicates_and_images_err_independently(many, pixels) -> None:
    """The errors of an image's two estimates, and those of two images, are uncorrelated."""
    images = jnp.broadcast_to(IMAGES[:1], (MANY, *SHAPE))
    other = ProbabilityFlow(**NOISY)(pixels, images, jnp.arange(MANY), None, replicate=1, key=FIRST["key"])
    first, second = np.asarray(many[1].nats), np.asarray(other.nats)
    for a, b in ((first, second), (first[1:], first[:-1])):
        np.testing.assert_allclose(np.corrcoef(a, b)[0, 1], 0, atol=4 / np.sqrt(MANY - 1))  # 4 standard errors


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_divergence_is_unbiased_with_the_known_variance(kind) -> None:
    """The divergence estimate is unbiased and has the variance of PAPER 16 for a linear field."""
    jacobian = np.random.default_rng(0).normal(size=(4, 4))
    n = 4096
    probes = Probes(kind, n)((4, 1, 1), key=FIRST["key"])

    def field(z: Array) -> Array:
        return (jacobian @ z.ravel()).reshape(z.shape)

    z = jnp.ones((4, 1, 1))
    values = np.asarray(jax.vmap(lambda v: value_and_divergence(field, z, v[None])[1])(probes))
    symmetric = (jacobian + jacobian.T) / 2
    known = 2 * ((symmetric**2).sum() - (kind == "rademacher") * (np.diag(symmetric) ** 2).sum())
    # 4 standard errors each, false alarm 6e-5
    np.testing.assert_allclose(values.mean(), np.trace(jacobian), atol=4 * np.sqrt(known / n))
    squares = (values - np.trace(jacobian)) ** 2
    np.testing.assert_allclose(squares.mean(), known, atol=4 * squares.std() / np.sqrt(n))
    # the mean of many probes, and the exact ones: a few roundings
    value, mean = value_and_divergence(field, z, probes)
    np.testing.assert_allclose(mean, values.mean(), rtol=1e-12)
    np.testing.assert_allclose(value, field(z), rtol=1e-14)
    exact = value_and_divergence(field, z, Probes("exact", 1)((4, 1, 1), key=FIRST["key"]))[1]
    np.testing.assert_allclose(exact, np.trace(jacobian), rtol=1e-13)


@pytest.fixture(scope="module")
def one_pixel(model_of):
    """Builds a model of `size` pixels (one by default) with 256 levels; gamma_0 is -13.3 by default."""

    def build(gamma_min: float = -13.3, size: int = 1) -> DiffusionModel:
        schedule = FixedLinear(gamma_min=gamma_min, gamma_max=20.0)
        return model_of(
            lambda z, gamma: z, schedule=schedule, observation=CategoricalObservation(256), shape=(size, 1, 1)
        )

    return build


def dequantised(rule, model: DiffusionModel, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (z_0 - alpha_0 x) / (half a bin), and log q, of `count` draws for an image of level 200."""
    keys = jax.random.split(jax.random.key(0), count)
    image = jnp.full(model.shape, 200, jnp.uint8)
    z_0, log_q = jax.jit(jax.vmap(lambda key: rule(model, image, key)))(keys)
    half_bin = model.path.alpha(model.schedule(jnp.zeros(()))) / 256
    return np.asarray(z_0 / half_bin - (2 * 200.5 - 256))[:, :, 0, 0], np.asarray(log_q)


@pytest.mark.parametrize("rule", [uniform, truncated_normal])
def test_density_of_dequantisation_integrates_to_one_over_the_bin(rule, one_pixel) -> None:
    """q is normalised over the bin, and the draws follow it."""
    n = 20_000
    model = one_pixel()
    offset, log_q = dequantised(rule, model, n)
    half_bin = float(model.path.alpha(jnp.array(-13.3))) / 256
    order = np.argsort(offset[:, 0])
    nodes, density = offset[order, 0], np.exp(log_q[order]) * half_bin
    assert nodes[0] >= -1
    assert nodes[-1] <= 1
    # the trapezoid rule on the draws as nodes; the two ends beyond them, of mass 1 / n each, are left out
    np.testing.assert_allclose(np.trapezoid(density, nodes), 1, atol=10 / n)
    # and the draws follow it: Kolmogorov-Smirnov, false alarm 1e-4
    cdf = stats.uniform(-1, 2).cdf if rule is uniform else stats.truncnorm(-TAU, TAU, scale=1 / TAU).cdf
    assert stats.kstest(nodes, cdf).pvalue > 1e-4


TAU = np.exp(13.3 / 2) / 256


def test_entropy_of_the_truncated_normal_is_the_papers(one_pixel) -> None:
    """The entropy of the draws is that of PAPER 16, -5.246283 nats for gamma_0 = -13.3."""
    _, log_q = dequantised(truncated_normal, one_pixel(size=16), 50_000)
    standard_error = log_q.std() / 16 / np.sqrt(len(log_q))
    np.testing.assert_allclose(-log_q.mean() / 16, -5.246283, atol=4 * standard_error)  # false alarm 6e-5
    assert standard_error < 0.001  # the entropy of an untruncated normal is 0.015 higher


@pytest.mark.parametrize("gamma_0", [-60.0, 15.0])
def test_bins_of_any_width_are_drawn_in_float32(one_pixel, gamma_0: float) -> None:
    """Bins far wider or narrower than the noise (tau = 4e10 and 2e-6) give finite, accurate draws in float32."""
    with jax.enable_x64(False):
        model = one_pixel(gamma_0, size=4096)
        offset, log_q = dequantised(truncated_normal, model, 64)
        sigma_0 = np.exp(-np.logaddexp(0, -gamma_0) / 2)
        half_bin = np.exp(-np.logaddexp(0, gamma_0) / 2) / 256
    entropy = np.log(2 * half_bin) if gamma_0 > 0 else np.log(2 * np.pi * np.e) / 2 + np.log(sigma_0)
    assert np.isfinite(offset).all()
    # sd of eps^2 / 2 is 0.71 a pixel: 4 standard errors over 64 * 4096 pixels, false alarm 6e-5; plus 1e-6 of float32
    np.testing.assert_allclose(-log_q.mean() / 4096, entropy, rtol=2e-6, atol=4 * 0.71 / 512)


@pytest.mark.costly
def test_equal_weights_give_the_same_bound_for_any_number_of_samples(pixels) -> None:
    """Every z_0 alone gives the code length, and so does the average of five importance weights."""
    estimator = ProbabilityFlow(rtol=TIGHT, atol=TIGHT, divergence="exact", samples=5)
    result = estimator(pixels, IMAGES, INDEX, None, **FIRST)
    np.testing.assert_allclose(result.nats, code_length(IMAGES), rtol=0, atol=2e-6)  # as for one sample; log 5 is 1.6
    assert set(result.terms) == {"total"}


@pytest.mark.statistical
def test_more_samples_give_a_tighter_bound(pixels) -> None:
    """More samples tighten the bound, which stays above the code length.

    Uniform z_0 are costly here because a level's density is 4 times as narrow as its bin.
    """
    narrow = eqx.tree_at(lambda m: m.schedule, pixels, FixedLinear(gamma_min=-5.0, gamma_max=20.0))
    images = jnp.broadcast_to(IMAGES[:1], (100, *SHAPE))
    settings = {"divergence": "exact", "dequantisation": "uniform"}
    results = [
        ProbabilityFlow(**settings, samples=k)(narrow, images, jnp.arange(100), None, **FIRST) for k in (1, 4, 16)
    ]
    bounds = [np.asarray(result.nats) for result in results]
    for loose, tight in itertools.pairwise(bounds):
        gain = loose - tight
        assert gain.mean() > 4 * gain.std() / np.sqrt(100)  # 4 standard errors
    assert bounds[-1].mean() > code_length(IMAGES[:1]) - 4 * bounds[-1].std() / np.sqrt(100)


@pytest.mark.costly
def test_too_few_steps_are_a_failure(pixels) -> None:
    """A solve that does not reach gamma_1 is marked as failed."""
    assert ProbabilityFlow(**SHORT)(pixels, IMAGES, INDEX, None, **FIRST).failed.all()


SHORT = {"max_steps": 5, "divergence": "exact"}


def test_a_network_that_overflows_is_a_failure(model_of) -> None:
    """With constant steps, which have no error control, a NaN of the network marks the image as failed."""
    schedule = FixedLinear(gamma_min=-4.0, gamma_max=4.0)
    broken = model_of(lambda z, gamma: jnp.where((gamma > 0) & (z[0, 0, 0] > 0), jnp.nan, z), schedule=schedule)
    images = jnp.asarray([0, 1], jnp.uint8).reshape(2, 1, 1, 1) * jnp.ones((4, 1, 1), jnp.uint8)
    estimator = ProbabilityFlow(step_size="constant", solver_steps=20, dequantisation="uniform")
    np.testing.assert_array_equal(estimator(broken, images, jnp.arange(2), None, **FIRST).failed, [False, True])


@pytest.mark.statistical
def test_an_estimate_does_not_depend_on_the_batch(many, pixels) -> None:
    """An image's draws and steps do not depend on its position or on the other images in the batch."""
    index = np.array([200, 3, 17])
    images = jnp.broadcast_to(IMAGES[:1], (3, *SHAPE))
    few = ProbabilityFlow(**NOISY)(pixels, images, jnp.asarray(index), None, **FIRST)
    np.testing.assert_allclose(few.nats, many[1].nats[index], rtol=1e-10)  # rounding under a different vectorisation
    np.testing.assert_array_equal(few.evaluations, many[1].evaluations[index])
    assert len(np.unique(many[1].evaluations)) > 1  # images have their own step counts


class _Counted:
    """A denoiser that counts its traces and its calls."""

    def __init__(self):
        self.traces = self.calls = 0

    def __call__(self, z: Array, gamma: Array) -> Array:
        self.traces += 1
        jax.debug.callback(self._called)
        return jnp.tanh(z)

    def _called(self) -> None:
        self.calls += 1


@pytest.mark.costly
@pytest.mark.parametrize(
    ("settings", "probes"),
    [
        ({"solver": "Tsit5", "probes": 2}, 2),
        ({"solver": "Heun", "divergence": "exact"}, 4),
        ({"solver": "Euler", "step_size": "constant", "solver_steps": 7}, 1),
    ],
    ids=["Tsit5", "Heun", "Euler"],
)
def test_evaluations_are_those_made_and_another_tolerance_compiles_nothing(model_of, settings, probes: int) -> None:
    """The reported evaluations are those made, and a change of tolerance does not retrace."""
    network = _Counted()
    model = model_of(network)
    traces = []
    for tolerance in (1e-3, 1e-4):
        network.calls = 0
        estimator = ProbabilityFlow(**settings, rtol=tolerance, atol=2 * tolerance)
        result = estimator(model, jnp.zeros((1, 4, 1, 1), jnp.uint8), jnp.arange(1), None, **FIRST)
        jax.effects_barrier()
        assert result.evaluations[0] == network.calls * (1 + probes)
        traces.append(network.traces)
    assert traces[0] == traces[1] > 0


@pytest.mark.statistical
@pytest.mark.parametrize(
    "settings", [{"rtol": 1e-3, "atol": 1e-3}, {"solver": "Heun", "step_size": "constant", "solver_steps": 100}]
)
def test_discretisation_error_is_that_of_the_coarse_solve(pixels, settings) -> None:
    """The estimated discretisation error agrees with the true error, for the same draws."""
    estimator = ProbabilityFlow(**settings, divergence="exact")
    true = np.asarray(estimator(pixels, IMAGES, INDEX, None, **FIRST).nats) - code_length(IMAGES)
    estimated, evaluations = estimator.discretisation_error(pixels, IMAGES, INDEX, key=FIRST["key"])
    assert abs(true).max() > 1e-4
    # the finer solve keeps about a tenth, or what a tolerance of 1e-5 leaves
    np.testing.assert_allclose(estimated, true, rtol=0, atol=0.2 * abs(true).max())
    assert evaluations > 0


@pytest.mark.costly
def test_a_useless_tolerance_is_found_out(pixels) -> None:
    """The error of a tolerance that accepts every step is found, although a tenth of it accepts every step too."""
    loose = ProbabilityFlow(rtol=0.1, atol=0.1, divergence="exact")
    object.__setattr__(loose.integrator, "rtol", jnp.asarray(10.0))
    object.__setattr__(loose.integrator, "atol", jnp.asarray(10.0))
    true = np.asarray(loose(pixels, IMAGES, INDEX, None, **FIRST).nats) - code_length(IMAGES)
    estimated, _ = loose.discretisation_error(pixels, IMAGES, INDEX, key=FIRST["key"])
    assert abs(true).min() > 0.01
    np.testing.assert_allclose(estimated, true, rtol=0.1)


@pytest.mark.costly
def test_discretisation_error_of_a_failure_is_none(pixels) -> None:
    """The discretisation error of a failed solve is NaN."""
    error, _ = ProbabilityFlow(**SHORT).discretisation_error(pixels, IMAGES, INDEX, key=FIRST["key"])
    assert np.isnan(error).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "Tsit6"}, 'solver = "Tsit6": expected an explicit .*Did you mean "Tsit5"'),
        ({"solver": "Kvaerno5"}, "expected an explicit Runge-Kutta solver of diffrax: Bosh3, Dopri5"),
        ({"solver": "Euler"}, 'does not estimate its error.*Set step_size = "constant"'),
        ({"samples": 2}, 'samples = 2 with divergence = "hutchinson".*Set divergence = "exact"'),
    ],
)
def test_settings_that_give_no_bound_are_refused(settings, message: str) -> None:
    """Unknown or unsuitable solvers are refused, as are settings whose likelihood would be biased upwards."""
    with pytest.raises(RecipeError, match=message):
        ProbabilityFlow(**settings)


def test_estimator_takes_no_precision_and_says_what_it_is(pixels) -> None:
    """A wanted precision is refused, and the description states which likelihood is computed."""
    images = np.asarray(IMAGES)
    estimator = registry("estimator").get("ode").build({}, rtol=1e-4, atol=1e-4)
    assert estimator.plan(pixels, images, precision=0.0, key=FIRST["key"]) is None
    with pytest.raises(RecipeError, match=r"precision of 0\.5 nats.*set likelihood\.estimator\.draws"):
        estimator.plan(pixels, images, precision=0.5, key=FIRST["key"])
    assert estimator.describe(LEVELS) == (
        "probability-flow ODE, Tsit5, rtol 1e-04, atol 1e-04, hutchinson divergence with 1 rademacher probe, "
        "truncated normal dequantisation: a bound on -log P"
    )
    other = ProbabilityFlow(step_size="constant", solver_steps=9, divergence="exact", samples=3, draws=2)
    assert other.describe(LEVELS) == (
        "probability-flow ODE, Tsit5, 9 steps, exact divergence, truncated normal dequantisation "
        "with 3 importance samples, mean of 2 draws: a bound on -log P"
    )


@pytest.mark.parametrize("steps", [None, 7])
def test_the_compiled_flow_calls_no_python(pixels, steps):
    """The compiled flow contains no callback, so that JAX can cache it on disk (it takes a minute to compile)."""
    integrator = ProbabilityFlow(solver_steps=steps).integrator
    probes = jnp.ones((1, *SHAPE))
    lowered = jax.jit(lambda z_0: transport(pixels, z_0, probes, integrator)).lower(jnp.zeros(SHAPE))
    assert "callback" not in lowered.as_text()


@pytest.mark.parametrize("steps", [1, 3, 49, 1000])
def test_constant_steps_are_as_many_as_asked_for(steps):
    """Rounding of the steps' ends neither drops the last step nor adds one."""
    zero, start, end = (jnp.asarray(value, jnp.float32) for value in (0.0, -13.3, 5.0))
    integrator = Integrator("Euler", zero + 1e-5, zero + 1e-5, steps, steps)
    state = jnp.zeros((1, 1, 1), jnp.float32), zero
    field = lambda gamma, state, args: jax.tree.map(jnp.ones_like, state)  # noqa: E731
    solve = jax.jit(lambda start, end: integrator.solve(field, start, end, state, None))(start, end)
    assert int(solve.steps) == steps
    assert bool(solve.finished)
    assert float(solve.state[1]) == pytest.approx(18.3, rel=1e-5)


def test_progress_is_reported_while_a_batch_is_solved(pixels, monkeypatch):
    """Progress is reported while a batch is being solved, and all rounds are reported."""
    events, one_step = [], _ode._step
    monkeypatch.setattr(_ode, "_AT_ONCE", 2)
    monkeypatch.setattr(_ode, "_step", lambda *args: events.append("steps") or one_step(*args))
    estimator = ProbabilityFlow(solver="Bosh3", probe="gaussian")
    estimator(pixels, IMAGES[:1], INDEX[:1], None, **FIRST, on_round=lambda: events.append("part"))
    assert events.count("part") == estimator.rounds(None)
    assert events[0] == "steps"
    assert events.index("part") < len(events) - events[::-1].index("steps")


@pytest.mark.parametrize("steps", [0, 9])
def test_a_solve_in_parts_is_that_in_one(steps):
    """Pausing a solve to report progress changes neither its result nor its steps."""
    integrator = Integrator("Tsit5", jnp.asarray(1e-6), jnp.asarray(1e-6), steps, 500)
    field = lambda gamma, state, args: (jnp.cos(3 * gamma) * state[0], state[0].sum())  # noqa: E731
    way, state = (jnp.asarray(-2.0), jnp.asarray(4.0)), (jnp.ones((1, 1, 1)), jnp.asarray(0.0))
    whole = jax.jit(lambda: integrator.solve(field, *way, state, None))()
    resume = jax.jit(lambda solve: integrator.resume(field, *way, solve, None, steps=4))
    solve = integrator.begin(field, *way, state, None)
    while integrator.is_going(solve):
        solve = resume(solve)
    assert bool(solve.finished)
    assert int(solve.steps) == int(whole.steps) > 8
    np.testing.assert_allclose(solve.state[0], whole.state[0], rtol=1e-12)
    np.testing.assert_allclose(solve.state[1], whole.state[1], rtol=1e-12)
