# SPDX-License-Identifier: Apache-2.0
"""Lossless compression by vdmkit's models. Importing it does not load JAX."""
