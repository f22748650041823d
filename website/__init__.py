# SPDX-License-Identifier: Apache-2.0
"""The documentation site, which `uv run --group site python -m website` builds in build/site."""
