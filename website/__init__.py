# SPDX-License-Identifier: Apache-2.0
"""Builds the documentation site into build/site: `uv run --group site python -m website`. It is not part of the wheel."""
