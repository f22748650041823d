# SPDX-License-Identifier: Apache-2.0
"""Several devices train the same model as one."""

import numpy as np

FOUR = "--xla_force_host_platform_device_count=4"


# Times that learn are left out: by rounding, a draw may count for the next bin, and then more than rounding follows.
EVEN = ("--set", "objective.time_sampler=low_discrepancy")


def test_four_devices_train_the_model_of_one(processes, tiny, arrays):
    """Each device would see the same images, or weigh its gradient otherwise than by its share of the batch."""
    for name, flags in (("one", ""), ("four", FOUR)):
        result = processes("run", tiny, "--out", name, *EVEN, flags=flags)
        assert result.code == 0, result.err
    one, four = (arrays(processes.cwd / name) for name in ("one", "four"))
    assert one.keys() == four.keys()
    for name, array in one.items():
        # Sums over the batch in another order: 1e-7 relative in a gradient. Adam divides it by its own size, so an
        # update of at most learning_rate = 1e-2 carries the relative error of the gradient's smallest entries, up
        # to 1e-4 or so; 12 updates: 1e-5 absolute.
        np.testing.assert_allclose(four[name], array, rtol=1e-4, atol=2e-5, err_msg=name)


def test_devices_that_cannot_share_a_batch(processes, tiny):
    """A batch that does not divide would end in JAX's traceback."""
    result = processes("run", tiny, "--out", "run", flags=FOUR.replace("4", "3"))
    assert (result.code, result.out) == (1, "")
    expected = "training.batch_size = 8 does not divide over 3 devices. Choose a multiple of 3."
    assert result.err.splitlines()[-1] == expected
