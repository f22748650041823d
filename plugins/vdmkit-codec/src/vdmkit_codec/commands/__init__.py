# SPDX-License-Identifier: Apache-2.0
"""The commands that the package brings to `vdmkit`, one file each. Importing them loads no JAX."""

from vdmkit.cli import stoppable
from vdmkit_codec.commands import _compress, _decompress, _inspect

compress = stoppable(_compress.compress, "Chunks that were done are kept: to go on, add --resume to the same command.")
decompress = stoppable(_decompress.decompress, "No images were written. Run the same command again to begin anew.")
inspect = stoppable(_inspect.inspect)

__all__ = ["compress", "decompress", "inspect"]
