"""Every error the service answers with, each owning its code and status (RFC 9457).

ServiceError                       the answer is a problem document
├── MalformedRequest               400 malformed_request
├── InvalidImage                   400 invalid_image
├── Unauthorized                   401 unauthorized, WWW-Authenticate
├── Forbidden                      403 forbidden
├── OriginNotAllowed               403 origin_not_allowed
├── NotAvailableInGroupMode        403 not_available_in_group_mode
├── NotFound                       404 not_found
├── MethodNotAllowed               405 method_not_allowed, Allow
├── RequestTimeout                 408 request_timeout
├── ImageTooLarge                  413 image_too_large
├── BodyTooLarge                   413 body_too_large
├── UnsupportedMediaType           415 unsupported_media_type
│   └── UnsupportedEncoding            of a Content-Encoding, with Accept-Encoding
├── InvalidRequest                 422 invalid_request
├── ImageTooComplex                422 image_too_complex
├── Overloaded                     429 overloaded, Retry-After
├── RateLimited                    429 rate_limited, Retry-After
├── UpgradeRequired                426 upgrade_required, Upgrade
├── HeadTooLarge                   431 head_too_large
├── Unavailable                    503, Retry-After
│   ├── EngineUnavailable              engine_unavailable
│   ├── HostBusy                       host_busy
│   └── Draining                       draining
├── DeadlineExceeded               504 deadline_exceeded
└── Internal                       500 internal
    └── EngineContractError            an engine answered something it must never answer
ModelFileError                     the start is refused: a model or its manifest cannot be trusted
SettingsError                      the start is refused: a setting has a value that cannot be used
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence


class ServiceError(Exception):
    """Base of all that becomes a problem answer. `detail` is shown to the caller: no path, no traceback."""

    code = "internal"
    status = 500
    title = "Something went wrong inside the service"
    example = "The failure was logged with this request's id."
    """A `detail` for the API document."""
    retry_after_s: int | None = None
    extra_headers: Mapping[str, str] = {}

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    @property
    def headers(self) -> dict[str, str]:
        """Those of the answer, beside the problem document."""
        retry = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return {**self.extra_headers, **retry}


class MalformedRequest(ServiceError):
    code, status, title = "malformed_request", 400, "The request is not HTTP as it should be"
    example = "the request is not valid HTTP/1.1"


class InvalidImage(ServiceError):
    code, status, title = "invalid_image", 400, "The image cannot be read"
    example = "the data is not an image; send JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC"


class Unauthorized(ServiceError):
    code, status, title = "unauthorized", 401, "A key is needed"
    example = "no key was sent; send it as Authorization: Bearer KEY, or as X-API-Key"
    extra_headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}  # RFC 9110, 11.6.1


class Forbidden(ServiceError):
    code, status, title = "forbidden", 403, "The key does not allow this"
    example = "the key lacks the scope admin"


class OriginNotAllowed(ServiceError):
    code, status, title = "origin_not_allowed", 403, "Pages of this origin may not call"
    example = (
        "the page's origin is not the Host of this request; let the proxy pass Host on, or add the origin to "
        "EXPRESSNET_CORS_ORIGINS"
    )


class NotAvailableInGroupMode(ServiceError):
    code, status, title = "not_available_in_group_mode", 403, "Only groups are answered here"
    example = "a stream follows single faces"


class NotFound(ServiceError):
    code, status, title = "not_found", 404, "There is nothing here"
    example = "no model of that name is served; there are expressnet_moe, yunet"


class MethodNotAllowed(ServiceError):
    code, status, title = "method_not_allowed", 405, "The method is not allowed"
    example = "GET is not allowed here"

    def __init__(self, detail: str, allowed: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.extra_headers = {"Allow": ", ".join(allowed)}


class RequestTimeout(ServiceError):
    code, status, title = "request_timeout", 408, "The request took too long to arrive"
    example = "the head of the request took too long"


class ImageTooLarge(ServiceError):
    code, status, title = "image_too_large", 413, "The image has too many pixels"
    example = "the image has 8000 x 6500 pixels; at most 50 megapixels are accepted"


class BodyTooLarge(ServiceError):
    code, status, title = "body_too_large", 413, "The request body is too large"
    example = "the body must not exceed 20000000 bytes"


class UnsupportedMediaType(ServiceError):
    code, status, title = "unsupported_media_type", 415, "The media type is not supported"
    example = "ICO images are not supported; send JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC"


class UnsupportedEncoding(UnsupportedMediaType):
    # RFC 9110, 12.5.3 and 15.5.16: what the body may be encoded as.
    extra_headers: Mapping[str, str] = {"Accept-Encoding": "identity"}


class InvalidRequest(ServiceError):
    code, status, title = "invalid_request", 422, "The request is not valid"
    example = "max_faces: Input should be greater than or equal to 1"


class ImageTooComplex(ServiceError):
    code, status, title = "image_too_complex", 422, "The image needs too much work"
    example = "the image needs more than 5 s of work; send it smaller"


class UpgradeRequired(ServiceError):
    code, status, title = "upgrade_required", 426, "This address speaks WebSocket"
    example = "open it as a WebSocket: docs/guides/streams.md"
    extra_headers: Mapping[str, str] = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
    }


class Overloaded(ServiceError):
    code, status, title = "overloaded", 429, "The service is at its limit"
    example = "the limit of 1 requests in flight is reached"
    retry_after_s = 1


class RateLimited(ServiceError):
    """Says by itself when to come back."""

    code, status, title = "rate_limited", 429, "The caller is over its rate"
    example = "the rate is 3 images in 60 s, of which 0 are left"
    retry_after_s = 1

    def __init__(self, detail: str, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class HeadTooLarge(ServiceError):
    code, status, title = "head_too_large", 431, "The head of the request is too large"
    example = "the head must not exceed 32768 bytes"


class Unavailable(ServiceError):
    status = 503
    retry_after_s = 5


class EngineUnavailable(Unavailable):
    code, title = "engine_unavailable", "The inference engine is not available"
    example = "the model could not be run"


class HostBusy(Unavailable):
    code, title = "host_busy", "The machine of the service is busy"
    example = "the image was not done within 5 s: the machine is busy"


class Draining(Unavailable):
    code, title = "draining", "The service is shutting down"
    example = "the service is shutting down"


class DeadlineExceeded(ServiceError):
    code, status, title = "deadline_exceeded", 504, "The deadline has passed"
    example = "the deadline of 0.001 s passed during decode"


class Internal(ServiceError):
    pass


class EngineContractError(Internal):
    """An engine answered with wrong shapes or values; the message is for the log, not for the caller."""


SERVICE_FAILURES: tuple[type[ServiceError], ...] = (Overloaded, Unavailable, DeadlineExceeded, Internal)
"""Those that say nothing about the request: the same one may be answered another time."""


class ModelFileError(Exception):
    """A model file or manifest that cannot be trusted; says which file and why."""


class SettingsError(Exception):
    """A setting has a value that cannot be used; one sentence that names it."""


def reason_of(error: Exception) -> str:
    """What the system says of a failure, for the middle of a sentence."""
    return (getattr(error, "strerror", None) or str(error)).lower()


def _with_code(error: type[ServiceError]) -> Iterator[type[ServiceError]]:
    if "code" in vars(error):
        yield error
    for kind in error.__subclasses__():
        yield from _with_code(kind)


BY_CODE = {error.code: error for error in _with_code(ServiceError)}
