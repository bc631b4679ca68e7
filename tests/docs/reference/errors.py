"""docs/reference/errors.md, from `service/core/errors.py`. The tests run its examples."""

from __future__ import annotations

from collections.abc import Iterator

from service.api.shaping import to_problem
from service.core.errors import BY_CODE, SERVICE_FAILURES, Internal, RateLimited, ServiceError
from service.http.problems import EXAMPLE_ID
from tests.docs.formatting import as_json
from tests.docs.reference.markdown import fenced, page, plain, table

PHOTO = "curl -s --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/v1/emotions"
KEYS = "<!-- with: EXPRESSNET_KEYS_FILE=known-keys.toml -->"

# An example of each error: a sentence and, if one call causes the error, the comments and the command of a
# block.
CALLS: dict[str, tuple[str, ...]] = {
    "malformed_request": ("The first line of a connection is `hello`.",),
    "invalid_image": ("`notes.txt` is a text.", PHOTO.replace("photo.jpg", "notes.txt")),
    "unauthorized": ("The service has a keys file, and the call has no key.", KEYS, PHOTO),
    "forbidden": (
        "The key has the scope `predict`.",
        KEYS,
        'curl -s -H "X-API-Key: $KEY" http://127.0.0.1:8000/metrics',
    ),
    "origin_not_allowed": (
        "A page of another origin opens a stream.",
        "curl -s -H 'Origin: https://app.example.com' -H 'Connection: Upgrade' -H 'Upgrade: websocket' \\\n"
        "  -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' \\\n"
        "  http://127.0.0.1:8000/v1/stream",
    ),
    "not_available_in_group_mode": (
        "The service runs in group mode.",
        "<!-- with: EXPRESSNET_AGGREGATE_ONLY=5 -->",
        "curl -s 'http://127.0.0.1:8000/v1/stream?max_faces=1'",
    ),
    "not_found": ("", "curl -s http://127.0.0.1:8000/v1/models/resnet"),
    "method_not_allowed": ("", "curl -s http://127.0.0.1:8000/v1/emotions"),
    "request_timeout": ("The headers of a request never end.",),
    "image_too_large": ("`huge.jpg` has 52 megapixels.", PHOTO.replace("photo.jpg", "huge.jpg")),
    "body_too_large": ("`big.jpg` has 25 MB.", PHOTO.replace("photo.jpg", "big.jpg")),
    "unsupported_media_type": ("`icon.ico` is an icon.", PHOTO.replace("photo.jpg", "icon.ico")),
    "invalid_request": ("", PHOTO.replace("http:", "'http:") + "?max_faces=0'"),
    "image_too_complex": ("The decoder of a small file runs for minutes.",),
    "upgrade_required": ("", "curl -s http://127.0.0.1:8000/v1/stream"),
    "overloaded": ("`EXPRESSNET_MAX_IN_FLIGHT_REQUESTS` is 1, and another request is in flight.",),
    "rate_limited": (
        "The rate of the key is `3/hour`, and this is its fourth photo.",
        KEYS,
        "<!-- times: 4 -->",
        PHOTO.replace(" -H 'Content", ' -H "Authorization: Bearer $KEY" \\\n  -H \'Content'),
    ),
    "head_too_large": ("A header has 40,000 bytes.",),
    "internal": ("The classifier raises an unknown exception.",),
    "engine_unavailable": ("The detector fails.",),
    "host_busy": ("A photo has 48 megapixels, and other programs use the cores of the machine.",),
    "invalid_video": (
        "`notes.txt` is a text.",
        "curl -s --data-binary @notes.txt -H 'Content-Type: video/mp4' http://127.0.0.1:8000/v1/recordings",
    ),
    "recording_not_done": ("The report of a recording is requested while the recording is at work.",),
    "video_too_long": ("The video has three hours, and `EXPRESSNET_RECORDING_LIMIT_MINUTES` is 120.",),
    "video_too_complex": ("The decoder finds no frame in a damaged file for a minute.",),
    "insufficient_storage": ("A recording of 600 MB arrives, and the temporary folder has 100 MB left.",),
    "store_unavailable": ("The report of a session is requested, and Redis is down.",),
    "draining": ("A request comes on an open connection after SIGTERM.",),
    "deadline_exceeded": (
        "",
        PHOTO.replace(" http:", " -H 'X-Timeout-Ms: 1' \\\n  http:"),
    ),
}


def errors_page() -> str:
    found = sorted(BY_CODE.values(), key=lambda error: (error.status, error.code))
    overview = table(
        ("code", "status", "title"),
        [(f"[`{each.code}`](#{each.code})", str(each.status), each.title) for each in found],
    )
    return page(
        "Errors",
        "Every error code of the service. Errors are problem documents (RFC 9457) with the media type "
        "`application/problem+json`: [their fields](fields.md#problem). Programs should decide by `code`. "
        "Titles and details are for people.",
        "It is safe to send a request again after every error: nothing of it was done.",
        overview,
        *(part for each in found for part in _section(each)),
    )


def _section(error: type[ServiceError]) -> Iterator[str]:
    yield f"## {error.code}"
    when = Internal if error is ServiceError else error
    yield plain(when.__doc__)
    yield f"- Status: {error.status}\n- What to do: {error.remedy}\n- Retry: {_retry(when)}"
    sentence, *block = CALLS[error.code]
    yield f"Example. {sentence}".strip() if sentence else "Example:"
    if block:
        *marks, command = block
        yield "\n".join([*marks, fenced("sh", command)])
    problem = to_problem(error(error.example), EXAMPLE_ID).model_dump()
    yield fenced("json", as_json(problem))


def _retry(error: type[ServiceError]) -> str:
    if error is RateLimited:
        return "after the time in `Retry-After`"
    if error.retry_after_s is not None:
        return f"after the time in `Retry-After` ({error.retry_after_s} s)"
    return "can help" if issubclass(error, SERVICE_FAILURES) else "does not help"
