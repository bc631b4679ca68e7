"""Errors as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from service.api.shaping import to_problem
from service.core.errors import InvalidRequest, NotFound, ServiceError

MEDIA_TYPE = "application/problem+json"
EXAMPLE_ID = "d0d9ff74a5564f479b9d69c2f97faa2b"


def problem_response(error: ServiceError, request_id: str) -> Response:
    body = to_problem(error, request_id).model_dump_json()
    return Response(body, error.status, error.headers, media_type=MEDIA_TYPE)


def documented(*errors: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """The problem answers of a route by status, with an example of each code, for its OpenAPI document."""
    answers: dict[int | str, dict[str, Any]] = {}
    for status in sorted({error.status for error in errors}):
        kinds = {error.code: error for error in errors if error.status == status}
        examples = {
            code: {"summary": kind.title, "value": to_problem(kind(kind.example), EXAMPLE_ID).model_dump()}
            for code, kind in kinds.items()
        }
        schema = {"$ref": "#/components/schemas/Problem"}
        answers[status] = {
            "description": "; ".join(f"{kind.title} (`{code}`)" for code, kind in kinds.items()),
            "content": {MEDIA_TYPE: {"schema": schema, "examples": examples}},
        }
    return answers


def codes_in(answer: Mapping[str, Any]) -> Iterable[str]:
    """The error codes of one answer of `documented`; empty if the answer is not a problem."""
    found: Iterable[str] = answer.get("content", {}).get(MEDIA_TYPE, {}).get("examples", ())
    return found


def raise_service_errors(app: FastAPI) -> None:
    """Turn FastAPI's errors into `ServiceError`; the layer `Refusals` answers them."""

    @app.exception_handler(RequestValidationError)
    @app.exception_handler(WebSocketRequestValidationError)
    async def invalid_request(
        _: HTTPConnection, error: RequestValidationError | WebSocketRequestValidationError
    ) -> None:
        first = error.errors()[0]
        place = () if first["type"] == "json_invalid" else first["loc"]
        name = ".".join(str(part) for part in place if part not in ("query", "path", "body"))
        reason = first["msg"].removeprefix("Value error, ")
        raise InvalidRequest(f"{name}: {reason}" if name else reason)

    @app.exception_handler(HTTPException)
    async def http_exception(_: HTTPConnection, error: HTTPException) -> None:
        if error.status_code == 404:
            raise NotFound("no resource has this address")
        raise InvalidRequest(str(error.detail))
