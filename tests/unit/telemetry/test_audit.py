"""The audit file: its mode, a moved file, a full disk, and the content of a line."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.compliance.deployment import Declaration, audited
from service.compliance.law import Purpose
from service.core.errors import SettingsError
from service.core.manifest import read_manifest
from service.core.seen import SeenGroup
from service.settings import Settings
from service.telemetry.audit import Audit, AuditFile, AuditTotals
from service.telemetry.lines import Lines
from tests.seen import FaceSeen, seen

CERTAIN, UNCERTAIN = FaceSeen(confidence=0.654321), FaceSeen(confidence=0.4, verdict="uncertain")
MODEL = read_manifest(Settings().model_repository, "expressnet_moe")


def test_a_line_has_counts_and_nothing_about_a_face(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    declared = audited(Declaration(Purpose.safety, ("us",)))
    audit = Audit(file, declared, [MODEL], lambda: None)
    results = [
        replace(seen(CERTAIN, UNCERTAIN, CERTAIN), faces_found=9),
        None,
        seen(),
    ]
    audit.write("/v1/emotions/batch", "id-1", "shop", 200, 0.0123, AuditTotals.of(results, {"detect": 0.5}))
    audit.flush()
    line = json.loads(file.read_text())
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "request_id": "id-1",
        "key": "shop",
        "route": "/v1/emotions/batch",
        "status": 200,
        "models": [{"name": MODEL.name, "version": MODEL.version, "sha256": MODEL.sha256}],
        "purpose": "safety",
        "jurisdiction": ["us"],
        "exemption": None,
        "aggregate_only": None,
        "images": 2,
        "problems": 1,
        "faces": 3,
        "verdicts": {"certain": 2, "uncertain": 1},
        "timings_ms": {"detect": 500.0, "total": 12.3},
    }


def test_groups_are_counted_as_they_were_answered() -> None:
    results = [
        SeenGroup(10, 10, 5, ("fear",), face_count=9, probabilities=np.ones(1)),
        SeenGroup(10, 10, 5, ("fear",)),
    ]
    assert AuditTotals.of(results, {}) == AuditTotals(images=2, faces=9)


def test_a_new_file_is_private_and_an_old_file_keeps_its_mode(tmp_path: Path) -> None:
    AuditFile(tmp_path / "new").write("a\n")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
    old = tmp_path / "old"
    old.write_text("before\n")
    old.chmod(0o640)
    AuditFile(old).write("a\n")
    assert old.read_text() == "before\na\n"
    assert stat.S_IMODE(old.stat().st_mode) == 0o640


def test_a_file_that_is_moved_or_emptied_is_created_or_written_again(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path)
    file.write("one\n")
    path.rename(tmp_path / "audit.jsonl.1")
    file.write("two\n")
    assert path.read_text() == "two\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (tmp_path / "audit.jsonl.1").read_text() == "one\n"
    os.truncate(path, 0)
    file.write("three\n")
    assert path.read_text() == "three\n"


def test_a_start_without_the_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "gone" / "audit.jsonl"
    with pytest.raises(SettingsError, match=r"^EXPRESSNET_AUDIT_FILE=\S+ cannot be used: no such file .*\.$"):
        Audit(folder, {}, [MODEL], lambda: None)


def test_a_full_disk_loses_lines_and_counts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is only partly written does not damage the next line."""
    path = tmp_path / "audit.jsonl"
    write, room = os.write, [4]

    def write_while_there_is_room(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "no space left on device")
        count = write(descriptor, data[: room[0]])
        room[0] -= count
        return count

    lost = threading.Semaphore(0)
    lines = Lines(AuditFile(path).write, "audit", lost.release)
    monkeypatch.setattr("service.telemetry.audit.os.write", write_while_there_is_room)
    lines.put('{"a": 1}')
    lines.put('{"b": 2}')
    assert lost.acquire(timeout=10)
    assert lost.acquire(timeout=10)
    room[0] = 1000
    lines.put('{"c": 3}')
    lines.flush()
    assert path.read_text() == '{"a"\n{"c": 3}\n'


def test_a_hanging_disk_delays_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.telemetry.lines.MAX_WAITING_LINES", 3)
    hanging, lost = threading.Event(), []
    lines = Lines(lambda line: hanging.wait(30), "audit", lambda: lost.append(1))
    for _ in range(10):
        lines.put("a")
    assert 6 <= len(lost) <= 7  # one line may already be in the hanging write
    hanging.set()
    lines.flush()
