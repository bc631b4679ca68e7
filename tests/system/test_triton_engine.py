"""The Triton engine by itself, before a real tritonserver with the project's own models."""

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
from tests.conftest import free_port
from tests.triton.server import TritonServer, triton, with_parameter

MODELS = Settings().model_repository
# A server loads torch for each model before it is ready.
pytestmark = pytest.mark.timeout(300)

CLASSIFIER, DETECTOR = "expressnet_moe", "yunet"


def settings_for(server: TritonServer, **changes: object) -> Settings:
    return Settings(**{"engine": "triton", "triton_url": server.url} | changes)  # type: ignore[arg-type]


@asynccontextmanager
async def engines_of(settings: Settings, **changed: object) -> AsyncIterator[Engines]:
    """Both engines, warm; `changed`: what their manifests say otherwise."""
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
    size = read_manifest(MODELS, CLASSIFIER).input
    assert size is not None
    noise = np.random.default_rng(0).integers(0, 256, (count, 3, size.size, size.size), np.uint8)
    return noise


async def test_it_answers_as_the_embedded_engine_does(
    triton_server: TritonServer, astronaut: NDArray[np.uint8]
) -> None:
    async with engines_of(settings_for(triton_server)) as remote, engines_of(Settings()) as embedded:
        for count in (1, 2, 7, 32):
            expected = await embedded.classifier.classify(faces(count), NEVER)
            found = await remote.classifier.classify(faces(count), Deadline.after(30))
            np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)
            np.testing.assert_allclose(found.gates, expected.gates, atol=1e-4)
            np.testing.assert_allclose(found.occlusion, expected.occlusion, atol=1e-4)
        assert isinstance(embedded.detector, LocalDetector)
        assert isinstance(remote.detector, TritonDetector)
        for image in (astronaut, astronaut[:64, :48], np.zeros((40, 300, 3), np.uint8)):
            at_home = embedded.detector.find(image, 20, 0.6)
            abroad = await remote.detector.detect(image, 20, 0.6, Deadline.after(30))
            np.testing.assert_allclose(abroad.scores, at_home.scores, atol=1e-4)
            np.testing.assert_allclose(abroad.boxes, at_home.boxes, atol=1e-3)  # pixels
            np.testing.assert_allclose(abroad.landmarks, at_home.landmarks, atol=1e-3)


async def test_requests_that_come_together_are_one_batch(triton_server: TritonServer) -> None:
    async with engines_of(settings_for(triton_server)) as engines:
        before = triton_server.metric("nv_inference_exec_count", model=CLASSIFIER)
        answers = await asyncio.gather(
            *(engines.classifier.classify(faces(24)[i : i + 1], Deadline.after(30)) for i in range(24))
        )
        ran = triton_server.metric("nv_inference_exec_count", model=CLASSIFIER) - before
        together = await engines.classifier.classify(faces(24), Deadline.after(30))
    assert ran < 24
    for row, answer in enumerate(answers):
        np.testing.assert_allclose(answer.probabilities[0], together.probabilities[row], atol=1e-5)


async def test_a_wrong_shape_is_this_service_s_own_mistake(triton_server: TritonServer) -> None:
    async with engines_of(settings_for(triton_server)) as engines:
        with pytest.raises(EngineContractError, match="refused"):
            await engines.classifier.classify(np.zeros((1, 3, 9, 9), np.uint8), Deadline.after(10))
        with pytest.raises(EngineContractError, match="refused"):
            await engines.classifier.classify(faces(64), Deadline.after(10))
        assert engines.classifier.circuit == "closed"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"name": "nobody"}, "cannot answer"),
        ({"version": "9"}, "cannot answer"),
        ({"sha256": dict.fromkeys(MODEL_FILES, "0" * 64)}, "the manifest says 000"),
    ],
)
async def test_a_model_that_is_not_the_manifest_s_is_not_asked(
    triton_server: TritonServer, changed: dict[str, str], words: str
) -> None:
    async with engines_of(settings_for(triton_server), **changed) as engines:
        for call in (engines.classifier.ping(), engines.classifier.classify(faces(1), Deadline.after(10))):
            with pytest.raises(EngineUnavailable, match=words):
                await call


async def test_a_server_that_takes_smaller_batches_is_told_before_it_refuses_one(
    triton_server: TritonServer,
) -> None:
    async with engines_of(settings_for(triton_server, max_batch_faces=64)) as engines:
        with pytest.raises(EngineUnavailable, match="takes 32 faces at a time"):
            await engines.classifier.ping()


async def test_a_model_that_answers_less_is_told_before_it_is_asked(
    triton_server: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TritonClassifier, "_outputs", ("probabilities__0", "depth__3"))
    async with engines_of(settings_for(triton_server)) as engines:
        with pytest.raises(EngineUnavailable, match="expressnet_moe 1 has no output depth__3"):
            await engines.classifier.ping()


async def test_a_server_that_is_not_there_is_told_at_once() -> None:
    settings = Settings(engine="triton", triton_url=f"127.0.0.1:{free_port()}")
    async with engines_of(settings) as engines, asyncio.timeout(2):
        with pytest.raises(EngineUnavailable):
            await engines.classifier.ping()
        with pytest.raises(EngineUnavailable):
            await engines.classifier.classify(faces(1), Deadline.after(10))


async def outcome(call: object) -> str:
    try:
        await call  # type: ignore[misc]
    except ServiceError as error:
        return type(error).__name__
    return "answered"


async def test_several_servers_are_asked_in_turn_and_one_may_stop(triton_server: TritonServer) -> None:
    with triton(MODELS) as other:
        both = f"{triton_server.url},{other.url}"
        async with engines_of(settings_for(other, triton_url=both)) as engines:
            servers = (triton_server, other)

            def counts() -> list[float]:
                return [server.metric("nv_inference_count", model=CLASSIFIER) for server in servers]

            # Whoever is connected first is asked alone until the other one is, too.
            first = counts()
            while any(now == then for now, then in zip(counts(), first, strict=True)):
                await engines.classifier.classify(faces(1), Deadline.after(10))
            before = counts()
            for _ in range(10):
                await engines.classifier.classify(faces(1), Deadline.after(10))
            assert [now - then for now, then in zip(counts(), before, strict=True)] == [5, 5]
            other.stop()
            outcomes = []
            while other.running:
                await engines.classifier.ping()
                outcomes.append(await outcome(engines.classifier.classify(faces(1), Deadline.after(10))))
            # Its refusals go to the other; what it held when it ended is lost to it.
            assert outcomes.count("answered") >= len(outcomes) - 1
            for _ in range(10):
                await engines.classifier.ping()
                await engines.classifier.classify(faces(1), Deadline.after(10))


async def test_a_busy_server_that_stops_ends_what_it_has_and_the_rest_goes_to_the_other(
    triton_server: TritonServer, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    shutil.copytree(MODELS, models)
    with_parameter(models, CLASSIFIER, "delay_s", 0.3)
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
            # What it refuses goes to the other; three at most are on their way to it when it ends.
            assert outcomes.count("answered") >= len(outcomes) - 3 > 0
            assert engines.classifier.circuit == "closed"


async def test_a_call_that_a_server_cancels_as_it_ends_goes_to_the_next(
    triton_server: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engines_of(settings_for(triton_server)) as engines:
        client = engines.classifier._connection.client  # type: ignore[attr-defined]
        ask, errors = client.get_model_config, [InferenceServerException("CANCELLED", "StatusCode.CANCELLED")]

        async def cancelled_once(*arguments: object, **options: object) -> object:
            if errors:
                raise errors.pop()
            return await ask(*arguments, **options)

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
