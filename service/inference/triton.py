"""The Triton engine: the same model files on NVIDIA Triton, over gRPC.

One client per event loop, shared by both models. The server's answers are told apart here: what means "full",
"late", "down" or "wrong" becomes the error of that meaning.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.utils import InferenceServerException

from service.core.arrays import Classification, Detections, Faces, Image
from service.core.deadline import Deadline
from service.core.errors import (
    DeadlineExceeded,
    EngineContractError,
    EngineUnavailable,
    Overloaded,
    ServiceError,
)
from service.core.manifest import TORCHSCRIPT, ClassifierManifest, Manifest, digest_parameter
from service.inference.breaker import Breaker, State
from service.inference.engine import batch_sizes

MESSAGE_LIMIT = 256 * 1024 * 1024  # a 50-megapixel image is 150 MB of pixels
KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS = 20_000, 5_000
# Servers in turn are shared with other calls, so the next one may be the same one again.
RETRIES, RETRY_WITHIN_S = 3, 0.05
PING_TIMEOUT_S = 0.8
# A server that works answers a ping of one of the two models every half second.
SILENT_S = 2.5

# Triton answers UNAVAILABLE to nearly all of these; only the words tell them apart.
# Only where somebody gave the models a queue policy: the project's own configuration has none.
QUEUE_REFUSES = ("exceeds maximum queue size", "request timeout expired")
# A server that stops ends what it has begun, then unloads its models; one that starts loads them last.
NOT_TAKING = ("server is stopping", "server not ready", "not at ready state", "has no available versions")
NOT_CONNECTED = (
    "failed to connect",
    "connection refused",
    "dns resolution failed",
    "no children to pick from",
)


@dataclass(frozen=True, slots=True)
class Tls:
    """Paths of PEM files: whom to trust, and who we are if the server asks."""

    root_certificates: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None


class TritonConnection:
    """One channel to one or several servers, opened on the loop that uses it.

    addresses: `HOST:PORT`, or several `IP:PORT` with commas between. The servers behind a name, or behind
    several addresses, are asked in turn.
    """

    def __init__(self, addresses: str, tls: Tls | None = None) -> None:
        self._addresses = addresses
        self._tls = tls
        self._client: InferenceServerClient | None = None
        self._heard_at = time.monotonic()

    def heard(self) -> None:
        """To be called with every answer, whatever it says."""
        self._heard_at = time.monotonic()

    def silent(self) -> bool:
        """Whether the server has told nobody anything for long."""
        return time.monotonic() - self._heard_at > SILENT_S

    @property
    def client(self) -> InferenceServerClient:
        if self._client is None:
            credentials = None if self._tls is None else _credentials(self._tls)
            self._client = InferenceServerClient(
                _target(self._addresses), creds=credentials, channel_args=_channel_arguments()
            )
        return self._client

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()


def _target(addresses: str) -> str:
    if "," not in addresses:
        return f"dns:///{addresses}"
    return f"{'ipv6' if addresses.startswith('[') else 'ipv4'}:{addresses}"


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    def read(path: Path | None) -> bytes | None:
        return None if path is None else path.read_bytes()

    return grpc.ssl_channel_credentials(
        read(tls.root_certificates), read(tls.private_key), read(tls.certificate)
    )


def _channel_arguments() -> list[tuple[str, Any]]:
    # Giving any argument replaces all of the client's own.
    return [
        ("grpc.lb_policy_name", "round_robin"),
        ("grpc.max_send_message_length", MESSAGE_LIMIT),
        ("grpc.max_receive_message_length", MESSAGE_LIMIT),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # A server that was restarted is found again within a second.
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]


class _Unreachable(EngineUnavailable):
    """The server is gone, or going; another one may be there."""


class _NotTaken(_Unreachable):
    """No server began with it, so asking again runs nothing twice."""


class _TritonModel:
    """A model on the server. It is not believed before its configuration names the manifest's file.

    Whenever the connection was lost, the server may have come back with another model, so it is asked again.
    """

    _outputs: tuple[str, ...]

    def __init__(self, connection: TritonConnection, manifest: Manifest, breaker: Breaker) -> None:
        self._connection = connection
        self._manifest = manifest
        self._breaker = breaker
        self._verified = False

    async def warm_up(self) -> None:
        """The server warms its models itself; one that is not there yet may come later."""

    @property
    def circuit(self) -> State:
        return self._breaker.state

    async def ping(self) -> None:
        # Always: of several servers each is met in its turn.
        try:
            await self._verify(PING_TIMEOUT_S)
        except _Unreachable:
            # Of several servers one may be stopping: the next in turn is asked before all are called down.
            await self._verify(PING_TIMEOUT_S)
        if self._breaker.state != "closed":
            # A gateway that is not ready gets no requests, so none would ever close the circuit.
            with contextlib.suppress(ServiceError):
                await self._try_out(Deadline.after(PING_TIMEOUT_S))

    async def close(self) -> None:
        await self._connection.close()

    async def _try_out(self, deadline: Deadline) -> None:
        """The smallest call there is."""
        raise NotImplementedError

    async def _verify(self, timeout_s: float) -> None:
        with self._translated():
            answer = await self._connection.client.get_model_config(
                self._manifest.name, self._manifest.version, client_timeout=timeout_s
            )
        self._connection.heard()
        self._verified = False
        self._check(answer.config)
        self._verified = True

    def _check(self, config: ModelConfig) -> None:
        """Raise `EngineUnavailable` if the served model is not the one that this gateway is set up for."""
        manifest = self._manifest
        served = config.parameters[digest_parameter(manifest.version)].string_value
        if served != manifest.sha256[TORCHSCRIPT]:
            raise EngineUnavailable(
                f"the inference server's {manifest.name} {manifest.version} has sha256 "
                f"{served or 'unknown'}, the manifest says {manifest.sha256[TORCHSCRIPT]}"
            )
        missing = set(self._outputs) - {output.name for output in config.output}
        if missing:
            raise EngineUnavailable(
                f"the inference server's {manifest.name} {manifest.version} has no output {min(missing)}"
            )

    async def _infer(self, inputs: dict[str, NDArray[Any]], deadline: Deadline) -> list[NDArray[np.float32]]:
        async with self._breaker.guard():
            for _ in range(RETRIES):
                try:
                    return await self._infer_once(inputs, deadline)
                except _NotTaken:
                    if deadline.remaining_s() <= RETRY_WITHIN_S:
                        raise
                await asyncio.sleep(random.uniform(0, RETRY_WITHIN_S))
            return await self._infer_once(inputs, deadline)

    async def _infer_once(
        self, inputs: dict[str, NDArray[Any]], deadline: Deadline
    ) -> list[NDArray[np.float32]]:
        deadline.check("inference")
        if not self._verified:
            await self._verify(deadline.remaining_s())
        with self._translated():
            result = await self._connection.client.infer(
                self._manifest.name,
                [_input(name, array) for name, array in inputs.items()],
                model_version=self._manifest.version,
                outputs=[InferRequestedOutput(name) for name in self._outputs],
                client_timeout=deadline.remaining_s(),
            )
        self._connection.heard()
        found = [result.as_numpy(name) for name in self._outputs]
        if any(array is None for array in found):
            raise EngineContractError(f"{self._manifest.name} did not answer {self._outputs}")
        return found

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Around one call: what the server says becomes the error that it means."""
        try:
            yield
        except InferenceServerException as error:
            raise self._meaning(str(error.status()), str(error.message()).lower()) from error

    def _meaning(self, status: str, words: str) -> ServiceError:
        if status == "StatusCode.DEADLINE_EXCEEDED":
            return DeadlineExceeded("the inference server did not answer in time")
        if any(known in words for known in QUEUE_REFUSES):
            self._connection.heard()
            return Overloaded("the inference server's queue is full")
        if status in ("StatusCode.INVALID_ARGUMENT", "StatusCode.RESOURCE_EXHAUSTED"):
            return EngineContractError(f"the inference server refused the request: {words}")
        if any(known in words for known in NOT_TAKING):
            return _NotTaken("the inference server is starting or stopping")
        # Down, restarting, without the model, or broken: whatever answers next may be another model.
        self._verified = False
        if any(known in words for known in NOT_CONNECTED):
            return _NotTaken("the inference server is not connected")
        # A server that ends cancels what it has not answered; who cancels here sees no answer at all.
        if status in ("StatusCode.UNAVAILABLE", "StatusCode.CANCELLED"):
            return _Unreachable("the inference server is gone")
        return EngineUnavailable("the inference server cannot answer")


