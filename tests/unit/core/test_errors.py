"""The codes and statuses of the errors, and the drawing that shows them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from service.api.shaping import to_problem
from service.core import errors
from service.core.errors import ServiceError
from service.http.problems import problem_response

# The public contract: codes and statuses that callers rely on.
CONTRACT = {
    "malformed_request": 400,
    "invalid_image": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "origin_not_allowed": 403,
    "not_available_in_group_mode": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "image_too_large": 413,
    "body_too_large": 413,
    "unsupported_media_type": 415,
    "invalid_request": 422,
    "image_too_complex": 422,
    "invalid_video": 400,
    "recording_not_done": 409,
    "video_too_long": 413,
    "video_too_complex": 422,
    "insufficient_storage": 507,
    "rate_limited": 429,
    "overloaded": 429,
    "upgrade_required": 426,
    "head_too_large": 431,
    "internal": 500,
    "engine_unavailable": 503,
    "host_busy": 503,
    "store_unavailable": 503,
    "draining": 503,
    "deadline_exceeded": 504,
}


def family(root: type[Exception]) -> Iterator[type[Exception]]:
    """`root` and its subclasses in errors.py."""
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from family(child)


ALL: list[type[ServiceError]] = [e for e in family(ServiceError) if issubclass(e, ServiceError)]
ANSWERED = [error for error in ALL if not error.__subclasses__() and error is not ServiceError]


@pytest.mark.parametrize("error", ANSWERED, ids=lambda error: error.__name__)
def test_status_follows_the_contract(error: type[ServiceError]) -> None:
    assert error.status == CONTRACT[error.code]


def test_codes_are_those_of_the_contract() -> None:
    assert {error.code for error in ALL} == set(CONTRACT)


@pytest.mark.parametrize("error", ANSWERED, ids=lambda error: error.__name__)
def test_only_temporary_errors_have_retry_after(error: type[ServiceError]) -> None:
    answer = problem_response(error("why"), "id-1")
    assert answer.status_code == error.status
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("retry-after" in answer.headers) == (error.status in (429, 503))


@pytest.mark.parametrize("error", ANSWERED, ids=lambda error: error.__name__)
def test_a_caller_never_sees_the_cause_of_an_internal_error(error: type[ServiceError]) -> None:
    problem = to_problem(error("/srv/secret: rows missing"), "id-1")
    assert (problem.code, problem.status, problem.request_id) == (error.code, error.status, "id-1")
    assert problem.type.endswith(error.code)
    assert problem.title
    assert ("secret" in problem.detail) == (error.status != 500)


def drawn() -> dict[str, tuple[str | None, str]]:
    """Class -> (parent, the text beside the class), from the drawing in the module's docstring."""
    tree: dict[str, tuple[str | None, str]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines()[2:]:
        if row := re.fullmatch(r"((?:│   |    )*(?:[├└]── )?)([A-Z]\w+) +(\S.*)", line):
            depth = len(row[1]) // 4
            path[depth:] = [row[2]]
            tree[row[2]] = (path[depth - 1] if depth else None, row[3])
    return tree


def test_the_drawing_shows_the_real_hierarchy() -> None:
    real: dict[str, str | None] = {}
    for name, error in vars(errors).items():
        if isinstance(error, type) and issubclass(error, Exception):
            parent = error.__base__
            inside = parent is not None and parent.__module__ == errors.__name__
            real[name] = parent.__name__ if inside and parent is not None else None
    assert {name: parent for name, (parent, _) in drawn().items()} == real


@pytest.mark.parametrize("error", ANSWERED, ids=lambda error: error.__name__)
def test_the_drawing_shows_code_status_and_retry_after(error: type[ServiceError]) -> None:
    tree = drawn()
    words, name = "", error.__name__
    while True:
        parent, beside = tree[name]
        words += f" {beside}"
        if parent is None or parent == "ServiceError":
            break
        name = parent
    assert re.search(rf"\b{error.status}\b", words), words
    assert re.search(rf"\b{error.code}\b", words), words
    assert ("Retry-After" in words) == (error.retry_after_s is not None)
