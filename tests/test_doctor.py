# SPDX-License-Identifier: Apache-2.0
"""`vdmkit doctor` reports what is wrong with an installation, and how to fix it."""

import json
from pathlib import Path

import jax
import pytest
import vdmkit_codec

from vdmkit.devices import missing_device
from vdmkit.experiments import doctor
from vdmkit.experiments.doctor import cache_found, devices_found, examine, plugins_found, product_found, training_found
from vdmkit.plugins import plugin_folders


@pytest.mark.costly
def test_an_installation_that_works_is_called_so(vdmkit_in, tmp_path):
    """`vdmkit doctor --json` is valid JSON and exits with 0 on a working installation."""
    result = vdmkit_in(tmp_path)("doctor", "--json")
    found = {finding["name"]: finding for finding in json.loads(result.out)}
    assert set(found) == {"software", "devices", "arithmetic", "training", "cache", "plugins"}
    assert result.code == 0, result.out
    assert jax.__version__ in found["software"]["found"]
    assert "bits/dim" in found["training"]["found"]


def test_a_gpu_that_jax_does_not_see_is_named(tmp_path, monkeypatch):
    """A GPU that JAX does not use is reported, with the reason."""
    monkeypatch.setattr(doctor, "_GPU", tmp_path)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert devices_found().advice == "There is an NVIDIA GPU that JAX does not see. Install jax[cuda12]."
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert devices_found().advice == "There is an NVIDIA GPU, and JAX_PLATFORMS=cpu hides it. Unset it."


def test_products_of_less_than_float32_are_found(monkeypatch):
    """Matrix products that are less precise than float32 are reported."""
    assert not product_found().advice
    monkeypatch.setattr(doctor, "precisely", lambda error: lambda: 1e-3)
    assert product_found().advice.startswith("Likelihoods would have this error.")


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    """A cache folder that is not writable is reported."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VDMKIT_CACHE", str(tmp_path / "file" / "cache"))
    found = cache_found()
    assert found.found == f"{tmp_path / 'file' / 'cache'} may not be written: Not a directory"
    assert found.advice.startswith("Nothing is kept between commands.")
    monkeypatch.setenv("VDMKIT_CACHE", str(tmp_path / "new"))
    assert not cache_found().advice


def test_a_plugin_that_does_not_load_is_named():
    """A plugin package that does not load is reported by name."""
    assert not plugins_found({}, []).advice
    assert plugins_found({}, ["vdmkit-x"]).advice.startswith("vdmkit-x: cannot be loaded")


def test_packages_are_named_with_their_folders():
    """Every plugin package is listed with its folder, in alphabetical order."""
    found = plugins_found(plugin_folders(), []).found.splitlines()
    assert [line.split()[0] for line in found] == sorted(line.split()[0] for line in found)
    (codec,) = [line for line in found if line.startswith("vdmkit-codec ")]
    assert codec.endswith(f" in {Path(vdmkit_codec.__file__).parent}")


def test_a_device_that_is_not_there_is_named(monkeypatch):
    """An unavailable device in JAX_PLATFORMS is reported as such."""
    monkeypatch.setenv("JAX_PLATFORMS", "nonsense")
    monkeypatch.setattr(jax, "devices", lambda: (_ for _ in ()).throw(RuntimeError("no backend")))
    words = "JAX_PLATFORMS=nonsense: JAX finds no such device (RuntimeError: no backend). Unset it"
    assert missing_device().startswith(words)
    findings = {finding.name: finding for finding in examine()}
    assert findings["devices"].advice == missing_device()
    assert set(findings) == {"software", "devices", "cache", "plugins"}


def test_a_training_that_fails_is_a_finding(monkeypatch):
    """A failure of the trial training becomes a finding, and so does a NaN loss."""

    def fails():
        raise RuntimeError("no memory\nat all")

    monkeypatch.setattr(doctor, "_losses_of_two_steps", fails)
    assert "no memory" in training_found().found
    assert training_found().advice
    monkeypatch.setattr(doctor, "_losses_of_two_steps", lambda: [1.0, float("nan")])
    assert training_found().advice == "The device computes wrong numbers."