class TritonClassifier(_TritonModel):
    cancellable = True
    _outputs = ("probabilities__0", "gates__1", "occlusion__2")

    def __init__(
        self,
        connection: TritonConnection,
        manifest: ClassifierManifest,
        breaker: Breaker,
        max_batch_faces: int,
    ) -> None:
        super().__init__(connection, manifest, breaker)
        self._size = manifest.input.size
        self._max_batch_faces = max_batch_faces
        self._warm_sizes = batch_sizes(max_batch_faces)

    def _check(self, config: ModelConfig) -> None:
        super()._check(config)
        if config.max_batch_size < self._max_batch_faces:
            raise EngineUnavailable(
                f"the inference server takes {config.max_batch_size} faces at a time, "
                f"EXPRESSNET_MAX_BATCH_FACES says {self._max_batch_faces}"
            )

    async def _try_out(self, deadline: Deadline) -> None:
        await self.classify(np.zeros((1, 3, self._size, self._size), np.uint8), deadline)

    async def classify(self, faces: Faces, deadline: Deadline) -> Classification:
        """Rows are padded up to the next size that the server has warmed."""
        warm = next((size for size in self._warm_sizes if size >= len(faces)), len(faces))
        rows = np.concatenate([faces, np.zeros((warm - len(faces), *faces.shape[1:]), faces.dtype)])
        return Classification(*await self._infer({"faces__0": rows}, deadline))[: len(faces)]


class TritonDetector(_TritonModel):
    _outputs = ("boxes__0", "scores__1", "landmarks__2")

    async def _try_out(self, deadline: Deadline) -> None:
        await self.detect(np.zeros((32, 32, 3), np.uint8), 32, 0.9, deadline)

    async def detect(
        self, image: Image, min_face_px: float, threshold: float, deadline: Deadline
    ) -> Detections:
        boxes, scores, landmarks = await self._infer(
            {
                "image__0": image,
                "min_face_px__1": np.array([min_face_px], np.float32),
                "threshold__2": np.array([threshold], np.float32),
            },
            deadline,
        )
        return Detections(boxes, scores, landmarks)


def _input(name: str, array: NDArray[Any]) -> InferInput:
    given = InferInput(name, list(array.shape), "UINT8" if array.dtype == np.uint8 else "FP32")
    given.set_data_from_numpy(np.ascontiguousarray(array))
    return given
