# SPDX-License-Identifier: Apache-2.0
"""SIGTERM and Ctrl-C stop a command whenever they arrive."""

import gc
import signal
import subprocess
import sys
import threading

import pytest

from vdmkit.cli import processes, stoppable
from vdmkit.cli.processes import hear_again
from vdmkit.conformance.checking import threads
from vdmkit.errors import Interrupted


@pytest.fixture
def heard(monkeypatch):
    """Installs the signal handling of the program in this process."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    hear_again()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_stop_during_garbage_collection_is_heard(heard, capsys):
    """A SIGTERM during JAX's garbage collection callback still stops the command."""

    def callback(phase: str, facts: dict) -> None:
        if phase == "stop":
            gc.callbacks.remove(callback)
            signal.raise_signal(signal.SIGTERM)

    gc.callbacks.append(callback)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        gc.collect()
        threading.Event().wait(60)
    assert capsys.readouterr().err == ""


def test_a_stop_that_becomes_another_error_is_heard(heard, monkeypatch):
    """A SIGTERM that surfaces as a different exception is still treated as a stop."""
    monkeypatch.setattr(processes, "_heard", threading.Event())

    def command(asked: bool) -> None:
        try:
            if asked:
                signal.raise_signal(signal.SIGTERM)
        finally:
            raise ValueError("error building the validator")

    with pytest.raises(ValueError, match="validator"):
        stoppable(command)(asked=False)
    with pytest.raises(Interrupted, match="Stopped"):
        stoppable(command)(asked=True)


def test_other_reports_are_printed(heard, monkeypatch):
    """Other unraisable exceptions are still reported."""
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    hear_again()

    class Fails:
        def __del__(self):
            raise ValueError

    Fails()
    gc.collect()
    assert [type(one.exc_value) for one in told] == [ValueError]


def test_a_stop_during_an_import_waits_for_its_end(heard, tmp_path, monkeypatch):
    """A SIGTERM during an import takes effect once the import has finished."""
    (tmp_path / "loads_slowly.py").write_text("import signal\nsignal.raise_signal(signal.SIGTERM)\nWHOLE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = []

    def command() -> None:
        import loads_slowly

        found.append(loads_slowly.WHOLE)
        threading.Event().wait(60)

    with pytest.raises(Interrupted, match=r"^Stopped\. Go on\.$"):
        stoppable(command, "Go on.")()
    assert found == [1]


DEAF = """
import hashlib, os, signal, sys, threading
from vdmkit.cli import processes
from vdmkit.cli.app import app
def doctor():
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # minutes, in C
app.command()(processes.stoppable(doctor))
processes._SECONDS = 0.1
sys.argv = ["vdmkit", "doctor"]
from vdmkit.__main__ import main
main()
"""


def test_a_command_that_does_not_hear_is_ended():
    """A SIGTERM ends a command that is busy outside of Python, for example in XLA's compiler."""
    ended = subprocess.run([sys.executable, "-c", DEAF], capture_output=True, text=True)
    words = "Stopped. What was kept until now is used when the same command is run again.\n"
    assert (ended.returncode, ended.stderr) == (3, words)


WAITS = """
import signal, sys, threading
from vdmkit.cli import processes
from vdmkit.cli.app import app
ended = threading.Event()
def doctor():
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        ended.wait()
app.command()(processes.stoppable(doctor))
processes._SECONDS = 0.1
sys.argv = ["vdmkit", "doctor"]
from vdmkit.__main__ import main
main()
"""


def test_a_command_that_hears_and_waits_is_ended():
    """A SIGTERM ends a command that is waiting for a thread."""
    assert subprocess.run([sys.executable, "-c", WAITS], capture_output=True).returncode == 3


def test_ctrl_c_waits_for_no_thread():
    """Ctrl-C does not wait for the threads of a pool."""
    ended, begun = threading.Event(), threading.Event()
    with pytest.raises(KeyboardInterrupt), threads(1) as pool:  # noqa: PT012
        pool.submit(lambda: (begun.set(), ended.wait()))
        begun.wait()
        raise KeyboardInterrupt
    assert not ended.is_set()
    ended.set()


STOPPED = """
import atexit, os, sys
from vdmkit.cli import processes
from vdmkit.cli.app import app
def doctor():
    print("begun")
    raise KeyboardInterrupt
atexit.register(os._exit, 139)  # as JAX's lowering, interrupted, crashes when Python deletes it
app.command()(processes.stoppable(doctor))
sys.argv = ["vdmkit", "doctor"]
from vdmkit.__main__ import main
main()
"""


def test_a_stopped_command_ends_before_python_does():
    """A stop while JAX lowers a model exits with code 3 and without a crash at shutdown."""
    ended = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (3, "begun\n")
    assert ended.stderr.endswith("Stopped.\n")


BEFORE = "sys.addaudithook(lambda event, given: event == 'import' and given[0] == 'vdmkit.cli.app' and stop())"
MOMENTS = {"before the command": (BEFORE, 3), "after it": ("import atexit; atexit.register(stop)", 0)}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_stop_outside_of_a_command_has_an_exit_code(moment):
    """A SIGTERM before or after the command gives a proper exit code, without a traceback."""
    hook, code = MOMENTS[moment]
    program = f"import signal, sys; stop = lambda: signal.raise_signal(signal.SIGTERM); {hook}"
    program += "; from vdmkit.__main__ import main; sys.argv = ['vdmkit', '--version']; main()"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == code, ended.stderr
    assert ended.stderr == ("Stopped before the command began.\n" if code else "")
