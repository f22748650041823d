# SPDX-License-Identifier: Apache-2.0
"""Commands that would report the numbers of components that lie end with exit code 4 and the reason."""

import re
from pathlib import Path

LYING = ("--plugin", str(Path(__file__).with_name("lying.py")))


def test_a_run_of_a_component_that_lies_is_refused(program, tiny):
    """A refused run would leave a folder, or exit as if its number were good."""
    result = program("run", tiny, "--out", "run", *LYING, "--set", "model.observation.name=fat")
    assert (result.code, result.out) == (4, "")
    assert "no number of this model can be trusted: observation 'fat' of" in result.err
    assert not (program.cwd / "run").exists()


def test_an_ode_of_a_network_that_stops_its_gradient_is_refused(program, tiny):
    """Another divergence than the model's would be integrated, and called a likelihood."""
    chosen = ("--set", "model.network.name=stopped_network", "--set", "model.prediction.name=eps")
    trained = program("run", tiny, "--out", "run", *LYING, *chosen)
    assert trained.code == 0, trained.err  # its bound is right: nothing differentiates the network
    result = program("likelihood", "--ckpt", "run", "--estimator", "ode")
    assert (result.code, result.out) == (4, "")
    assert re.search("network 'stopped_network' of .*lying.py: the derivative of eps_hat by the network", result.err)


def test_test_images_that_change_from_process_to_process_are_refused(processes, tiny):
    """Whoever runs commands until the images suit the model would choose the number."""
    trained = processes("run", tiny, "--out", "run", *LYING, "--set", "data={name='of_process'}")
    assert trained.code == 0, trained.err
    refused = processes.together(("evaluate", "--ckpt", "run"), ("likelihood", "--ckpt", "run"))
    for result in refused:
        assert (result.code, result.out) == (4, "")
        assert re.search(
            "data 'of_process' of .*: its test images, sha256 .{12}, are not those that run/manifest.json records, "
            "sha256 .{12}, although no setting of the data was changed",
            result.err,
        )


def test_an_estimator_that_leaves_out_a_term_is_refused(program, whole):
    """A bound less its prior term would be trusted."""
    result = program("likelihood", "--ckpt", str(whole), *LYING, "--estimator", "without_prior")
    assert (result.code, result.out) == (4, "")
    assert re.search("estimator 'without_prior' of .*: .* it does not bound -log P", result.err)
