# SPDX-License-Identifier: Apache-2.0
"""The table, JSON and exit code of `vdmkit likelihood --audit`."""

import json
import math

import pytest

from vdmkit.cli.measuring import _audit
from vdmkit.errors import UntrustedError
from vdmkit.likelihood.consistency import Check

KNOWN = Check("the ODE against the bound", -0.02, 0.01, -math.inf, 0.0)
UNKNOWN = Check("importance against the bound", -0.02, 0.5, -1.0, 0.0)
WRONG = Check("probabilities of a pixel above 1", 0.2, 0.0, 0.0, 0.0)


@pytest.fixture
def checks(monkeypatch):
    """The checks that the audit returns."""
    found = [KNOWN, UNKNOWN]
    monkeypatch.setattr("vdmkit.experiments.measure.audit", lambda run, test: found)
    return found


@pytest.mark.usefixtures("checks")
def test_the_table_says_what_is_known(capsys):
    """The table distinguishes checks that pass from checks that are not precise enough."""
    _audit(None, None, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[3:5]] == ["passes", "not"]
    assert lines[3].endswith("-0.02000   0.01000 -inf to 0")
    assert lines[5].startswith("1 pass, 0 fail; of 1 too little is known, which more images tell: --set likelihood.im")
    assert lines[6].startswith("measured in float32, matmul precision highest")


def test_one_that_fails_decides_the_exit_code(checks, capsys):
    """A failed check gives exit code 4."""
    checks.append(WRONG)
    with pytest.raises(UntrustedError, match=r"the audit failed: 1 of 3 checks") as failed:
        _audit(None, None, as_json=False)
    assert failed.value.exit_code == 4
    assert "fails      probabilities of a pixel above 1" in capsys.readouterr().out


@pytest.mark.usefixtures("checks")
def test_json_has_every_check(capsys):
    """The JSON contains every check and has null for infinities."""
    _audit(None, None, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [check["verdict"] for check in found["checks"]] == ["passes", "precision does not suffice"]
    assert (found["checks"][0]["low"], found["matmul_precision"]) == (None, "highest")
