# SPDX-License-Identifier: Apache-2.0
"""The authors' network with 64 channels, which depends on gamma; see networks/README.md.

The networks with 32 channels do not: with one channel a group, group norm removes what the conditioning path adds.

In float64 the largest difference was 3e-14. In float32 the README allows 2e-5 for an output and 1e-4 for a gradient;
kernels whose dot product has 36,864 terms are compared in float64 only.
`relative_error` is |found - expected| / |expected| in the Euclidean norm.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from vdmkit.importers.vdm import official_parameters
from vdmkit.likelihood.ode import _field
from vdmkit.losses import prior_loss

EXACT = 1e-9
CONDITIONING = ("dense0/", "dense1/", "cond_proj/")


def relative_error(found, expected) -> float:
    return float(np.linalg.norm(np.asarray(found, np.float64) - expected) / np.linalg.norm(expected))


def is_of_conditioning(name: str) -> bool:
    return any(part in name for part in CONDITIONING)


@pytest.fixture(params=[pytest.param(False, marks=pytest.mark.costly), True], ids=["float32", "float64"])
def precision(request):
    """Sets a precision. Returns the suffix of its reference arrays, and the tolerances of outputs and gradients."""
    with jax.enable_x64(request.param):
        yield ("_f64", EXACT, EXACT) if request.param else ("", 2e-5, 1e-4)


@pytest.mark.costly
def test_output_and_estimate(unet, precision):
    """The output F of the network and eps_hat equal the authors'."""
    suffix, tolerance, _ = precision
    gamma, conditioning, z = unet.inputs()
    out = eqx.filter_jit(unet.out)(unet.network(), gamma, conditioning, z)
    assert relative_error(out, unet.golden["out" + suffix]) < tolerance
    assert relative_error(unet.eps_hat(out, gamma, z), unet.golden["eps_hat" + suffix]) < tolerance


@pytest.mark.costly
def test_gradients(unet, precision):
    """The gradients of every parameter and of z equal the authors'.

    The key bias cancels in the softmax, so its gradient is zero up to the rounding of the other gradients.
    """
    suffix, _, tolerance = precision
    found, golden = _gradients(unet), unet.golden
    assert relative_error(found.pop("z"), golden["grad_x_f64"]) < tolerance
    expected = {str(name): i for i, name in enumerate(golden["all_grad_names"])}
    assert found.keys() == expected.keys()
    total = np.linalg.norm(golden["all_grad_norm_f64"])
    rounding = 2 * float(jnp.finfo(float).eps) * total
    for name, i in expected.items():
        if not suffix and not is_of_conditioning(name):
            continue
        values, norm, dot = (found[name], golden["all_grad_norm_f64"][i], golden["all_grad_dot_f64"][i])
        assert abs(np.linalg.norm(values) - norm) <= tolerance * norm + rounding, name
        assert abs(values.ravel() @ np.cos(np.arange(values.size)) - dot) <= tolerance * norm + rounding, name


def _gradients(unet) -> dict[str, np.ndarray]:
    """Returns the gradients of mean(F R) by the authors' parameter paths, and with respect to z."""
    gamma, conditioning, z = unet.inputs()
    cotangent = jnp.asarray(unet.golden["cotangent"], float)

    @eqx.filter_jit
    @eqx.filter_grad
    def of(parts):
        return (unet.out(parts["network"], gamma, conditioning, parts["z"]) * cotangent).mean()

    gradient = of({"network": unet.network(), "z": z})
    return {name: np.asarray(leaf, np.float64) for name, leaf in official_parameters(gradient).items()}


def test_the_reference_sees_the_conditioning(unet):
    """The reference depends on the conditioning, so the two tests above cover that path."""
    golden, (gamma, conditioning, z) = unet.golden, unet.inputs()
    other = eqx.filter_jit(unet.out)(unet.network(), gamma[::-1], conditioning, z)
    assert relative_error(other, golden["out"]) > 1e-2
    norms = dict(zip(map(str, golden["all_grad_names"]), golden["all_grad_norm_f64"], strict=True))
    path = [norm for name, norm in norms.items() if is_of_conditioning(name)]
    assert len(path) == 4 + 2 * unet.config["sm_n_layer"] + 3  # two dense layers, and one block each way and three
    assert min(path) > 1e-3 * max(norms.values())


def unread():
    """Placeholder for an estimate, which VDM's decoder does not use."""
    raise AssertionError


def kl_from_standard_normal(model, x):
    """Returns KL(q(z_1 | x) || N(0, I)) in nats."""
    gamma_1 = model.schedule(jnp.ones(()))
    mean, variance = model.path.alpha(gamma_1) * x, model.path.sigma(gamma_1) ** 2
    return (mean**2 + variance - jnp.log(variance) - 1).sum() / 2


