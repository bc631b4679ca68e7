"""The embedded engine: ONNX models in this process, on ONNX Runtime."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.core.arrays import Classification, Detections, Faces, Image
from service.core.deadline import NEVER, Deadline
from service.core.errors import EngineUnavailable, ModelFileError
from service.core.manifest import ONNX, ClassifierManifest, Manifest, verified_model_path

# Longer than a call for the largest image on a busy core.
STUCK_S = 60.0
# From this number of faces on, a call uses several cores even if the cores are busy.
MANY_FACES = 8
FATAL = 4  # ONNX Runtime's log level: its errors are raised, so they need no line on stderr


class _OnnxModel:
    """Runs in the calling thread; several threads may call at a time.

    threads: of a call that uses several cores.
    """

    circuit = None

    def __init__(self, repository: Path, manifest: Manifest, threads: int) -> None:
        self._repository = repository
        self._manifest = manifest
        self._threads = threads
        self._session: onnxruntime.InferenceSession | None = None
        self._multicore: onnxruntime.InferenceSession | None = None
        self._began_at: dict[int, float] = {}  # start of each running call, by thread

    async def ping(self) -> None:
        if self._session is None:
            raise EngineUnavailable("the model is not loaded")
        # No caller waits that long. The thread is lost, and only a restart replaces it.
        if time.monotonic() - min(list(self._began_at.values()), default=math.inf) > STUCK_S:
            raise EngineUnavailable(f"a call has not returned for {STUCK_S:g} s")

    async def close(self) -> None:
        self._session = self._multicore = None

    def _load(self) -> None:
        """Raises `ModelFileError`."""
        self._session = self._new_session(threads=1)
        self._multicore = self._session if self._threads == 1 else self._new_session(self._threads)

    def _new_session(self, threads: int) -> onnxruntime.InferenceSession:
        path = verified_model_path(self._repository, self._manifest, ONNX)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Otherwise threads keep cores busy between calls.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # The arena would keep memory for every shape of image. glibc's heap is as fast, and bounded.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        options.log_severity_level = FATAL
        try:
            return onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise ModelFileError(f"{path} cannot be loaded by ONNX Runtime: {error}") from error

    def _run(self, multicore: bool, **inputs: NDArray[np.generic]) -> list[NDArray[np.float32]]:
        session = self._multicore if multicore else self._session
        if session is None:
            raise EngineUnavailable("the model is not loaded")
        thread = threading.get_ident()
        self._began_at[thread] = time.monotonic()
        try:
            outputs: list[NDArray[np.float32]] = session.run(None, inputs)
        except Exception as error:
            raise EngineUnavailable("the model could not be run") from error
        finally:
            del self._began_at[thread]
        return outputs


class OnnxClassifier(_OnnxModel):
    """Runs one batch at a time. A started call cannot be stopped.

    spare_core: whether another core is idle now. If so, a call uses several cores. A batch of `MANY_FACES`
    always does.
    """

    cancellable = False

    def __init__(
        self, repository: Path, manifest: ClassifierManifest, threads: int, spare_core: Callable[[], bool]
    ) -> None:
        super().__init__(repository, manifest, threads)
        self._size = manifest.input.size
        self._spare_core = spare_core
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="classifier")

    async def warm_up(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, self._load)
        await self.classify(np.zeros((1, 3, self._size, self._size), np.uint8), NEVER)

    async def close(self) -> None:
        # Waiting blocks, so it must not happen on the event loop.
        await asyncio.to_thread(self._executor.shutdown)
        await super().close()

    async def classify(self, faces: Faces, deadline: Deadline) -> Classification:
        multicore = len(faces) >= MANY_FACES or self._spare_core()
        run = partial(self._run, multicore, faces__0=faces)
        try:
            call = asyncio.get_running_loop().run_in_executor(self._executor, run)
        except RuntimeError as error:  # the executor is shut down
            raise EngineUnavailable("the model is not loaded") from error
        return Classification(*await call)


class OnnxDetector(_OnnxModel):
    """spare_core: whether another core is idle now. If so, a call uses several cores."""

    def __init__(self, repository: Path, manifest: Manifest, spare_core: Callable[[], bool]) -> None:
        super().__init__(repository, manifest, threads=2)
        self._spare_core = spare_core

    async def warm_up(self) -> None:
        def run() -> None:
            self._load()
            self.find(np.zeros((240, 320, 3), np.uint8), 32, 0.9)

        await asyncio.to_thread(run)

    def find(self, image: Image, min_face_px: float, threshold: float) -> Detections:
        answers = self._run(
            self._spare_core(),
            image__0=image,
            min_face_px__1=np.array([min_face_px], np.float32),
            threshold__2=np.array([threshold], np.float32),
        )
        return Detections(*answers)
