"""Lines that arrive together are one write, in their order. After a flush no line waits."""

from __future__ import annotations

import threading

from service.telemetry.lines import Lines


def test_lines_that_arrive_together_are_one_write() -> None:
    written: list[str] = []
    lines = Lines(written.append, "test", gather_s=0.2)
    for line in ("one", "two", "three"):
        lines.put(line)
    lines.flush()
    assert written == ["one\ntwo\nthree\n"]
    lines.put("four")
    lines.flush()
    assert written[1:] == ["four\n"]


def test_without_gathering_each_line_is_a_write() -> None:
    written: list[str] = []
    lines = Lines(written.append, "test")
    lines.put("one")
    lines.put("two")
    lines.flush()
    assert written == ["one\n", "two\n"]


def test_each_line_of_a_failed_write_is_reported_as_lost() -> None:
    lost = threading.Semaphore(0)

    def full(text: str) -> None:
        raise OSError("no space left on device")

    lines = Lines(full, "test", lost.release, gather_s=0.2)
    lines.put("one")
    lines.put("two")
    lines.flush()
    assert lost.acquire(blocking=False)
    assert lost.acquire(blocking=False)
    assert not lost.acquire(blocking=False)
