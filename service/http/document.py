"""The OpenAPI document: FastAPI's routes, with the headers, errors and keys of the layers around them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from service.access.scopes import Scope as KeyScope
from service.api.recordings import RecordingForm
from service.api.schemas import BatchForm, ImageForm, ImageUpload, Problem
from service.core.errors import (
    BY_CODE,
    BodyTooLarge,
    DeadlineExceeded,
    Draining,
    Forbidden,
    HeadTooLarge,
    Internal,
    InvalidRequest,
    MalformedRequest,
    Overloaded,
    RateLimited,
    RequestTimeout,
    Unauthorized,
)
from service.http.problems import EXAMPLE_ID, codes_in, documented
from service.http.route_table import RoutePolicy, RouteTable

DESCRIPTION = (
    "Errors are problem documents (RFC 9457); `code` names the error. Other paths answer 404 `not_found`, "
    "other methods 405 `method_not_allowed`. Streams of frames are described in docs/asyncapi.json of the "
    "repository."
)

# Errors of the connection and the layers, possible on every route.
_EVERYWHERE = (MalformedRequest, RequestTimeout, Overloaded, HeadTooLarge, Internal)
_WITH_KEYS = (Unauthorized, Forbidden)
_COUNTED = (BodyTooLarge, InvalidRequest, Overloaded, RateLimited, Draining)

Parts = dict[str, dict[str, Any]]

PARAMETERS: Parts = {
    "X-Request-ID": {
        "name": "X-Request-ID",
        "in": "header",
        "description": "Your id for this request, used in logs and in the answer: 1 to 128 of the characters "
        "`A-Z a-z 0-9 . _ : -`. Anything else is replaced by a new id.",
        "schema": {"type": "string"},
    },
    "X-Timeout-Ms": {
        "name": "X-Timeout-Ms",
        "in": "header",
        "description": "Deadline in milliseconds, counted from the head of the request. It can only shorten "
        "the deadline of the service.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
    },
}


def _header(description: str, example: str | int, *, always: bool = True) -> dict[str, Any]:
    kind = "integer" if isinstance(example, int) else "string"
    return {"description": description, "required": always, "schema": {"type": kind}, "example": example}


_HEADERS: Parts = {
    "X-Request-ID": _header("The id of the request, or a new one.", EXAMPLE_ID),
    "Server-Timing": _header(
        "Milliseconds in each stage.", "queue;dur=0.4, decode;dur=6.7, detect;dur=31.6, total;dur=56.9"
    ),
    "Retry-After": _header("Seconds to wait before a retry.", 1),
    "RateLimit-Policy": _header(
        "The caller's rate, if there is one: `q` images in `w` seconds.",
        '"default";q=600;w=60',
        always=False,
    ),
    "RateLimit": _header(
        "`r` images remain; after `t` seconds more are available.", '"default";r=599;t=12', always=False
    ),
    "Location": _header("Path of what was made.", "/v1/recordings/3f8a1c5e9b7d42f0a6c8e1d3b5f79024"),
    "WWW-Authenticate": _header("How to send a key.", "Bearer"),
    "Accept-Encoding": _header(
        "The accepted encoding of a body, if the encoding was refused.", "identity", always=False
    ),
}
_KEYS: Parts = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key from the operator's keys file."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
}


def describe(
    app: FastAPI, routes: RouteTable, *, has_keys: bool, allow_anonymous: bool, admin_port: bool
) -> None:
    """Complete what `app.openapi` returns: headers, problems, security and schemas that no route declares."""
    plain = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()
            _add_components(document["components"])
            for path, operations in document["paths"].items():
                for method, operation in operations.items():
                    policy = routes.policy(method.upper(), path)
                    assert policy is not None  # `RouteTable.check` has refused routes without a policy
                    admin = policy.key_scope is KeyScope.ADMIN
                    # The admin port needs no keys.
                    guarded = policy.key_scope is not None and not (admin_port and admin)
                    _complete(operation, policy, guarded)
                    if guarded:
                        anonymous = not has_keys or (allow_anonymous and not admin)
                        ways: list[dict[str, list[str]]] = [{name: []} for name in _KEYS]
                        operation["security"] = [*ways, *([{}] if anonymous else [])]
        return plain()

    app.openapi = complete  # type: ignore[method-assign]


def _add_components(components: dict[str, Any]) -> None:
    _, found = models_json_schema(
        [(model, "validation") for model in (Problem, ImageUpload, ImageForm, BatchForm, RecordingForm)],
        ref_template="#/components/schemas/{model}",
    )
    schemas = components["schemas"] | found["$defs"]
    # FastAPI's answer to a wrong parameter; this service answers with a `Problem`.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    components |= {
        "schemas": dict(sorted(schemas.items())),
        "parameters": PARAMETERS,
        "headers": _HEADERS,
        "securitySchemes": _KEYS,
    }


def _complete(operation: dict[str, Any], policy: RoutePolicy, guarded: bool) -> None:
    counted = policy.rate_images is not None
    names = PARAMETERS if counted and not policy.spooled else ["X-Request-ID"]
    operation.setdefault("parameters", []).extend(
        {"$ref": f"#/components/parameters/{name}"} for name in names
    )
    answers = operation["responses"]
    if "HTTPValidationError" in str(answers.get("422")):
        del answers["422"]
    own = [BY_CODE[code] for answer in answers.values() for code in codes_in(answer)]
    layers = (*_EVERYWHERE, *(_WITH_KEYS if guarded else ()), *(_COUNTED if counted else ()))
    layers += (DeadlineExceeded,) if counted and not policy.spooled else ()
    answers |= {str(status): answer for status, answer in documented(*own, *layers).items()}
    for status, answer in answers.items():
        headers = ["X-Request-ID"]
        if counted and status == "200":
            headers.append("Server-Timing")
        if status == "202":
            headers.append("Location")
        if counted:
            headers += ["RateLimit-Policy", "RateLimit"]
        if counted and status == "415":
            headers.append("Accept-Encoding")
        if any(BY_CODE[code].retry_after_s is not None for code in codes_in(answer)):
            headers.append("Retry-After")
        if status == "201":
            headers.append("Location")
        if status == "401":
            headers.append("WWW-Authenticate")
        answer["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
    operation["responses"] = dict(sorted(answers.items()))
