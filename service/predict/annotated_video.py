"""A copy of a video with the answers drawn on its frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from service.core.seen import Seen
from service.pipeline.timeline import Moment
from service.predict.pictures import inner_path, marked

# Milliseconds: frames keep their own times.
TIME_BASE = Fraction(1, 1000)


def copy_of(path: str, folder: Path) -> Path:
    """Path of a video's copy: the video's path relative to the working folder, moved to `folder`."""
    target = folder / inner_path(path)
    return target if target.suffix.lower() == ".mp4" else target.with_name(f"{target.name}.mp4")


class AnnotatedVideo:
    """An MP4 of the frames that were analysed, without sound and metadata.

    The file has a hidden name until the end of the block: an incomplete file is not taken for a copy.
    """

    def __init__(self, target: Path, labels: tuple[str, ...]) -> None:
        self._target = target
        self._unfinished = target.with_name(f".{target.name}.part")
        self._labels = labels
        self._container: Any = None
        self._stream: Any = None

    def write(self, moment: Moment) -> None:
        """Raises `OSError`."""
        import av

        texts = [
            f"{track.number}: {self._labels[track.best]} {100 * track.probabilities[track.best]:.0f} %"
            for track in moment.followed
        ]
        picture = marked(moment.pixels, moment.seen, texts, [track.verdict for track in moment.followed])
        if self._container is None:
            self._open(moment.seen)
        frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24").reformat(
            width=self._stream.width, height=self._stream.height, format="yuv420p"
        )
        frame.pts, frame.time_base = round(moment.time_s / TIME_BASE), TIME_BASE
        self._container.mux(self._stream.encode(frame))

    def _open(self, first: Seen) -> None:
        import av

        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(self._unfinished), "w", format="mp4")
        # Browsers play H.264. A PyAV without its encoder has MPEG-4.
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        self._stream = self._container.add_stream(codec, options={"qscale": "3"} if codec == "mpeg4" else {})
        # The colour planes of yuv420p have half the size.
        self._stream.width, self._stream.height = (
            max(2, side // 2 * 2) for side in (first.width, first.height)
        )
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = TIME_BASE

    def __enter__(self) -> AnnotatedVideo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._container is None:
            return
        if kind is None:
            self._container.mux(self._stream.encode())
        self._container.close()
        if kind is None:
            self._unfinished.replace(self._target)
        else:
            self._unfinished.unlink(missing_ok=True)
