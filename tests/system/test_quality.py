# SPDX-License-Identifier: Apache-2.0
"""`vdmkit quality`: samples beside real images, by features that are named as what they are."""

import json


def test_scores(program, whole):
    """A distance would be called FID, come without what real images score, or change from call to call."""
    quality = ("quality", "--ckpt", str(whole), "-n", "12")
    text, facts = program(*quality), program(*quality, "--json")
    assert text.code == facts.code == 0, text.err + facts.err
    found = json.loads(facts.out)
    assert list(found["distance"]) == list(found["distance_of_real"]) == ["pixels", "patches", "random"]
    assert all(value >= 0 for value in (*found["distance"].values(), *found["distance_of_real"].values()))
    for kind in found["distance"]:
        assert f"{found['distance'][kind]:.4f} ({found['distance_of_real'][kind]:.4f})" in text.out
        assert 0 <= found["neighbours"][kind]["recall"] <= 1
    assert text.out.splitlines()[-1] == "These features are not Inception's, so these distances are not FID."


def test_more_than_there_are(program, whole):
    """A sample would be compared with images that there are not."""
    refused = program("quality", "--ckpt", str(whole), "-n", "21")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err == "-n 21: at most 20, the size of the test set.\n"
