# SPDX-License-Identifier: Apache-2.0
"""What order the sampler has: that of its weights on even steps of sigma / alpha, the second on all other grids."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from vdmkit_ipndm import Ipndm

from vdmkit.process import VarianceExploding
from vdmkit.registry import registry
from vdmkit.sampling.sampler import no_history
from vdmkit.toy_data import GaussianMixture

PIXEL = (1, 1, 1)
MIXTURE = GaussianMixture(PIXEL, (0.4, 0.6), ((-0.8,), (0.6,)), ((0.3,), (0.2,)))
BEFORE, NOISY, CLEAN = 5.0, 2.7, 0.2  # sigma / alpha where the exact flow, the chain and both at the end are
CHAINS = np.linspace(-9, 9, 16)
FEW, MANY = 100, 400
GRIDS = {
    "even in sigma": (lambda s: s, lambda v: v),
    "even in gamma": (lambda s: 2 * np.log(s), lambda v: np.exp(v / 2)),  # that of sampling, where gamma is linear in t
}


def denoise(y, gamma):
    return MIXTURE.estimate(y, gamma, VarianceExploding())


@pytest.fixture(scope="module", autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def flow():
    """`flow(sigmas)`: where the exact flow dy = eps_hat dsigma has all chains, at each sigma / alpha; (n, chains)."""
    slope = jax.jit(jax.vmap(lambda y, s: denoise(y.reshape(PIXEL), 2 * jnp.log(s)).eps_hat.squeeze(), (0, None)))
    field = lambda s, y: np.asarray(slope(jnp.asarray(y), jnp.asarray(s)))  # noqa: E731
    solution = solve_ivp(field, (BEFORE, CLEAN), CHAINS, "DOP853", rtol=1e-13, atol=1e-13, dense_output=True)
    return lambda sigmas: solution.sol(sigmas).T


def grid(name: str, steps: int) -> np.ndarray:
    """sigma / alpha at three steps before the chain, which are as the others, and at its own: it falls."""
    there, back = GRIDS[name]
    first, last = there(NOISY), there(CLEAN)
    return back(first + (last - first) / steps * np.arange(-3, steps + 1))


def chain(sampler, sigmas: np.ndarray, flow, *, exact_start: bool) -> np.ndarray:
    """The ends of all chains; with an exact start the sampler remembers the flow at the three steps before."""
    gammas, starts = jnp.asarray(2 * np.log(sigmas)), jnp.asarray(flow(sigmas[:4]))

    @jax.jit
    @jax.vmap
    def run(y):  # (4,)
        history = no_history(PIXEL, jnp.asarray(len(sigmas) - 4))
        for i in range(3 if exact_start else 0):
            history = history.then(denoise(y[i].reshape(PIXEL), gammas[i]), gammas[i])

        def step(carried, ends):
            y, history = carried
            y, estimate = sampler.step(denoise, y, *ends, history, jnp.zeros((0, *PIXEL)))
            return (y, history.then(estimate, ends[0])), None

        (end, _), _ = jax.lax.scan(step, (y[3].reshape(PIXEL), history), (gammas[3:-1], gammas[4:]))
        return end.squeeze()

    return np.asarray(run(starts.T))


def order(sampler, name: str, flow, *, exact_start: bool = True) -> float:
    """p where the mean error at the end falls as steps^-p."""
    errors = []
    for steps in (FEW, MANY):
        sigmas = grid(name, steps)
        errors.append(abs(chain(sampler, sigmas, flow, exact_start=exact_start) - flow(sigmas[-1:])[0]).mean())
    return float(np.log(errors[0] / errors[1]) / np.log(MANY / FEW))


@pytest.mark.costly
@pytest.mark.parametrize("k", [2, 3, 4])
def test_even_steps_have_the_order_of_their_weights(flow, k: int) -> None:
    """False if a weight, or the step that they go into, were wrong: Adams and Bashforth's k weights are of order k."""
    # terms of the next order are a tenth of the error at 100 steps: 1.96, 2.99 and 4.02 were measured
    assert abs(order(Ipndm(order=k), "even in sigma", flow) - k) < 0.1


@pytest.mark.parametrize("k", [2, 4])
def test_uneven_steps_have_the_second_order(flow, k: int) -> None:
    """False if the docstring promised less, or more, than the sampler keeps on the grids that it is used on."""
    assert abs(order(Ipndm(order=k), "even in gamma", flow) - 2) < 0.05  # 2.00 for all


@pytest.mark.costly
def test_on_even_steps_it_is_lms(flow) -> None:
    """False if more than the weights told them apart: those of lms are integrals over the steps that there were."""
    ends = [
        chain(sampler, grid("even in sigma", FEW), flow, exact_start=False)
        for sampler in (Ipndm(order=4), registry("sampler").get("lms").build({}))
    ]
    np.testing.assert_allclose(*ends, rtol=1e-10)  # 100 steps, each rounded at 1e-16, of weights at 1e-13
    assert abs(order(registry("sampler").get("lms").build({}), "even in gamma", flow) - 4) < 0.1
