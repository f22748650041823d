# SPDX-License-Identifier: Apache-2.0
"""The image and the noise level of a number that is not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.data.batches import BatchSource, image_numbers
from vdmkit.errors import NonFiniteError
from vdmkit.losses.bound import Bound, NoiseLevel
from vdmkit.schedules import LearnedLinear
from vdmkit.training.loop import means
from vdmkit.training.step import FAULT, fault

FINE = np.ones(4)
NAN_OF_2 = np.array([1, 1, np.nan, 1])
INF_OF_1_AND_3 = np.array([1, -np.inf, 1, np.inf])


@pytest.mark.parametrize(
    ("prior", "reconstruction", "diffusion", "expected"),
    [
        (FINE, FINE, NAN_OF_2, (1, 2, 0.5)),
        (FINE, INF_OF_1_AND_3, FINE, (2, 1, -8)),
        (NAN_OF_2, FINE, FINE, (1, 2, 5)),
        (FINE, INF_OF_1_AND_3, NAN_OF_2, (3, 1, -8)),
    ],
)
def test_the_first_image_with_a_term_that_is_not_finite(prior, reconstruction, diffusion, expected):
    """The message would name another image, or a gamma at which nothing happened."""
    gammas = jnp.asarray([-2.0, -1.0, 0.5, 3.0])
    noise, schedule = NoiseLevel(gammas, gammas, gammas), LearnedLinear(gamma_min=-8.0, gamma_max=5.0)
    found = jax.jit(fault)(Bound(prior, reconstruction, diffusion), noise, schedule)
    assert [float(found[name]) for name in FAULT] == list(expected)


def test_a_batch_without_fault(tiny_model):
    """Every step would be called faulty."""
    noise = NoiseLevel(jnp.zeros(4), jnp.ones(4), jnp.zeros(4))
    assert float(fault(Bound(FINE, FINE, FINE), noise, tiny_model.schedule)["faulty"]) == 0


def test_an_image_has_the_number_by_which_its_batch_has_it(tiny_images):
    """The user would look at another image than the one that broke the training."""
    source = BatchSource(tiny_images, (), 5, 3, 0, 1)
    for step in (0, 2, 7):  # 12 images: the third batch holds the end of an epoch
        numbers = [image_numbers(step, slice(row, row + 1), batch_size=5, count=12, seed=3)[0] for row in range(5)]
        np.testing.assert_array_equal(tiny_images.pixels[numbers], source[step]["image"])


def test_the_message_says_where():
    """A term that is not finite could not be traced to an image."""
    bad = {"bpd": [1.0, np.nan], "diffusion": [1.0, np.nan], "gradient": [1.0, np.nan]}
    bad |= {"faulty": [0.0, 3.0], "faulty_row": [0.0, 2.0], "faulty_gamma": [0.0, -1.25]}
    metrics = [{name: jnp.asarray(values) for name, values in bad.items()}]
    where = "step 10, in training image 1002 and 2 others of the batch, at gamma = -1.25."
    with pytest.raises(NonFiniteError, match=f"the diffusion term was not finite at {where}"):
        means(metrics, 10, lambda step, row: 100 * step + row)
