# SPDX-License-Identifier: Apache-2.0
"""A Markdown extension: equations between dollar signs, which become MathML, so that pages need no script."""

import re
from xml.etree import ElementTree

from latex2mathml.converter import convert
from markdown import Extension, Markdown
from markdown.blockprocessors import BlockProcessor
from markdown.inlinepatterns import InlineProcessor


class _Inline(InlineProcessor):
    """$x$ within a line."""

    def handleMatch(self, m, data):  # noqa: N802
        return self.md.htmlStash.store(convert(m[1])), m.start(0), m.end(0)


class _Display(BlockProcessor):
    """$$ x $$, a block of its own."""

    _DELIMITED = re.compile(r"\s*\$\$(.+)\$\$\s*$", re.DOTALL)

    def test(self, parent, block):
        return self._DELIMITED.match(block) is not None

    def run(self, parent, blocks):
        found = self._DELIMITED.match(blocks.pop(0))
        assert found
        box = ElementTree.SubElement(parent, "div", {"class": "equation"})
        box.text = self.parser.md.htmlStash.store(convert(found[1].strip(), display="block"))


class Mathematics(Extension):
    """Both kinds of equations."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        md.parser.blockprocessors.register(_Display(md.parser), "equation", 90)
        md.inlinePatterns.register(_Inline(r"(?<![\\$])\$([^$\n]+)\$", md), "equation", 185)


def makeExtension(**settings):  # noqa: N802
    """Returns the extension; Markdown calls this by its name."""
    return Mathematics(**settings)
