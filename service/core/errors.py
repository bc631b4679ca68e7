"""Every error the service answers with, each owning its code and status (RFC 9457).

ServiceError                       the answer is a problem document
├── MalformedRequest               400 malformed_request
├── InvalidImage                   400 invalid_image
├── Unauthorized                   401 unauthorized
├── Forbidden                      403 forbidden
├── NotFound                       404 not_found
├── MethodNotAllowed               405 method_not_allowed
├── RequestTimeout                 408 request_timeout
├── ImageTooLarge                  413 image_too_large
├── BodyTooLarge                   413 body_too_large
├── UnsupportedMediaType           415 unsupported_media_type
├── InvalidRequest                 422 invalid_request
├── Overloaded                     429 overloaded, Retry-After
├── RateLimited                    429 rate_limited, Retry-After
├── UpgradeRequired                426 upgrade_required
├── HeadTooLarge                   431 head_too_large
├── Unavailable                    503, Retry-After
│   ├── EngineUnavailable              engine_unavailable
│   └── Draining                       draining
├── DeadlineExceeded               504 deadline_exceeded
└── Internal                       500 internal
    └── EngineContractError            an engine answered something it must never answer
ModelFileError                     the start is refused: a model or its manifest cannot be trusted
SettingsError                      the start is refused: a setting has a value that cannot be used
"""

from __future__ import annotations


class ServiceError(Exception):
    """Base of all that becomes a problem answer. `detail` is shown to the caller: no path, no traceback."""

    code = "internal"
    status = 500
    title = "Something went wrong inside the service"
    retry_after_s: int | None = None

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class MalformedRequest(ServiceError):
    code, status, title = "malformed_request", 400, "The request is not HTTP as it should be"


class InvalidImage(ServiceError):
    code, status, title = "invalid_image", 400, "The image cannot be read"


class Unauthorized(ServiceError):
    code, status, title = "unauthorized", 401, "A key is needed"


class Forbidden(ServiceError):
    code, status, title = "forbidden", 403, "The key does not allow this"


class NotFound(ServiceError):
    code, status, title = "not_found", 404, "There is nothing here"


class MethodNotAllowed(ServiceError):
    code, status, title = "method_not_allowed", 405, "The method is not allowed"


class RequestTimeout(ServiceError):
    code, status, title = "request_timeout", 408, "The request took too long to arrive"


class ImageTooLarge(ServiceError):
    code, status, title = "image_too_large", 413, "The image has too many pixels"


class BodyTooLarge(ServiceError):
    code, status, title = "body_too_large", 413, "The request body is too large"


class UnsupportedMediaType(ServiceError):
    code, status, title = "unsupported_media_type", 415, "The media type is not supported"


class InvalidRequest(ServiceError):
    code, status, title = "invalid_request", 422, "The request is not valid"


class UpgradeRequired(ServiceError):
    code, status, title = "upgrade_required", 426, "This address speaks WebSocket"


class Overloaded(ServiceError):
    code, status, title = "overloaded", 429, "The service is at its limit"
    retry_after_s = 1


class RateLimited(ServiceError):
    """Says by itself when to come back."""

    code, status, title = "rate_limited", 429, "The caller is over its rate"
    retry_after_s = 1

    def __init__(self, detail: str, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class HeadTooLarge(ServiceError):
    code, status, title = "head_too_large", 431, "The head of the request is too large"


class Unavailable(ServiceError):
    status = 503
    retry_after_s = 5


class EngineUnavailable(Unavailable):
    code, title = "engine_unavailable", "The inference engine is not available"


class Draining(Unavailable):
    code, title = "draining", "The service is shutting down"


class DeadlineExceeded(ServiceError):
    code, status, title = "deadline_exceeded", 504, "The deadline has passed"


class Internal(ServiceError):
    pass


class EngineContractError(Internal):
    """An engine answered with wrong shapes or values; the message is for the log, not for the caller."""


class ModelFileError(Exception):
    """A model file or manifest that cannot be trusted; says which file and why."""


class SettingsError(Exception):
    """A setting has a value that cannot be used; one sentence that names it."""
