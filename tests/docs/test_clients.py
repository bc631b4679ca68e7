"""Two public generators make clients of docs/openapi.json. docs/asyncapi.json matches AsyncAPI's schema."""

from __future__ import annotations

import importlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import jsonschema
import pytest
from openapi_python_client import generate
from openapi_python_client.config import Config, ConfigFile, MetaType

from service.core.errors import BY_CODE
from service.http.app import create_app
from service.http.problems import MEDIA_TYPE
from service.settings import Settings
from tests.conftest import Gateway, serving
from tests.docs import asyncapi
from tests.docs.openapi import FILE
from tests.fake_engine import fake_engines

DOCUMENT: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
PACKAGES = Path(__file__).parent / "npm" / "node_modules"


class Answer(NamedTuple):
    """One documented answer: an example of one status of one operation."""

    operation: dict[str, Any]
    status: str
    media_type: str
    example: Any


def answers() -> Iterator[Answer]:
    for operations in DOCUMENT["paths"].values():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                # Generators read the first type of an answer.
                for media_type, content in list(answer.get("content", {}).items())[:1]:
                    named = [example["value"] for example in content.get("examples", {}).values()]
                    for example in named or [content["example"]]:
                        yield Answer(operation, status, media_type, example)


ANSWERS = list(answers())


class PythonClient:
    """The package `emotions_client` that openapi-python-client generates."""

    def __init__(self, url: str = "") -> None:
        self.caller = self.module("client").AuthenticatedClient(base_url=url, token="any")

    def module(self, name: str) -> Any:
        return importlib.import_module(f"emotions_client.{name}")

    def operation(self, tag: str, operation_id: str) -> Any:
        return self.module(f"api.{tag}.{operation_id}")


def generate_python_client(document: Path, client: Path) -> list[str]:
    """Generates a Python client of a document into a folder, and returns the generator's warnings."""
    config = Config.from_sources(
        # The generator does not know pictures: the plot of a recording is bytes, as the guide says.
        ConfigFile(content_type_overrides={"image/png": "application/octet-stream"}),
        MetaType.NONE,
        document_source=document,
        file_encoding="utf-8",
        overwrite=False,
        output_path=client,
    )
    with pytest.MonkeyPatch.context() as patch:
        # The generator formats its files with the ruff in PATH.
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        return [f"{found.header}: {found.detail}" for found in generate(config=config)]


@pytest.fixture(scope="module")
def python_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PythonClient]:
    folder = tmp_path_factory.mktemp("python")
    assert generate_python_client(FILE, folder / "emotions_client") == []
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield PythonClient()


def test_group_mode_has_a_python_client_too(tmp_path: Path) -> None:
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(create_app(Settings(aggregate_only=5), fake_engines()).openapi()))
    assert generate_python_client(document, tmp_path / "client") == []
    assert (tmp_path / "client" / "models" / "group_batch_answer.py").exists()


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with serving(Settings(port=0), fake_engines()) as served:
        yield served


@pytest.mark.parametrize(
    "answer", ANSWERS, ids=lambda answer: f"{answer.operation['operationId']}-{answer.status}"
)
def test_the_python_client_reads_every_documented_answer(python_client: PythonClient, answer: Answer) -> None:
    operation = python_client.operation(answer.operation["tags"][0], answer.operation["operationId"])
    content = answer.example if isinstance(answer.example, str) else json.dumps(answer.example)
    response = httpx.Response(int(answer.status), text=content)
    read = operation._parse_response(client=python_client.caller, response=response)
    if isinstance(read, bytes):  # a picture
        assert read.decode() == answer.example
        return
    # The client writes the time zone of UTC in another way.
    text = json.dumps(read if isinstance(read, str) else read.to_dict()).replace('+00:00"', 'Z"')
    assert json.loads(text) == answer.example
    if answer.media_type == MEDIA_TYPE:
        assert read.code in BY_CODE
        assert BY_CODE[read.code].status == int(answer.status)


