# SPDX-License-Identifier: Apache-2.0
"""Metrics on disk: every line is JSON, and a run that was stopped goes on without a seam."""

import errno
import json
import os
import struct

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from vdmkit.errors import CheckpointError, DamageWarning
from vdmkit.io import sealed_line, write_json
from vdmkit.report import read_metrics
from vdmkit.report.metrics import MetricLog
from vdmkit.training.health import Facts, read_troubles


def log(folder, step: int, *steps: int) -> None:
    """Open the log of a run that continues at `step`, and log `steps`."""
    metrics = MetricLog(folder, step=step)
    for each in steps:
        metrics.scalars(each, {"train/bpd": each / 2})
    metrics.close()


def lines(folder) -> list[dict]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "crc32"} for line in found]


def events(folder) -> list[Event]:
    """TensorBoard's records: length, its checksum, content, its checksum."""
    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            found.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return found


def test_a_line_a_call(tmp_path):
    """Each call writes one line of JSON."""
    log(tmp_path, 0, 10, 20)
    assert lines(tmp_path) == [{"step": 10, "train/bpd": 5.0}, {"step": 20, "train/bpd": 10.0}]


def test_lines_are_on_disk_at_once(tmp_path):
    """A line is on disk before the log is closed."""
    metrics = MetricLog(tmp_path, step=0)
    metrics.scalars(1, {"train/bpd": 2.0})
    assert len(lines(tmp_path)) == 1
    metrics.close()


def test_a_resumed_run_repeats_no_step(tmp_path):
    """Lines after the step where a run continues are dropped."""
    log(tmp_path, 0, 10, 20, 30)
    log(tmp_path, 20, 30, 40)
    assert [line["step"] for line in lines(tmp_path)] == [10, 20, 30, 40]
    log(tmp_path, 0, 10)
    assert [line["step"] for line in lines(tmp_path)] == [10]


def test_a_line_that_is_there_is_not_repeated(tmp_path):
    """Repeating a finished run adds no line that is there."""
    log(tmp_path, 0, 10)
    log(tmp_path, 10, 10, 20)
    assert [line["step"] for line in lines(tmp_path)] == [10, 20]


def test_what_a_kill_or_a_full_disk_left_is_dropped(tmp_path):
    """Truncated and malformed lines are dropped when a run continues."""
    log(tmp_path, 0, 10)
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"st\n[1]\n{}\n' + path.read_text() + '{"step": 20, "train/b')
    log(tmp_path, 20, 30)
    assert [line["step"] for line in lines(tmp_path)] == [10, 30]


def test_a_line_with_another_number_is_dropped(tmp_path):
    """A line whose checksum does not match is left out, with a warning that gives its number."""
    log(tmp_path, 0, 10, 20)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text().replace("5.0", "4.0"))
    with pytest.warns(DamageWarning, match=r"metrics\.jsonl: damaged, and left out: line 1\.$"):
        assert [values.tolist() for values in read_metrics(tmp_path)["train/bpd"]] == [[20], [10.0]]
    said = list[str]()
    MetricLog(tmp_path, step=20, say=said.append).close()
    assert said == [f"warning: {path}: damaged, and left out: line 1."]


def test_lines_survive_when_they_cannot_be_rewritten(tmp_path, monkeypatch):
    """A resume on a full disk leaves the metrics as they were."""
    log(tmp_path, 0, 10, 20)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        MetricLog(tmp_path, step=10)
    assert [line["step"] for line in lines(tmp_path)] == [10, 20]


def test_tensorboard_shows_the_same(tmp_path):
    """TensorBoard has the scalars and pictures of the log, and purges what comes after the resumed step."""
    metrics = MetricLog(tmp_path, step=7)
    metrics.scalars(8, {"train/bpd": 2.5})
    metrics.picture(9, "samples", np.zeros((4, 6, 3), np.uint8))
    metrics.close()
    values = [(event.step, value) for event in events(tmp_path) for value in event.summary.value]
    assert [(step, value.tag) for step, value in values] == [(8, "train/bpd"), (9, "samples")]
    assert values[0][1].simple_value == 2.5
    assert (values[1][1].image.height, values[1][1].image.width) == (4, 6)
    purged = [event.step for event in events(tmp_path) if event.HasField("session_log")]
    assert purged == [8], "TensorBoard drops what an earlier process logged from this step on"


def test_a_trouble_is_said_and_written(tmp_path):
    """A sign of trouble is printed, and written to health.json, metrics.jsonl and TensorBoard."""
    facts = Facts(100, 64, -8.0, 0.0, 17, 2 / 17, 0.5, None, False, None)
    said = []
    metrics = MetricLog(tmp_path, step=0, facts=facts, say=said.append)
    metrics.scalars(10, {"train/bpd": 2.0})
    metrics.close()
    (trouble,) = read_troubles(tmp_path / "health.json")
    assert said == [f"warning: step 0: {trouble.message}"]
    assert lines(tmp_path) == [{"step": 0, "health/prior": 1.0}, {"step": 10, "train/bpd": 2.0}]
    texts = [value for event in events(tmp_path) for value in event.summary.value if value.tag.startswith("health")]
    assert trouble.message.encode() in b"".join(value.tensor.SerializeToString() for value in texts)


def test_lines_that_are_missing_are_named(tmp_path):
    """Lines that the manifest counts and the file lacks are reported with their number."""
    log(tmp_path, 0, 10, 20, 30)
    write_json(tmp_path / "manifest.json", {"logged": 3})
    path = tmp_path / "metrics.jsonl"
    whole = path.read_text()
    assert len(read_metrics(tmp_path)["train/bpd"][0]) == 3
    for end, words in ((-1, "1 line missing"), (whole.index("\n") + 1, "2 lines missing"), (0, "3 lines missing")):
        path.write_text(whole[:end])
        with pytest.warns(DamageWarning, match=rf"metrics\.jsonl: {words} that the run wrote\.$"):
            read_metrics(tmp_path)
    path.unlink()
    said = list[str]()
    MetricLog(tmp_path, step=30, say=said.append).close()
    assert said == [f"warning: {path}: 3 lines missing that the run wrote."]


def test_numbers_that_no_array_holds_are_left_out(tmp_path):
    """Integers of more than 64 bits are left out."""
    values = [{"step": 1, "a": 10**400, "b": 2.0}, {"step": 10**30, "b": 1.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(map(sealed_line, values)))
    with pytest.warns(DamageWarning, match="left out: line 2"):
        found = read_metrics(tmp_path)
    assert {name: (list(steps), list(numbers)) for name, (steps, numbers) in found.items()} == {"b": ([1], [2.0])}


def test_lines_that_never_end_are_refused(tmp_path):
    """A FIFO called metrics.jsonl is refused, not waited for."""
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: a FIFO"):
        read_metrics(tmp_path)
