"""Structured logs: one JSON object or readable line per event, with the request's id.

Never an image byte, never a probability of a person.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Literal, TextIO

import structlog

from service.telemetry.lines import Lines

GATHER_S = 0.02

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("service")


class Writer(logging.Handler):
    """Writes from a thread of its own; lines that find it far behind, or a full disk, are dropped."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._lines = Lines(_writing(stream), "log", gather_s=GATHER_S)

    def emit(self, record: logging.LogRecord) -> None:
        self.put(self.format(record))

    def put(self, line: str) -> None:
        self._lines.put(line)

    def flush(self) -> None:
        self._lines.flush()


class _Events:
    """What structlog hands its lines to. A record of the standard library would cost as much again."""

    def __init__(self, name: str, writer: Writer) -> None:
        self.name = name
        self.debug = self.info = self.warning = self.error = self.critical = writer.put


def _writing(stream: TextIO) -> Callable[[str], object]:
    """Around the stream's own buffer: a thread that stands still in it would hold its lock at the end."""
    try:
        descriptor = stream.fileno()
    except OSError:
        return stream.write  # not a file, as in a test

    def write(line: str) -> None:
        data = line.encode(errors="backslashreplace")
        while data:
            data = data[os.write(descriptor, data) :]

    return write


def configure_logs(level: str, format: Literal["json", "text"]) -> None:
    """Send structlog's events and the standard library's records, uvicorn's among them, to stderr alike."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    ending: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if format == "json"
        # The default prints local variables, images and probabilities among them, when rich is installed.
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    handler = Writer(sys.stderr)
    minimum = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, *ending],
        logger_factory=lambda name: _Events(name, handler),
        wrapper_class=structlog.make_filtering_bound_logger(minimum),
        cache_logger_on_first_use=True,
    )
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(minimum)
    # uvicorn tells of each start and stop as we do; its warnings and errors stay.
    # Odd image files are their senders' business, not an event of ours.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    # At level debug it writes the heads of handshakes, and with them keys.
    logging.getLogger("websockets").setLevel(max(logging.INFO, minimum))
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, minimum))
