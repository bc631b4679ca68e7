"""The audit: one JSON line for each image request, in a file that only its owner can read.

A line has no image, and no position, emotion or score of a face.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.core.errors import SettingsError, reason_of
from service.core.manifest import Manifest
from service.core.seen import Seen, SeenGroup
from service.telemetry.lines import Lines
from service.telemetry.logs import log


@dataclass(frozen=True, slots=True)
class AuditTotals:
    """Totals of one request. problems: images without a result; seconds: by stage."""

    images: int = 0
    problems: int = 0
    faces: int = 0
    verdicts: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, results: Iterable[Seen | SeenGroup | None], seconds: Mapping[str, float]) -> AuditTotals:
        """results: one for each image, None if it has a problem."""
        images = problems = faces = 0
        verdicts: Counter[str] = Counter()
        for result in results:
            if result is None:
                problems += 1
                continue
            images += 1
            faces += result.face_count
            verdicts.update(result.verdicts)
        return cls(images, problems, faces, verdicts, seconds)


class Audit:
    """Writes from its own thread: a full or hanging disk delays no request.

    declared: fields of the declaration, for every line; lost: called for each lost line.
    Raises `SettingsError` when the file cannot be opened.
    """

    def __init__(
        self, path: Path, declared: Mapping[str, Any], models: Sequence[Manifest], lost: Callable[[], object]
    ) -> None:
        self._same: dict[str, Any] = {
            "models": [
                {"name": model.name, "version": model.version, "sha256": model.sha256} for model in models
            ],
            **declared,
        }
        try:
            self._lines = Lines(AuditFile(path).write, "audit", lost)
        except OSError as error:
            raise SettingsError(
                f"EXPRESSNET_AUDIT_FILE={path} cannot be used: {reason_of(error)}."
            ) from error

    def write(
        self,
        route: str,
        request_id: str,
        key: str | None,
        status: int,
        duration_s: float,
        totals: AuditTotals,
    ) -> None:
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": request_id,
            "key": key,
            "route": route,
            "status": status,
            **self._same,
            "images": totals.images,
            "problems": totals.problems,
            "faces": totals.faces,
            "verdicts": dict(totals.verdicts),
            "timings_ms": {name: round(1e3 * s, 1) for name, s in totals.seconds.items()}
            | {"total": round(1e3 * duration_s, 1)},
        }
        self._lines.put(json.dumps(line))

    def flush(self) -> None:
        self._lines.flush()


class AuditFile:
    """Appends only. When the file was moved away, as logrotate does, a new file is made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = self._open()
        self._torn = self._failing = False

    def write(self, line: str) -> None:
        """Append a line. Raises `OSError` if only a part was written; the next write then ends this part."""
        try:
            self._follow()
            data = b"\n" * self._torn + line.encode()
            while data:
                written = os.write(self._descriptor, data)
                data = data[written:]
                self._torn = bool(data)
        except OSError as error:
            if not self._failing:
                log.error("audit file cannot be written", error=error.strerror)
            self._failing = True
            raise
        if self._failing:
            log.info("audit file is written again")
        self._failing = False

    def _open(self) -> int:
        # The mode is for new files only: an existing file keeps its own.
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _follow(self) -> None:
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            there = None
        here = os.fstat(self._descriptor)
        if there is None or (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
            moved, self._descriptor = self._descriptor, self._open()
            self._torn = False
            os.close(moved)
