# SPDX-License-Identifier: Apache-2.0
"""Limits of float32 that recipes and estimators share. Importing this loads no JAX."""

# Beyond 10,000 steps gamma_t - gamma_s is lost in float32, and the bound with it (T = 1e7: 0.12 bpd too low).
MAX_STEPS = 10_000
