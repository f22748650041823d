# SPDX-License-Identifier: Apache-2.0
"""Failing writes, as on a full disk: the error gives the file and advice, whatever is written."""

import errno
import gc
import itertools
import json
import resource
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from vdmkit.errors import words_of
from vdmkit.io import (
    are_intact,
    check_seal,
    check_sealed_text,
    read_sealed_line,
    seal_of,
    sealed_line,
    sealed_text,
    whole_file,
    whole_folder,
    write_json,
    write_results,
)
from vdmkit.progress import Kept
from vdmkit.report import line_chart, write_png
from vdmkit.report.metrics import MetricLog

MOST = 8192  # bytes of a file
NOISE = np.random.default_rng(0).integers(0, 256, (100, 100, 3)).astype(np.uint8)


@contextmanager
def little_room() -> Iterator[None]:
    """Limits files to 8192 bytes: a larger write fails as on a full disk, without a file name in the error."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def _array(folder: Path) -> None:
    with whole_file(folder / "a") as part, part.open("wb") as file:
        np.save(file, NOISE)


def _kept(folder: Path) -> None:
    Kept(folder).write(7, {"a": np.zeros(MOST)})


def _metrics(folder: Path) -> None:
    with closing(MetricLog(folder, step=0)) as log:
        log.scalars(1, {f"metric/{i}": i / 7 for i in range(1000)})


def _events(folder: Path) -> None:
    with closing(MetricLog(folder, step=0)) as log:
        log.picture(1, "samples", NOISE)


def _folder(folder: Path) -> None:
    with whole_folder(folder / "a") as part:
        (part / "inside").write_bytes(NOISE.tobytes())


WRITERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "json": (lambda folder: write_json(folder / "a", {"b": "c" * MOST}), "a"),
    "npy": (_array, "a"),
    "npz": (_kept, "7.npz"),
    "png": (lambda folder: write_png(NOISE, folder / "a"), "a"),
    "chart": (lambda folder: line_chart(folder / "a", {"b": ([1, 2], [3, 4])}, x="", y="", title=""), "a.svg"),
    "metrics": (_metrics, "metrics.jsonl"),
    "events": (_events, "tensorboard/events.out.tfevents"),
    "folder": (_folder, "a"),
}


@pytest.mark.costly
@pytest.mark.parametrize("name", WRITERS)
def test_a_write_that_fails_names_its_file(tmp_path: Path, name: str, capfd: pytest.CaptureFixture) -> None:
    """The error for a full disk gives the path and advice, without a traceback."""
    write, file = WRITERS[name]
    with pytest.raises(OSError, match=r"File too large|written in part only") as failed, little_room():
        write(tmp_path)
    words = words_of(failed.value)
    assert words.startswith(str(tmp_path / file))
    assert words.endswith("Free space there, and run the same command again.")
    del failed
    gc.collect()
    assert capfd.readouterr() == ("", "")


def test_a_file_that_may_not_be_written(tmp_path: Path) -> None:
    """The error for a file that may not be written gives its path, not that of the temporary file."""
    with pytest.raises(PermissionError) as failed, whole_file(tmp_path / "a") as part:
        raise OSError(errno.EACCES, "Permission denied", str(part))
    expected = f"{tmp_path / 'a'}: Permission denied. Change its permissions, or choose another place."
    assert words_of(failed.value) == expected


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    """Writing to the path of a device is refused, and the device is left in place."""
    path = tmp_path / "null"
    path.symlink_to("/dev/null")
    with pytest.raises(FileExistsError, match="a device, where a file is expected"), whole_file(path):
        pass
    assert path.is_char_device()


def test_a_changed_bit_of_results_is_noticed(tmp_path: Path) -> None:
    """Flipping any bit of a results file is detected, unless the parsed values are the same."""
    write_results(tmp_path / "a", {"bpd": 1.5, "terms": {"prior": 2}})
    data, found = (tmp_path / "a").read_bytes(), 0
    for place, bit in itertools.product(range(len(data)), range(8)):
        changed = bytearray(data)
        changed[place] ^= 1 << bit
        with suppress(ValueError):
            facts = json.loads(bytes(changed))
            found += 1
            assert facts == json.loads(data) or not are_intact(facts)
    assert found > 100
    assert are_intact(json.loads(data))
    assert are_intact({"bpd": 1.5}), "as older versions wrote it"


def test_a_changed_bit_of_a_line_is_noticed() -> None:
    """Flipping any bit of a line of metrics is detected."""
    values = {"step": 12, "train/bpd": 4.0625}
    data, found = sealed_line(values).encode(), 0
    assert read_sealed_line(data.decode()) == values
    assert read_sealed_line('{"step": 12}\n') == {"step": 12}, "as older versions wrote it"
    for place, bit in itertools.product(range(len(data)), range(8)):
        changed = bytearray(data)
        changed[place] ^= 1 << bit
        read = read_sealed_line(changed.decode(errors="replace"))
        assert read in (None, values)
        found += read is None
    assert found > 7 * len(data)


def test_a_changed_bit_of_a_seal_is_noticed() -> None:
    """Flipping any bit of a manifest is detected; a manifest without a checksum is accepted."""
    facts = {"shape": [8, 8, 1], "run": "a"}
    text, found = json.dumps({**facts, "sha256": seal_of(facts)}), 0
    check_seal(json.loads(text))
    check_seal(facts)
    for place, bit in itertools.product(range(len(text)), range(7)):
        with suppress(json.JSONDecodeError):
            changed = json.loads(text[:place] + chr(ord(text[place]) ^ 1 << bit) + text[place + 1 :])
            with pytest.raises(ValueError, match="not those that were written"):
                check_seal(changed)
            found += 1
    assert found > len(text)


def test_a_changed_bit_of_a_component_s_file_is_noticed(tmp_path: Path) -> None:
    """Flipping any bit of a component's file is detected; files without a checksum are accepted."""
    text = 'name = "gammas"\ngammas = [\n    -6.0,\n    5.0,\n]\n'
    sealed, found = sealed_text(text), 0
    check_sealed_text(sealed)
    check_sealed_text(text)
    for place, bit in itertools.product(range(len(sealed)), range(7)):
        changed = sealed[:place] + chr(ord(sealed[place]) ^ 1 << bit) + sealed[place + 1 :]
        with suppress(ValueError):
            assert tomllib.loads(changed) == tomllib.loads(text) or check_sealed_text(changed)
            continue
        found += 1
    assert found > 6 * len(text)
    for end in range(len(sealed) - len(text), len(sealed)):
        with pytest.raises(ValueError, match="not as it was written"):
            check_sealed_text(sealed[:end])
