# SPDX-License-Identifier: Apache-2.0
"""Keeping work in flight on a device while the host reads earlier results."""

from vdmkit.devices import in_flight


def test_results_are_read_when_later_ones_are_dispatched():
    """Results are read in order, each after the next item has been dispatched."""
    events = []

    def dispatched():
        for number in range(4):
            events.append(f"dispatch {number}")
            yield number

    for number in in_flight(dispatched(), ahead=1):
        events.append(f"read {number}")
    reads = [f"read {number}" for number in range(4)]
    assert [event for event in events if event in reads] == reads
    assert events[:4] == ["dispatch 0", "dispatch 1", "read 0", "dispatch 2"]
