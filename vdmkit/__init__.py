# SPDX-License-Identifier: Apache-2.0
"""vdmkit: variational diffusion models whose every number is right. Importing it loads no JAX."""

from vdmkit.errors import VdmkitError
from vdmkit.registry import register

__version__ = "0.1.0"
__all__ = ["VdmkitError", "__version__", "register"]
