"""Errors to `application/problem+json` (RFC 9457): the one place where they become answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from service.api.schemas import Problem
from service.core.errors import Internal, InvalidRequest, MethodNotAllowed, NotFound, ServiceError
from service.telemetry.logs import log
from service.telemetry.metrics import Metrics

MEDIA_TYPE = "application/problem+json"
EXAMPLE_ID = "d0d9ff74a5564f479b9d69c2f97faa2b"


def to_problem(error: ServiceError, request_id: str) -> Problem:
    """What the caller may know of an error: nothing of an `Internal` one but that it happened."""
    detail = "The failure was logged with this request's id." if isinstance(error, Internal) else error.detail
    return Problem(
        type=f"urn:expressnet:problem:{error.code}",
        title=error.title,
        status=error.status,
        detail=detail,
        code=error.code,
        request_id=request_id,
    )


def problem_response(
    error: ServiceError, request_id: str, headers: Mapping[str, str] | None = None
) -> Response:
    response = Response(
        to_problem(error, request_id).model_dump_json(),
        error.status,
        {**error.headers, **(headers or {})},
        media_type=MEDIA_TYPE,
    )
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


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
    """The codes of one answer of `documented`; none of an answer that is no problem."""
    found: Iterable[str] = answer.get("content", {}).get(MEDIA_TYPE, {}).get("examples", ())
    return found


def invalid_request(error: RequestValidationError | WebSocketRequestValidationError) -> InvalidRequest:
    """The first thing that is wrong with the parameters, by name."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"] if part not in ("query", "path"))
    return InvalidRequest(f"{name}: {first['msg'].removeprefix('Value error, ')}")


def install_handlers(app: FastAPI, metrics: Metrics) -> None:
    """Make every error of a route a problem answer. What no handler knows goes up to `Observation`."""

    @app.exception_handler(ServiceError)
    async def service_error(request: Request, error: ServiceError) -> Response:
        metrics.count_rejection(error)
        if isinstance(error, Internal):
            log.error("internal error", error=type(error).__name__, detail=error.detail, exc_info=error)
        return problem_response(error, request.state.request_id)

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> Response:
        return problem_response(invalid_request(error), request.state.request_id)

    @app.exception_handler(WebSocketRequestValidationError)
    async def stream_validation_error(socket: WebSocket, error: WebSocketRequestValidationError) -> Response:
        return problem_response(invalid_request(error), socket.state.request_id)

    @app.exception_handler(HTTPException)
    async def http_exception(request: Request, error: HTTPException) -> Response:
        problem: ServiceError
        if error.status_code == 404:
            problem = NotFound("no resource has this address")
        elif error.status_code == 405:
            problem = MethodNotAllowed(f"{request.method} is not allowed here")
        else:
            problem = InvalidRequest(str(error.detail))
        return problem_response(problem, request.state.request_id, error.headers)