@pytest.mark.costly
def test_losses_and_drift(unet, precision):
    """The bound of an imported i-DODE, its importance sampling in time and its ODE equal the authors'.

    They divide z_0 by alpha_0 before they decode it, although it has been divided already. Their prior is N(0, I) on
    the straight line too, where ours has the variance alpha_1^2 + sigma_1^2 of noise and data.
    """
    suffix, tolerance, _ = precision
    golden, model, is_vp = unet.golden, unet.model(), unet.config["schedule"] == "VP"
    if "loss_klz" not in golden:
        pytest.skip("the folder has no losses")

    @eqx.filter_jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def found(model, given):
        told = model.given({"augmented": given["conditioning"]})
        x, gamma_0 = model.observation.encode(given["images"]), model.schedule(jnp.zeros(()))

        def error(gamma):
            z = model.path.alpha(gamma) * x + model.path.sigma(gamma) * given["eps"]
            return ((given["eps"] - told.denoise(z, gamma, {}).eps_hat) ** 2).sum() / 2

        z_0 = (x + jnp.exp(gamma_0 / 2) * given["eps_0"]) / model.path.alpha(gamma_0)
        drift, _ = _field(given["g_t"], (given["z"], jnp.zeros(())), (told, jnp.ones((1, *x.shape))))
        of_importance = given["importance_g_t" + suffix]
        return {
            "ode_drift": drift,
            "loss_recon": -model.observation.log_prob(given["images"], z_0, gamma_0, unread),
            "loss_klz": prior_loss(model, x) if is_vp else kl_from_standard_normal(model, x),
            "loss_diff_uniform": (model.schedule(jnp.ones(())) - gamma_0) * error(model.schedule(given["t" + suffix])),
            "loss_diff_importance": error(of_importance) / model.path.alpha(of_importance) ** 2,
        }

    names = ("conditioning", "eps", "eps_0", "g_t", "z", "t" + suffix, "importance_g_t" + suffix)
    given = {name: jnp.asarray(golden[name], float) for name in names}
    terms = found(model, given | {"images": jnp.asarray(golden["images"])})
    terms["loss_diff_importance"] *= golden["importance_Z" + suffix]
    for name, one in terms.items():
        if name + suffix in golden:
            assert relative_error(one, golden[name + suffix]) < tolerance, name


@pytest.mark.costly
@pytest.mark.parametrize("precision", [True], ids=["float64"], indirect=True)
@pytest.mark.usefixtures("precision")
def test_likelihood(unet):
    """The likelihood by the ODE of an imported i-DODE equals the authors'.

    With their solver, scipy's for both images at once, it takes as many evaluations and only rounding is left. Their
    prior is N(0, sigma_1^2 I), and they do not divide the sum of the weights of two draws by two.
    """
    if "ode_bpd_k2_f64" not in unet.golden:
        pytest.skip("the folder has no likelihoods")
    golden, path = unet.golden, unet.model().path
    gamma_0, gamma_1 = (jnp.asarray(unet.config[name], float) for name in ("gamma_min", "gamma_max"))
    alpha, sigma = float(path.alpha(gamma_0)), float(path.sigma(gamma_0))
    field, x = _flow_of_images(unet)
    d = x[0].size
    log_weights = []
    for noise, calls in zip(golden["ode_z_eps"][:2].astype(float), golden["ode_nfe_f64"], strict=True):
        start = np.append(alpha * x + sigma * noise, np.zeros(len(x)))
        solved = integrate.solve_ivp(field, (gamma_0, gamma_1), start, rtol=1e-7, atol=1e-7)
        assert solved.nfev == calls
        z_1, volume = np.split(solved.y[:, -1], [x.size])
        log_p = stats.norm.logpdf(z_1.reshape(len(x), d), scale=path.sigma(gamma_1)).sum(1) + volume
        mass = special.erf(alpha / sigma / 256 / 2**0.5)
        log_weights.append(log_p - stats.norm.logpdf(noise).sum((1, 2, 3)) + d * np.log(sigma * mass))
    bits = -special.logsumexp(log_weights, axis=0) / np.log(2) / d
    np.testing.assert_allclose(bits, golden["ode_bpd_k2_f64"], rtol=EXACT)


def _flow_of_images(unet):
    """Returns the flow of all images and their volumes as one vector, and the encoded images.

    The reference omits the first layer's derivative with respect to Fourier features, see its README.
    """
    golden, model = unet.golden, unet.model()
    if unet.config["with_fourier_features"]:
        of_image = (jnp.arange(model.network.conv_in.kernel.shape[2]) < 3)[:, None]
        model = eqx.tree_at(lambda model: model.network.conv_in.kernel, model, replace_fn=lambda k: k * of_image)
    x = jax.vmap(model.observation.encode)(jnp.asarray(golden["images"]))
    conditioning = jnp.asarray(golden["conditioning"], float)
    probes = 2 * jnp.asarray(golden["ode_probe"], float) - 1

    @jax.jit
    def field(gamma, z_and_volume):
        def one(z, conditioning, probe):
            told = model.given({"augmented": conditioning})
            dz, mean_divergence = _field(gamma, (z, jnp.zeros(())), (told, probe[None]))
            return dz, z.size * (mean_divergence + jax.grad(model.path.log_alpha)(gamma))

        dz, divergence = jax.vmap(one)(z_and_volume[: x.size].reshape(x.shape), conditioning, probes)
        return jnp.append(dz, divergence)

    return field, np.asarray(x)
