# SPDX-License-Identifier: Apache-2.0
"""The first Ctrl-C requests a stop, and the second one interrupts."""

import signal

import pytest

from vdmkit.training.loop import stop_requests


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_request_and_a_second_one_an_order(number):
    """The first signal requests a stop after the update, and the second one stops at once."""
    before = signal.getsignal(number)
    with stop_requests(9) as stopping:
        assert not stopping(1)
        signal.raise_signal(number)
        assert stopping(1)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before, "after training Ctrl-C is Python's again"
