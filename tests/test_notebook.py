# SPDX-License-Identifier: Apache-2.0
"""HTML representations of results in notebooks."""

import re

import jax
import numpy as np

import vdmkit
from vdmkit.arguments import table


def cells(html: str) -> list[str]:
    """Returns the texts of the cells of a table, in order."""
    return re.findall(r"<td[^>]*>(.*?)</td>", html)


def test_what_is_shown_is_text():
    """Names are escaped in HTML."""
    assert table("a < b", [("<i>", "&")]) == (
        '<div><strong>a &lt; b</strong><table><tr><td style="text-align: left">&lt;i&gt;</td>'
        '<td style="text-align: left">&amp;</td></tr></table></div>'
    )


def test_a_likelihood_shows_what_its_repr_says(tiny_model):
    """The HTML of an estimate shows the number that `print` shows, with terms that sum to it."""
    images = (
        np.random.default_rng(0).integers(0, tiny_model.observation.levels, (6, *tiny_model.shape)).astype(np.uint8)
    )
    found = vdmkit.log_likelihood(tiny_model, images, key=jax.random.key(0))
    shown = found._repr_html_()
    assert f"<strong>{found.mean()} bits/dim on 6 images</strong>" in shown
    terms = [float(cell.split()[0]) for cell in cells(shown) if cell.endswith(" bits/dim")]
    np.testing.assert_allclose(sum(terms), found.mean().value, atol=2e-4)  # four decimals each
