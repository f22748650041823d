# SPDX-License-Identifier: Apache-2.0
"""`line_map` gives the line of every key of a TOML text."""

import tomllib

import pytest

from vdmkit.recipes.document import line_map

# `@...` in a comment names the dotted key whose line this is.
TEXT = '''\
# a comment
seed = 1 # @seed


[data] # @data
name = "x" # @data.name
text = """
two
lines"""
list = [ # @data.list
  1, # one

  2,
]
after = 1 # @data.after

[model.schedule] # @model.schedule
inline = {a = 1, b = [1, 2]} # @model.schedule.inline
dotted.x = 3 # @model.schedule.dotted.x
dotted . y = 4 # @model.schedule.dotted.y
"quoted.key" = 1 # @model.schedule.quoted.key

# out of order
[model] # @model
z = 1 # @model.z
[[augmentations]] # @augmentations @augmentations.0
name = "a" # @augmentations.0.name

[[augmentations]] # @augmentations.1
[augmentations.sub] # @augmentations.1.sub
k = 1 # @augmentations.1.sub.k
  [model.path] # @model.path
  name = "vp" # @model.path.name'''


def test_every_key_has_its_line():
    """`line_map` gives the line of every key."""
    tomllib.loads(TEXT)  # the example itself is valid
    expected = {
        mark: number for number, line in enumerate(TEXT.split("\n"), start=1) for mark in line.split(" @")[1:]
    } | {"data.text": 7}
    assert {".".join(map(str, keys)): line for keys, line in line_map(TEXT).items()} == expected


@pytest.mark.parametrize("text", ["", "\n", "# only a comment", "a = 1", "[a]", "[a]\n[b]\n"])
def test_short_texts(text):
    """Files without keys or without a final newline are accepted."""
    assert all(1 <= line <= text.count("\n") + 1 for line in line_map(text).values())
