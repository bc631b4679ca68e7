"""The bytes of a recording: in memory up to a limit, and beyond it in a file without a name."""

from __future__ import annotations

import io
import threading
from tempfile import SpooledTemporaryFile
from typing import IO, Any, BinaryIO, cast

MATROSKA = bytes.fromhex("1a45dfa3")


class Upload:
    """Takes bytes, while a thread may read them already.

    The file has no name (`O_TMPFILE`): the system frees it with the process, however the process ends.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._file: IO[bytes] = SpooledTemporaryFile(memory_bytes)  # noqa: SIM115  # closed by `close`
        self._changed = threading.Condition()
        self._complete = self._closed = False
        self.size = 0

    @property
    def on_disk(self) -> bool:
        """Whether the next byte goes to a file, and may wait for a disk."""
        return self.size >= self._memory_bytes

    def write(self, data: bytes) -> None:
        """Raises `OSError`, for example if the disk is full."""
        with self._changed:
            self._file.seek(0, io.SEEK_END)
            self._file.write(data)
            self.size += len(data)
            self._changed.notify_all()

    def complete(self) -> None:
        """No more bytes follow."""
        with self._changed:
            self._complete = True
            self._changed.notify_all()

    def close(self) -> None:
        """Free the bytes. A thread that reads is at the end: PyAV prints the exceptions of a file."""
        with self._changed:
            self._closed = True
            self._file.close()
            self._changed.notify_all()

    def read(self, at: int, count: int) -> bytes:
        """Some of the bytes from `at` on; waits for them. Empty at the end, and once closed."""
        with self._changed:
            self._changed.wait_for(lambda: at < self.size or self._complete or self._closed)
            if self._closed:
                return b""
            self._file.seek(at)
            return self._file.read(count)

    def whole_size(self) -> int:
        """The number of bytes, once all are here or it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._complete or self._closed)
            return self.size

    def open(self) -> BinaryIO:
        """The bytes as a file, for one thread. It waits for bytes that have not arrived.

        Matroska has an index at its end, and FFmpeg reads it first wherever it can.
        """
        is_matroska = self.read(0, len(MATROSKA)) == MATROSKA
        return cast(BinaryIO, _Reader(self, seekable=self._complete or not is_matroska))


class _Reader(io.RawIOBase):
    def __init__(self, upload: Upload, *, seekable: bool) -> None:
        self._upload = upload
        self._seekable = seekable
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._seekable

    def readinto(self, buffer: Any) -> int:
        data = self._upload.read(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: lambda: 0, io.SEEK_CUR: lambda: self._at, io.SEEK_END: self._upload.whole_size}
        self._at = start[whence]() + offset
        return self._at

    def tell(self) -> int:
        return self._at
