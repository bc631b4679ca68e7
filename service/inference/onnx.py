"""The embedded engine: ONNX models in this process, on ONNX Runtime."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.arrays import Classification, Detections, Faces, Image
from service.deadline import NEVER, Deadline
from service.errors import EngineUnavailable, ModelFileError
from service.manifest import ONNX, ClassifierManifest, Manifest, verified_model_path

# A call of the largest image takes less on a busy core.
STUCK_S = 60.0
FATAL = 4  # ONNX Runtime's log level: what it raises needs no line on stderr


class _OnnxModel:
    """Runs in the thread that calls; several threads may call at a time."""

    circuit = None

    def __init__(self, repository: Path, manifest: Manifest) -> None:
        self._repository = repository
        self._manifest = manifest
        self._session: onnxruntime.InferenceSession | None = None
        self._began_at: dict[int, float] = {}  # by thread, of the calls that run

    async def ping(self) -> None:
        if self._session is None:
            raise EngineUnavailable("the model is not loaded")
        # Its thread is lost, and only a restart brings it back; no caller waits that long.
        if time.monotonic() - min(list(self._began_at.values()), default=math.inf) > STUCK_S:
            raise EngineUnavailable(f"a call has not returned for {STUCK_S:g} s")

    async def close(self) -> None:
        self._session = None

    def _load(self) -> None:
        """Raises `ModelFileError`."""
        path = verified_model_path(self._repository, self._manifest, ONNX)
        options = onnxruntime.SessionOptions()
        # A call uses one core; concurrent images use the others.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # A plan for each shape of input makes its arena grow by large blocks; images have many shapes.
        options.enable_mem_pattern = False
        options.log_severity_level = FATAL
        try:
            self._session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common base
            raise ModelFileError(f"{path} cannot be loaded by ONNX Runtime: {error}") from error

    def _run(self, **inputs: NDArray[np.generic]) -> list[NDArray[np.float32]]:
        if (session := self._session) is None:
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
    """One call at a time, on a thread of its own. A call that has begun cannot be stopped."""

    cancellable = False

    def __init__(self, repository: Path, manifest: ClassifierManifest) -> None:
        super().__init__(repository, manifest)
        self._size = manifest.input.size
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="classifier")

    async def warm_up(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, self._load)
        await self.classify(np.zeros((1, 3, self._size, self._size), np.uint8), NEVER)

    async def close(self) -> None:
        # Waiting blocks, so it must not happen on the event loop.
        await asyncio.to_thread(self._executor.shutdown)
        await super().close()

    async def classify(self, faces: Faces, deadline: Deadline) -> Classification:
        def run() -> Classification:
            return Classification(*self._run(faces__0=faces))

        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, run)
        except RuntimeError as error:  # the executor is shut down
            raise EngineUnavailable("the model is not loaded") from error


class OnnxDetector(_OnnxModel):
    async def warm_up(self) -> None:
        def run() -> None:
            self._load()
            self.find(np.zeros((240, 320, 3), np.uint8), 32, 0.9)

        await asyncio.to_thread(run)

    def find(self, image: Image, min_face_px: float, threshold: float) -> Detections:
        answers = self._run(
            image__0=image,
            min_face_px__1=np.array([min_face_px], np.float32),
            threshold__2=np.array([threshold], np.float32),
        )
        return Detections(*answers)