def test_the_python_client_calls_a_gateway(
    python_client: PythonClient, gateway: Gateway, astronaut_jpeg: bytes
) -> None:
    with PythonClient(gateway.url).caller as caller:
        check_calls(python_client, caller, astronaut_jpeg)


def check_calls(python_client: PythonClient, caller: Any, astronaut_jpeg: bytes) -> None:
    classify = python_client.operation("emotions", "classify_image").sync_detailed
    models, types = python_client.module("models"), python_client.module("types")

    def file(content: bytes) -> Any:
        return types.File(payload=io.BytesIO(content), file_name="photo.jpg")

    bodies = [file(astronaut_jpeg), models.ImageForm(image=file(astronaut_jpeg))]
    for body in bodies:
        answer = classify(client=caller, body=body, include="landmarks,quality", x_request_id="mine")
        assert answer.parsed.to_dict() == json.loads(answer.content)
        assert answer.parsed.request_id == "mine"
        (face,) = answer.parsed.faces
        assert face.emotion is models.Emotion.HAPPINESS
        assert face.probabilities["happiness"] == face.confidence
        assert face.landmarks.left_eye.x > 0
    problem = classify(client=caller, body=file(b"text")).parsed
    assert isinstance(problem, models.Problem)
    assert problem.code is models.ProblemCode.INVALID_IMAGE
    invalid = classify(client=caller, body=models.ImageUpload(image=""), x_timeout_ms=0)
    assert invalid.parsed.detail.startswith("X-Timeout-Ms")

    batch = python_client.operation("emotions", "classify_batch").sync(
        client=caller, body=models.BatchForm(images=[file(astronaut_jpeg), file(b"text")])
    )
    first, second = batch.results
    assert first.result.faces[0].emotion == "happiness"
    assert second.problem.code == "invalid_image"
    card = python_client.operation("models", "get_model").sync("expressnet_moe", client=caller)
    assert card.labels[0] == "neutral"
    assert python_client.operation("operations", "get_readiness").sync(client=caller).status == "ready"


def test_the_python_client_reads_a_code_and_an_emotion_of_a_later_version(
    python_client: PythonClient,
) -> None:
    models = python_client.module("models")
    problem = next(answer.example for answer in ANSWERS if answer.media_type == MEDIA_TYPE)
    assert models.Problem.from_dict(problem | {"code": "of_tomorrow"}).code == "of_tomorrow"
    face = ANSWERS[0].example["faces"][0]
    assert models.Face.from_dict(face | {"emotion": "boredom"}).emotion == "boredom"


def npm_program(name: str) -> str:
    found = shutil.which(name, path=str(PACKAGES / ".bin"))
    if found is None or shutil.which("node") is None:
        pytest.skip(f"{name} is not installed: npm ci --prefix tests/docs/npm")
    return found


def test_typescript_has_a_type_for_every_documented_answer(tmp_path: Path) -> None:
    generator, compiler = npm_program("openapi-typescript"), npm_program("tsc")
    generated = subprocess.run(
        [generator, FILE, "-o", tmp_path / "api.ts"], capture_output=True, text=True, check=True
    )
    assert generated.stderr == ""
    assert "warn" not in generated.stdout.lower()
    uses = ['import type { operations } from "./api";']
    for number, answer in enumerate(ANSWERS):
        content = f'operations["{answer.operation["operationId"]}"]["responses"][{answer.status}]["content"]'
        example = json.dumps(answer.example)
        uses.append(f'export const _{number}: {content}["{answer.media_type}"] = {example};')
    (tmp_path / "use.ts").write_text("\n".join(uses), encoding="utf-8")
    checked = subprocess.run(
        [compiler, "--noEmit", "--strict", "use.ts"], cwd=tmp_path, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout


def test_the_document_of_streams_is_valid_asyncapi() -> None:
    schema = PACKAGES / "@asyncapi" / "specs" / "schemas" / "3.0.0.json"
    if not schema.exists():
        pytest.skip("@asyncapi/specs is not installed: npm ci --prefix tests/docs/npm")
    jsonschema.Draft7Validator(json.loads(schema.read_bytes())).validate(asyncapi.document())
