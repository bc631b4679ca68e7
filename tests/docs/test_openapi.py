"""A gateway serves docs/openapi.json, and its examples are valid answers."""

from __future__ import annotations

from typing import Any

import httpx
import jsonschema
import pytest

from service.core.errors import BY_CODE
from service.http.app import create_app
from service.http.problems import MEDIA_TYPE
from service.settings import Settings
from tests.docs.openapi import FILE, as_text, document
from tests.fake_engine import fake_engines
from tests.system.conftest import Process

DOCUMENT = document()
OPERATIONS = {
    operation["operationId"]: operation
    for operations in DOCUMENT["paths"].values()
    for operation in operations.values()
}


def check(document: dict[str, Any], schema: dict[str, Any], value: object) -> None:
    jsonschema.Draft202012Validator(document | schema).validate(value)


def test_the_file_is_the_document_that_is_served(service: Process) -> None:
    served = httpx.get(f"{service.url}/openapi.json").json()
    assert as_text(served) == FILE.read_text(encoding="utf-8"), "run `make reference`"


@pytest.mark.parametrize("settings", [Settings(), Settings(aggregate_only=5)], ids=["faces", "groups"])
def test_every_status_has_valid_examples(settings: Settings) -> None:
    document = create_app(settings, fake_engines()).openapi()
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                for media_type, content in answer.get("content", {}).items():
                    if media_type != MEDIA_TYPE:
                        check(document, content["schema"], content["example"])
                        continue
                    for code, example in content["examples"].items():
                        check(document, content["schema"], example["value"])
                        assert example["value"]["code"] == code
                        assert example["value"]["status"] == BY_CODE[code].status == int(status)


@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_the_common_statuses_and_headers_of_every_route_are_documented(operation_id: str) -> None:
    operation = OPERATIONS[operation_id]
    assert {"400", "408", "429", "431", "500"} <= operation["responses"].keys()
    assert {"$ref": "#/components/parameters/X-Request-ID"} in operation["parameters"]
    for status, answer in operation["responses"].items():
        assert "X-Request-ID" in answer["headers"]
        assert ("WWW-Authenticate" in answer["headers"]) == (status == "401")
        assert ("Retry-After" in answer["headers"]) == (
            status in ("429", "503") and MEDIA_TYPE in answer.get("content", ())
        )


def test_the_calls_for_images_document_all_their_statuses() -> None:
    image, batch = OPERATIONS["classify_image"], OPERATIONS["classify_batch"]
    everything = ["200", "400", "401", "403", "408", "413", "415", "422", "429", "431", "500", "503", "504"]
    assert list(batch["responses"]) == everything
    # A photo may name a session.
    assert list(image["responses"]) == sorted([*everything, "404"])
    # In a batch, a bad image is a problem of its item, not of the call.
    for status, code in (("400", "invalid_image"), ("413", "image_too_large")):
        assert code in image["responses"][status]["content"][MEDIA_TYPE]["examples"]
        assert code not in batch["responses"][status]["content"][MEDIA_TYPE]["examples"]
    assert {"RateLimit", "RateLimit-Policy", "Server-Timing"} <= image["responses"]["200"]["headers"].keys()
    assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= image["responses"]["429"]["headers"].keys()


def test_the_problem_schema_has_every_code_and_allows_new_codes() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert [name for name in schemas if "Problem" in name] == ["Problem", "ProblemCode"]
    assert schemas["ProblemCode"]["enum"] == sorted(BY_CODE)
    assert not {"HTTPValidationError", "ValidationError"} & schemas.keys()
    example = OPERATIONS["get_model"]["responses"]["404"]["content"][MEDIA_TYPE]["examples"]["not_found"]
    check(DOCUMENT, {"$ref": "#/components/schemas/Problem"}, example["value"] | {"code": "of_tomorrow"})


def test_answers_of_models_with_other_emotions_are_valid() -> None:
    answer = OPERATIONS["classify_image"]["responses"]["200"]["content"]["application/json"]
    (face,) = answer["example"]["faces"]
    for emotion, probabilities in (
        ("happiness", {name: p for name, p in face["probabilities"].items() if name != "contempt"}),
        ("boredom", {"boredom": 1.0}),
    ):
        other = face | {"emotion": emotion, "probabilities": probabilities}
        check(DOCUMENT, answer["schema"], answer["example"] | {"faces": [other]})


def test_an_optional_field_is_never_null() -> None:
    answer = OPERATIONS["classify_image"]["responses"]["200"]["content"]["application/json"]
    (face,) = answer["example"]["faces"]
    with pytest.raises(jsonschema.ValidationError):
        check(DOCUMENT, answer["schema"], answer["example"] | {"faces": [face | {"landmarks": None}]})
