"""The Triton engine by itself, with a real tritonserver and the models of the project."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import trustme
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from service.assembly import Engines, make_engines
from service.core.arrays import Faces
from service.core.deadline import NEVER, Deadline
from service.core.errors import EngineContractError, EngineUnavailable, ServiceError
from service.core.manifest import MODEL_FILES, ClassifierManifest, read_manifest
from service.inference.engine import LocalDetector
from service.inference.triton import TritonClassifier, TritonDetector
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.conftest import eventually, free_port
from tests.triton.server import TritonServer, add_parameter, triton

MODELS = Settings().model_repository
# A server loads its models before it is ready, which takes long on a busy machine.
pytestmark = pytest.mark.timeout(300)

CLASSIFIER, DETECTOR = "expressnet_moe", "yunet"


def settings_for(server: TritonServer, **changes: object) -> Settings:
    return Settings(**{"engine": "triton", "triton_url": server.url} | changes)  # type: ignore[arg-type]


@asynccontextmanager
async def engines_of(settings: Settings, **changed: object) -> AsyncIterator[Engines]:
    """The classifier and the detector after their warm-up. `changed` replaces fields of both manifests."""
    classifier = read_manifest(settings.model_repository, CLASSIFIER).model_copy(update=changed)
    detector = read_manifest(settings.model_repository, DETECTOR).model_copy(update=changed)
    assert isinstance(classifier, ClassifierManifest)
    engines = make_engines(settings, classifier, detector, Metrics())
    try:
        await asyncio.gather(engines.classifier.warm_up(), engines.detector.warm_up())
        yield engines
    finally:
        await engines.classifier.close()
        await engines.detector.close()


def faces(count: int) -> Faces:
    network_input = read_manifest(MODELS, CLASSIFIER).input
    assert network_input is not None
    side = network_input.size
    noise = np.random.default_rng(0).integers(0, 256, (count, 3, side, side), np.uint8)
    return noise


async def test_triton_and_the_embedded_engine_give_the_same_answers(
    triton_server: TritonServer, astronaut: NDArray[np.uint8]
) -> None:
    async with engines_of(settings_for(triton_server)) as remote, engines_of(Settings()) as embedded:
        for count in (1, 2, 7, 32):
            expected = await embedded.classifier.classify(faces(count), NEVER)
            found = await remote.classifier.classify(faces(count), Deadline.after(30))
            np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)
            np.testing.assert_allclose(found.gates, expected.gates, atol=1e-4)
            np.testing.assert_allclose(found.occlusion, expected.occlusion, atol=1e-4)
            np.testing.assert_allclose(found.face_likeness, expected.face_likeness, atol=1e-4)
        assert isinstance(embedded.detector, LocalDetector)
        assert isinstance(remote.detector, TritonDetector)
        for image in (astronaut, astronaut[:64, :48], np.zeros((40, 300, 3), np.uint8)):
            local = embedded.detector.find(image, 20, 0.6)
            found_by_triton = await remote.detector.detect(image, 20, 0.6, Deadline.after(30))
            np.testing.assert_allclose(found_by_triton.scores, local.scores, atol=1e-4)
            np.testing.assert_allclose(found_by_triton.boxes, local.boxes, atol=1e-3)  # pixels
            np.testing.assert_allclose(found_by_triton.landmarks, local.landmarks, atol=1e-3)


async def test_simultaneous_requests_share_batches(triton_server: TritonServer) -> None:
    async with engines_of(settings_for(triton_server)) as engines:
        before = triton_server.metric("nv_inference_exec_count", model=CLASSIFIER)
        answers = await asyncio.gather(
            *(engines.classifier.classify(faces(24)[i : i + 1], Deadline.after(30)) for i in range(24))
        )
        batches = triton_server.metric("nv_inference_exec_count", model=CLASSIFIER) - before
        together = await engines.classifier.classify(faces(24), Deadline.after(30))
    assert batches < 24
    for row, answer in enumerate(answers):
        np.testing.assert_allclose(answer.probabilities[0], together.probabilities[row], atol=1e-5)


async def test_a_wrong_shape_is_an_error_of_the_service(triton_server: TritonServer) -> None:
    async with engines_of(settings_for(triton_server)) as engines:
        with pytest.raises(EngineContractError, match="refused"):
            await engines.classifier.classify(np.zeros((1, 3, 9, 9), np.uint8), Deadline.after(10))
        with pytest.raises(EngineContractError, match="refused"):
            await engines.classifier.classify(faces(64), Deadline.after(10))
        assert engines.classifier.circuit == "closed"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "nobody"}, "cannot answer"),
        ({"version": "9"}, "cannot answer"),
        ({"sha256": dict.fromkeys(MODEL_FILES, "0" * 64)}, "the manifest says 000"),
    ],
)
async def test_a_model_that_differs_from_the_manifest_is_not_used(
    triton_server: TritonServer, changed: dict[str, str], message: str
) -> None:
    async with engines_of(settings_for(triton_server), **changed) as engines:
        for call in (engines.classifier.ping(), engines.classifier.classify(faces(1), Deadline.after(10))):
            with pytest.raises(EngineUnavailable, match=message):
                await call


async def test_a_server_with_smaller_batches_is_reported_before_it_refuses_a_batch(
    triton_server: TritonServer,
) -> None:
    async with engines_of(settings_for(triton_server, max_batch_faces=64)) as engines:
        with pytest.raises(EngineUnavailable, match="takes 32 faces at a time"):
            await engines.classifier.ping()


async def test_a_model_without_an_output_is_reported_before_it_is_used(
    triton_server: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TritonClassifier, "_outputs", ("probabilities__0", "depth__3"))
    async with engines_of(settings_for(triton_server)) as engines:
        with pytest.raises(EngineUnavailable, match="expressnet_moe 1 has no output depth__3"):
            await engines.classifier.ping()


async def test_an_unreachable_server_is_reported_at_once() -> None:
    settings = Settings(engine="triton", triton_url=f"127.0.0.1:{free_port()}")
    async with engines_of(settings) as engines, asyncio.timeout(2):
        with pytest.raises(EngineUnavailable):
            await engines.classifier.ping()
        with pytest.raises(EngineUnavailable):
            await engines.classifier.classify(faces(1), Deadline.after(10))


async def outcome(call: object) -> str:
    """`answered`, or the name of the error."""
    try:
        await call  # type: ignore[misc]
    except ServiceError as error:
        return type(error).__name__
    return "answered"


async def test_calls_alternate_between_servers_and_one_may_stop(triton_server: TritonServer) -> None:
    with triton(MODELS) as other:
        both = f"{triton_server.url},{other.url}"
        async with engines_of(settings_for(other, triton_url=both)) as engines:
            servers = (triton_server, other)

            def counts() -> list[float]:
                return [server.metric("nv_inference_count", model=CLASSIFIER) for server in servers]

            # The server that is connected first gets all calls until the other one is connected.
            first = counts()
            while any(now == then for now, then in zip(counts(), first, strict=True)):
                await engines.classifier.classify(faces(1), Deadline.after(10))
            before = counts()
            for _ in range(10):
                await engines.classifier.classify(faces(1), Deadline.after(10))
            # Triton counts a call after it has answered.
            await asyncio.to_thread(eventually, lambda: sum(counts()) >= sum(before) + 10)
            assert [now - then for now, then in zip(counts(), before, strict=True)] == [5, 5]
            other.stop()
            outcomes = []
            while other.running:
                await engines.classifier.ping()
                outcomes.append(await outcome(engines.classifier.classify(faces(1), Deadline.after(10))))
            # Calls that the stopping server refuses go to `triton_server`. At most its last call is lost.
            assert outcomes.count("answered") >= len(outcomes) - 1
            for _ in range(10):
                await engines.classifier.ping()
                await engines.classifier.classify(faces(1), Deadline.after(10))


async def test_a_busy_server_that_stops_finishes_its_calls_and_new_calls_go_to_the_other(
    triton_server: TritonServer, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    shutil.copytree(MODELS, models)
    add_parameter(models, CLASSIFIER, "delay_s", 0.3)
    with triton(models) as other:
        both = settings_for(other, triton_url=f"{triton_server.url},{other.url}")
        async with engines_of(settings_for(other)) as direct, engines_of(both) as engines:
            for _ in range(4):
                await engines.classifier.classify(faces(1), Deadline.after(10))
            batches = [direct.classifier.classify(faces(32), Deadline.after(10)) for _ in range(8)]
            held = asyncio.gather(*(outcome(batch) for batch in batches))
            await asyncio.sleep(0.1)
            other.stop()
            outcomes = []
            while other.running:
                calls = [engines.classifier.classify(faces(1), Deadline.after(10)) for _ in range(3)]
                outcomes += await asyncio.gather(*(outcome(call) for call in calls))
            assert await held == ["answered"] * 8
            # Calls that the stopping server refuses go to `triton_server`. At most three calls are on their
            # way to the stopping server when it ends.
            assert outcomes.count("answered") >= len(outcomes) - 3 > 0
            assert engines.classifier.circuit == "closed"


async def test_a_call_that_a_server_cancels_as_it_ends_goes_to_the_next(
    triton_server: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engines_of(settings_for(triton_server)) as engines:
        client = engines.classifier._connection.client  # type: ignore[attr-defined]
        get_config = client.get_model_config
        errors = [InferenceServerException("CANCELLED", "StatusCode.CANCELLED")]

        async def cancelled_once(*arguments: object, **options: object) -> object:
            if errors:
                raise errors.pop()
            return await get_config(*arguments, **options)

        monkeypatch.setattr(client, "get_model_config", cancelled_once)
        await engines.classifier.ping()
        assert not errors


async def test_tls_with_certificates_on_both_sides(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    for name, ca, identity in (
        ("server", authority, "127.0.0.1"),
        ("client", authority, "gateway"),
        ("intruder", stranger, "gateway"),
    ):
        issued = ca.issue_cert(identity)
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    stranger.cert_pem.write_to_path(tmp_path / "stranger.pem")
    options = (
        "--grpc-use-ssl-mutual=true",
        f"--grpc-server-cert={tmp_path}/server.pem",
        f"--grpc-server-key={tmp_path}/server.key",
        f"--grpc-root-cert={tmp_path}/ca.pem",
    )

    def tls(name: str, trusted: str = "ca.pem") -> dict[str, object]:
        return {
            "triton_tls": True,
            "triton_root_certificates": tmp_path / trusted,
            "triton_certificate": tmp_path / f"{name}.pem",
            "triton_private_key": tmp_path / f"{name}.key",
        }

    with triton(MODELS, *options) as server:
        async with engines_of(settings_for(server, **tls("client"))) as engines:
            assert len((await engines.classifier.classify(faces(1), Deadline.after(10))).probabilities) == 1
        for refused in ({}, tls("intruder"), tls("client", "stranger.pem")):
            async with engines_of(settings_for(server, **refused)) as engines:
                with pytest.raises(ServiceError):
                    await engines.classifier.classify(faces(1), Deadline.after(2))
