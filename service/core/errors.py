"""Every error that the service answers with. Each class owns its code and status (RFC 9457).

ServiceError                       the answer is a problem document
├── MalformedRequest               400 malformed_request
├── InvalidImage                   400 invalid_image
├── InvalidVideo                   400 invalid_video
├── Unauthorized                   401 unauthorized, WWW-Authenticate
├── Forbidden                      403 forbidden
├── OriginNotAllowed               403 origin_not_allowed
├── NotAvailableInGroupMode        403 not_available_in_group_mode
├── NotFound                       404 not_found
├── MethodNotAllowed               405 method_not_allowed, Allow
├── RequestTimeout                 408 request_timeout
├── RecordingNotDone               409 recording_not_done
├── ImageTooLarge                  413 image_too_large
├── VideoTooLong                   413 video_too_long
├── BodyTooLarge                   413 body_too_large
├── UnsupportedMediaType           415 unsupported_media_type
│   └── UnsupportedEncoding            for a Content-Encoding, with Accept-Encoding
├── InvalidRequest                 422 invalid_request
├── ImageTooComplex                422 image_too_complex
├── VideoTooComplex                422 video_too_complex
├── Overloaded                     429 overloaded, Retry-After
├── RateLimited                    429 rate_limited, Retry-After
├── UpgradeRequired                426 upgrade_required, Upgrade
├── HeadTooLarge                   431 head_too_large
├── Unavailable                    503, Retry-After
│   ├── EngineUnavailable              engine_unavailable
│   ├── HostBusy                       host_busy
│   ├── StoreUnavailable               store_unavailable
│   └── Draining                       draining
├── DeadlineExceeded               504 deadline_exceeded
├── InsufficientStorage            507 insufficient_storage
└── Internal                       500 internal
    └── EngineContractError            an engine gave an invalid answer
ModelFileError                     the start is refused: a model or its manifest is invalid
SettingsError                      the start is refused: a setting is invalid
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence


class ServiceError(Exception):
    """Base of all that becomes a problem answer. `detail` is shown to the caller: no path, no traceback.

    The docstring of each class with a code says when callers get it. `make reference` puts it on a page.
    """

    code = "internal"
    status = 500
    title = "The service failed"
    example = "The failure was logged with this request's id."
    """A `detail` for the API document."""
    remedy = "Report the request id to the operator. The log has the cause."
    """What the caller can do."""
    retry_after_s: int | None = None
    extra_headers: Mapping[str, str] = {}

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    @property
    def headers(self) -> dict[str, str]:
        """Headers that this error adds to the answer."""
        retry = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return {**self.extra_headers, **retry}


class MalformedRequest(ServiceError):
    """The bytes on the connection are not HTTP/1.1. The service closes the connection."""

    code, status, title = "malformed_request", 400, "The request is not valid HTTP"
    example = "the request is not valid HTTP/1.1"
    remedy = "Fix the client."


class InvalidImage(ServiceError):
    """The image is empty, damaged or cut short, or the data is not an image."""

    code, status, title = "invalid_image", 400, "The image cannot be read"
    example = "the data is not an image; send JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC"
    remedy = "Check the upload."


class InvalidVideo(ServiceError):
    """The data is not a video, has only sound, is damaged or is cut short."""

    code, status, title = "invalid_video", 400, "The video cannot be read"
    example = "invalid data found when processing input"
    remedy = "Check the upload. The frames up to a cut have an answer."


class Unauthorized(ServiceError):
    """No key was sent, or the key is unknown or expired."""

    code, status, title = "unauthorized", 401, "An API key is required"
    example = "no key was sent; send it as Authorization: Bearer KEY, or as X-API-Key"
    remedy = "Send a valid key."
    extra_headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}  # RFC 9110, 11.6.1


class Forbidden(ServiceError):
    """The key lacks the scope that the call needs. `detail` names the scope."""

    code, status, title = "forbidden", 403, "The key does not allow this"
    example = "the key lacks the scope admin"
    remedy = "Ask the operator for a key with this scope."


class OriginNotAllowed(ServiceError):
    """A web page opens a stream, but its origin is neither the `Host` of the request nor allowed."""

    code, status, title = "origin_not_allowed", 403, "The origin of the page is not allowed"
    example = (
        "the origin of the page differs from the Host header; configure the proxy to pass Host, or add the "
        "origin to EXPRESSNET_CORS_ORIGINS"
    )
    remedy = "Configure the proxy to pass `Host`, or add the origin to `EXPRESSNET_CORS_ORIGINS`."


class NotAvailableInGroupMode(ServiceError):
    """The service runs in group mode, and the call is about single faces."""

    code, status, title = "not_available_in_group_mode", 403, "Not available in group mode"
    example = "max_faces is not available in group mode: callers do not choose the faces of a group"
    remedy = "Remove what `detail` names."


class NotFound(ServiceError):
    """The path or the model does not exist."""

    code, status, title = "not_found", 404, "Not found"
    example = "no model of this name is served; the models are expressnet_moe, yunet"
    remedy = "Correct the path."


class MethodNotAllowed(ServiceError):
    """The path does not support the method."""

    code, status, title = "method_not_allowed", 405, "The method is not allowed"
    example = "GET is not allowed here"
    remedy = "Use a method of the `Allow` header."

    def __init__(self, detail: str, allowed: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.extra_headers = {"Allow": ", ".join(allowed)}


class RecordingNotDone(ServiceError):
    """The timeline, report or picture of a recording is requested that has none, or not yet."""

    code, status, title = "recording_not_done", 409, "The recording has no results"
    example = "the recording is working"
    remedy = "Wait until `state` is `done`, for example with `/events`."


class RequestTimeout(ServiceError):
    """The request head, or the next part of a video, took longer than `EXPRESSNET_CLIENT_TIMEOUT_S`."""

    code, status, title = "request_timeout", 408, "The request took too long to arrive"
    example = "the head of the request took too long"
    remedy = "Send the request without a pause."


class ImageTooLarge(ServiceError):
    """The header of the image states more pixels than `EXPRESSNET_PIXEL_LIMIT`."""

    code, status, title = "image_too_large", 413, "The image has too many pixels"
    example = "the image has 8000 x 6500 pixels; at most 50 megapixels are accepted"
    remedy = "Send a smaller image."


class VideoTooLong(ServiceError):
    """The video exceeds `EXPRESSNET_RECORDING_LIMIT_MINUTES`, or its timeline is too large to keep."""

    code, status, title = "video_too_long", 413, "The video is too long"
    example = "the video has 183.2 minutes; at most 120 minutes are accepted"
    remedy = "Send the video in parts, or choose a smaller `fps`."


class BodyTooLarge(ServiceError):
    """The body exceeds `EXPRESSNET_BODY_LIMIT_BYTES`, or the limit of batches or recordings."""

    code, status, title = "body_too_large", 413, "The request body is too large"
    example = "the body must not exceed 20000000 bytes"
    remedy = "Send a smaller image or video, stronger compression, or fewer images in a batch."


class UnsupportedMediaType(ServiceError):
    """The `Content-Type`, the `Content-Encoding` or the format of the image is not supported."""

    code, status, title = "unsupported_media_type", 415, "The media type is not supported"
    example = "ICO images are not supported; send JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC"
    remedy = "Correct the header, send the body without encoding, or convert the image."


class UnsupportedEncoding(UnsupportedMediaType):
    # RFC 9110, 12.5.3 and 15.5.16: what the body may be encoded as.
    extra_headers: Mapping[str, str] = {"Accept-Encoding": "identity"}


class InvalidRequest(ServiceError):
    """A parameter, a header, the form or the JSON is invalid. `detail` names it and the reason."""

    code, status, title = "invalid_request", 422, "The request is not valid"
    example = "max_faces: Input should be greater than or equal to 1"
    remedy = "Correct the call."


class ImageTooComplex(ServiceError):
    """The image itself needs more time than `EXPRESSNET_DECODE_BUDGET_S`."""

    code, status, title = "image_too_complex", 422, "The image takes too long to process"
    example = "the image takes more than 5 s to process; send a smaller image"
    remedy = "Send a smaller image, or another format."


class VideoTooComplex(ServiceError):
    """The decoder needs more than 60 s for the next frame of a video."""

    code, status, title = "video_too_complex", 422, "The video takes too long to decode"
    example = "the next frame takes more than 60 s to decode"
    remedy = "Convert the video, for example to H.264, or choose a larger `fps`."


class UpgradeRequired(ServiceError):
    """A request for `/v1/stream` does not open a WebSocket, or its handshake is invalid."""

    code, status, title = "upgrade_required", 426, "This path requires a WebSocket"
    example = "open a WebSocket at this path; see docs/guides/streams.md"
    remedy = "Open a WebSocket."
    extra_headers: Mapping[str, str] = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
    }


class Overloaded(ServiceError):
    """A limit is reached: requests in flight, images, queued faces, connections, streams, recordings."""

    code, status, title = "overloaded", 429, "The service is overloaded"
    example = "the limit of 1 requests in flight is reached"
    remedy = "Wait, and wait longer after each further refusal. Or send the request to another instance."
    retry_after_s = 1


class RateLimited(ServiceError):
    """The caller has used up its rate of images."""

    code, status, title = "rate_limited", 429, "The rate limit is exceeded"
    example = "the rate is 3 images in 3600 s; 0 are left"
    remedy = "Wait for the time in `Retry-After`. It is different each time."
    retry_after_s = 1

    def __init__(self, detail: str, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class HeadTooLarge(ServiceError):
    """The request line and the headers exceed 32 KiB. The service closes the connection."""

    code, status, title = "head_too_large", 431, "The request head is too large"
    example = "the head must not exceed 32768 bytes"
    remedy = "Send fewer or shorter headers."


class Unavailable(ServiceError):
    status = 503
    remedy = "Wait, or send the request to another instance."
    retry_after_s = 5


class EngineUnavailable(Unavailable):
    """The engine cannot run a model. `/readyz` shows the state of each engine."""

    code, title = "engine_unavailable", "The inference engine is not available"
    example = "the model could not be run"


class HostBusy(Unavailable):
    """The image exceeded `EXPRESSNET_DECODE_BUDGET_S`, and its thread got less than half of a core."""

    code, title = "host_busy", "The machine is busy"
    example = "the image was not processed within 5 s because the machine is busy"


class StoreUnavailable(Unavailable):
    """Jobs and sessions cannot be stored: Redis does not answer, or the memory for them is full."""

    code, title = "store_unavailable", "The store of jobs and sessions is not available"
    example = "the store of jobs and sessions does not answer"


class Draining(Unavailable):
    """The service is shutting down."""

    code, title = "draining", "The service is shutting down"
    example = "the service is shutting down"


class DeadlineExceeded(ServiceError):
    """The deadline passed. `detail` names the stage."""

    code, status, title = "deadline_exceeded", 504, "The deadline has passed"
    example = "the deadline of 0.001 s passed during decode"
    remedy = "Allow more time, send smaller images, or send fewer requests at a time."


class InsufficientStorage(ServiceError):
    """The disk of the service has no space for a recording while it is analysed."""

    code, status, title = "insufficient_storage", 507, "The service has no space for the recording"
    example = "the recording cannot be kept: no space left on device"
    remedy = "Wait, send a smaller video, or send it to another instance."


class Internal(ServiceError):
    """An unexpected failure in the service."""


class EngineContractError(Internal):
    """An engine answered with invalid shapes or values. The message is for the log, not for the caller."""


SERVICE_FAILURES: tuple[type[ServiceError], ...] = (Overloaded, Unavailable, DeadlineExceeded, Internal)
"""Failures that do not depend on the request: the same request may succeed later."""


class ModelFileError(Exception):
    """A model file or manifest is invalid. The message names the file and the reason."""


class SettingsError(Exception):
    """A setting is invalid. The message is one sentence that names it."""


def reason_of(error: Exception) -> str:
    """The system's words for a failure, in lower case."""
    return (getattr(error, "strerror", None) or str(error)).lower()


def _with_code(error: type[ServiceError]) -> Iterator[type[ServiceError]]:
    if "code" in vars(error):
        yield error
    for kind in error.__subclasses__():
        yield from _with_code(kind)


BY_CODE = {error.code: error for error in _with_code(ServiceError)}
