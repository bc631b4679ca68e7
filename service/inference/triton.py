"""The Triton engine: the same model files on NVIDIA Triton, over gRPC.

One client per event loop, shared by both models. The server's failures become the service's errors:
overloaded, too late, unavailable or a broken contract.
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
# Calls alternate between servers. Other calls come in between, so a retry may reach the same server again.
RETRIES, RETRY_WITHIN_S = 3, 0.05
PING_TIMEOUT_S = 0.8
# A working server answers a ping of one of the two models every half second.
SILENT_S = 2.5

# Triton answers nearly all of these with UNAVAILABLE; only the messages differ.
# Only with a queue policy; the project's own configuration has none.
QUEUE_REFUSES = ("exceeds maximum queue size", "request timeout expired")
# A stopping server finishes its calls, then unloads its models. A starting server loads its models last.
NOT_TAKING = ("server is stopping", "server not ready", "not at ready state", "has no available versions")
NOT_CONNECTED = (
    "failed to connect",
    "connection refused",
    "dns resolution failed",
    "no children to pick from",
)


@dataclass(frozen=True, slots=True)
class Tls:
    """Paths of PEM files: the trusted authorities, and the gateway's own certificate if the server asks."""

    root_certificates: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None


class TritonConnection:
    """One channel to one or several servers, opened on the event loop that uses the channel.

    addresses: `HOST:PORT`, or several `IP:PORT` separated by commas. Calls alternate between the servers
    behind a name or behind several addresses.
    """

    def __init__(self, addresses: str, tls: Tls | None = None) -> None:
        self._addresses = addresses
        self._tls = tls
        self._client: InferenceServerClient | None = None
        self._heard_at = time.monotonic()

    def heard(self) -> None:
        """Call this after every answer of a server, errors included."""
        self._heard_at = time.monotonic()

    def silent(self) -> bool:
        """Whether no call got an answer for `SILENT_S`."""
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
    # Any argument replaces all of the client's defaults.
    return [
        ("grpc.lb_policy_name", "round_robin"),
        ("grpc.max_send_message_length", MESSAGE_LIMIT),
        ("grpc.max_receive_message_length", MESSAGE_LIMIT),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # Reconnect to a restarted server within a second.
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]


class _Unreachable(EngineUnavailable):
    """The server is down or stopping. Another server may answer."""


class _NotTaken(_Unreachable):
    """No server started the call, so a retry runs nothing twice."""


class _TritonModel:
    """A model on the server, used only after the server's configuration names the manifest's file.

    After a lost connection the configuration is checked again: the server may return with another model.
    """

    _outputs: tuple[str, ...]

    def __init__(self, connection: TritonConnection, manifest: Manifest, breaker: Breaker) -> None:
        self._connection = connection
        self._manifest = manifest
        self._breaker = breaker
        self._verified = False

    async def warm_up(self) -> None:
        """Does nothing: the server warms up its models itself, and may start after the gateway."""

    @property
    def circuit(self) -> State:
        return self._breaker.state

    async def ping(self) -> None:
        # At every ping, so that each of several servers is verified.
        try:
            await self._verify(PING_TIMEOUT_S)
        except _Unreachable:
            # One of several servers may be stopping: try the next server before reporting a failure.
            await self._verify(PING_TIMEOUT_S)
        if self._breaker.state != "closed":
            # A gateway that is not ready gets no requests, so no request can close the circuit.
            with contextlib.suppress(ServiceError):
                await self._try_out(Deadline.after(PING_TIMEOUT_S))

    async def close(self) -> None:
        await self._connection.close()

    async def _try_out(self, deadline: Deadline) -> None:
        """The smallest possible call."""
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
        """Raise `EngineUnavailable` if the served model is not the manifest's."""
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
        """Around one call: turns the client's exceptions into service errors."""
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
        # A stopping server cancels its open calls. A cancellation on this side does not come here.
        if status in ("StatusCode.UNAVAILABLE", "StatusCode.CANCELLED"):
            return _Unreachable("the connection to the inference server was lost")
        return EngineUnavailable("the inference server cannot answer")


class TritonClassifier(_TritonModel):
    cancellable = True
    _outputs = ("probabilities__0", "gates__1", "occlusion__2", "face_likeness__3")

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
        """Pads the batch to the next size that the server has warmed up."""
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
