"""Structured logs: one JSON object or readable line per event, with the request's id.

Logs hold no bytes of images and no probabilities of persons.
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
    """Writes from its own thread; lines are dropped if too many wait or the disk is full."""

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
    """The logger that structlog calls. Records of the standard library would double the cost."""

    def __init__(self, name: str, writer: Writer) -> None:
        self.name = name
        self.debug = self.info = self.warning = self.error = self.critical = writer.put


def _writing(stream: TextIO) -> Callable[[str], object]:
    """Bypass the stream's buffer: a blocked thread would still hold its lock at exit."""
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
    """Send structlog's events and the standard library's records, such as uvicorn's, to stderr."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    ending: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if format == "json"
        # If rich is installed, the default prints local variables, with images and probabilities.
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
    # PIL reports invalid image files, which are errors of clients.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    # At level debug websockets writes the heads of handshakes, and with them keys.
    logging.getLogger("websockets").setLevel(max(logging.INFO, minimum))
    # Below level warning uvicorn repeats this service's own lines.
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, minimum))
