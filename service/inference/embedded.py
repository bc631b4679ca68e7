"""The embedded engine: TorchScript models in this process."""

from __future__ import annotations

import asyncio
import io
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.jit._fuser import optimized_execution

from service.arrays import Classification, Detections, Faces, Image
from service.deadline import NEVER, Deadline
from service.errors import EngineUnavailable, ModelFileError
from service.inference.batcher import batch_sizes
from service.manifest import ClassifierManifest, read_verified

# The profiling executor re-specialises a script for each of its first shapes; two rounds settle it.
WARM_UP_ROUNDS = 3
# A detector may have another method beside `forward` that answers the same, but has other threads help.
SPREAD = "spread"
# More than the largest image takes on a busy core.
STUCK_S = 60.0


def _tensor(array: NDArray[np.uint8]) -> torch.Tensor:
    """The array's own memory where torch allows it; it warns of arrays that may not be written to."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


class _EmbeddedModel:
    """A scripted module, called by long-lived threads: memory grows with each new one."""

    # Whether the executor may profile and specialise: it pays where few shapes come again and again.
    profiled = True
    circuit = None

    def __init__(self, path: Path, sha256: str) -> None:
        self._path = path
        self._sha256 = sha256
        self._module: torch.jit.ScriptModule | None = None
        self._began_at: dict[int, float] = {}  # by thread, of the calls that run

    async def ping(self) -> None:
        if self._module is None:
            raise EngineUnavailable("the model is not loaded")
        # Its thread is lost, and nobody but a restart brings it back; no caller waits that long.
        if time.monotonic() - min(list(self._began_at.values()), default=math.inf) > STUCK_S:
            raise EngineUnavailable(f"a call has not come back for {STUCK_S:g} s")

    async def close(self) -> None:
        self._module = None

    def _load(self) -> None:
        # One forward uses one core; concurrent requests use the others.
        torch.set_num_threads(1)
        torch.jit.set_fusion_strategy([("DYNAMIC", 2)])
        try:
            file = io.BytesIO(read_verified(self._path, self._sha256))
            self._module = torch.jit.load(file, map_location="cpu")  # type: ignore[no-untyped-call]
            self._module.eval()
            if not self.profiled:
                # Nor does the executor then keep what it has looked up: weights as constants need no looking.
                kept = [SPREAD] if hasattr(self._module, SPREAD) else []
                self._module = torch.jit.freeze(self._module, preserved_attrs=kept)
        except RuntimeError as error:
            raise ModelFileError(f"{self._path} cannot be loaded as TorchScript: {error}") from error

    def _call(self, *inputs: torch.Tensor, method: str = "forward") -> tuple[NDArray[np.float32], ...]:
        thread = threading.get_ident()
        self._began_at[thread] = time.monotonic()
        try:
            return tuple(output.numpy() for output in self._run(method, *inputs))
        # A `raise` inside a script comes out as torch.jit.Error, which is no RuntimeError.
        except (RuntimeError, torch.jit.Error) as error:
            raise EngineUnavailable("the model could not be run") from error
        finally:
            del self._began_at[thread]

    def _run(self, method: str, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self._module is None:
            raise EngineUnavailable("the model is not loaded")
        with torch.inference_mode(), optimized_execution(self.profiled):
            outputs: tuple[torch.Tensor, ...] = getattr(self._module, method)(*inputs)
        return outputs


class EmbeddedClassifier(_EmbeddedModel):
    """One call at a time, on a thread of its own. A forward that has begun cannot be stopped."""

    cancellable = False

    def __init__(self, path: Path, manifest: ClassifierManifest, max_batch_faces: int) -> None:
        super().__init__(path, manifest.sha256)
        self._size = manifest.input.size
        self._max_batch_faces = max_batch_faces
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="classifier")

    async def warm_up(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, self._load)
        for size in batch_sizes(self._max_batch_faces):
            for _ in range(WARM_UP_ROUNDS):
                await self.classify(np.zeros((size, 3, self._size, self._size), np.uint8), NEVER)

    async def close(self) -> None:
        # Waiting blocks, so it must not happen on the event loop.
        await asyncio.to_thread(self._executor.shutdown)
        await super().close()

    async def classify(self, faces: Faces, deadline: Deadline) -> Classification:
        def run() -> Classification:
            return Classification(*self._call(_tensor(faces)))

        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, run)
        except RuntimeError as error:  # the executor is shut down
            raise EngineUnavailable("the model is not loaded") from error


class EmbeddedDetector(_EmbeddedModel):
    """Runs in the thread that asks."""

    profiled = False  # each image size is another shape

    def __init__(self, path: Path, sha256: str, helpers: int) -> None:
        """helpers: how many threads of torch's may take a part of an image, of all images together."""
        super().__init__(path, sha256)
        self._helpers = helpers

    async def warm_up(self) -> None:
        def run() -> None:
            self._load()
            # Once in a process, before the first of them has work.
            with suppress(RuntimeError):
                torch.set_num_interop_threads(self._helpers)
            noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
            for _ in range(WARM_UP_ROUNDS):
                self.find(noise, 32, 0.9)

        await asyncio.to_thread(run)

    def find(self, image: Image, min_face_px: float, threshold: float, *, alone: bool = False) -> Detections:
        inputs = _tensor(image), torch.tensor([min_face_px]), torch.tensor([threshold])
        spread = alone and hasattr(self._module, SPREAD)
        return Detections(*self._call(*inputs, method=SPREAD if spread else "forward"))
