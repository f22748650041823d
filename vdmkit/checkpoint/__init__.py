# SPDX-License-Identifier: Apache-2.0
"""Writing and reading of checkpoints."""

from absl import logging

from vdmkit.checkpoint._checksums import check_unchanged, sha256_of_arrays, what_is_damaged
from vdmkit.checkpoint._read import Restored, read_chosen, read_newest, read_step, steps_in
from vdmkit.checkpoint._store import CheckpointStore

# Orbax logs tracebacks of errors for which vdmkit has its own messages.
logging.get_absl_logger().addFilter(lambda record: "orbax" not in record.pathname)

__all__ = [
    "CheckpointStore",
    "Restored",
    "check_unchanged",
    "read_chosen",
    "read_newest",
    "read_step",
    "sha256_of_arrays",
    "steps_in",
    "what_is_damaged",
]
