# SPDX-License-Identifier: Apache-2.0
"""Names that commands had in older versions."""

import pytest

RENAMED = [
    (("score", "--ckpt", "run"), "No such command 'score'. It is now called 'quality'."),
    (("schedule", "--help"), "No such command 'schedule'. It is now called 'study'."),
]


@pytest.mark.parametrize(("arguments", "message"), RENAMED, ids=lambda value: " ".join(value[:1]))
def test_an_old_name_is_refused_with_the_new_one(run, arguments, message):
    """False if a script for an older version had to be mended by trial, or did something else than it did."""
    refused = run(*arguments)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.splitlines()[-1] == f"Error: {message}"
