"""Every setting of the gateway, out of the environment, checked once and frozen."""

from __future__ import annotations

import math
import os
from difflib import get_close_matches
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.access.rates import PATTERN
from service.compliance.deployment import Declaration
from service.compliance.jurisdictions import normalized
from service.compliance.law import PROHIBITED, PROHIBITION, Exemption, Purpose, prohibited
from service.core.errors import SettingsError
from service.core.query import MAX_FACES
from service.process.cores import cores_of_process, fitting_threads

PREFIX = "EXPRESSNET_"


def _line(text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > 200:
        raise ValueError("not one printable line of up to 200 characters")
    return text


# A mean of fewer is as good as naming them: who knows their own face knows much of the rest.
MIN_GROUP_FACES = 5
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Line = Annotated[str, AfterValidator(_line)]


def _addresses(text: str) -> str:
    """`HOST:PORT`, or several `IP:PORT`: gRPC looks up one name only."""
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        host, colon, port = part.rpartition(":")
        if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
            raise ValueError(f"{part!r} is not HOST:PORT")
    if (
        len(parts) > 1
        and len({ip_address(part.rpartition(":")[0].strip("[]")).version for part in parts}) > 1
    ):
        raise ValueError("IPv4 and IPv6 addresses cannot be mixed")
    return ",".join(parts)


def _listed(value: object) -> object:
    """The parts of a text with commas between."""
    return (
        tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value
    )


def _networks(parts: tuple[str, ...]) -> tuple[str, ...]:
    for part in parts:
        try:
            ip_network(part)
        except ValueError:
            raise ValueError(f"{part!r} is no address and no network") from None
    return parts


def _origins(parts: tuple[str, ...]) -> tuple[str, ...]:
    for part in parts:
        url = urlsplit(part)
        known = url.scheme in ("http", "https") and bool(url.hostname)
        if part != "*" and not (known and part == f"{url.scheme}://{url.netloc}"):
            raise ValueError(f"{part!r} is not like https://example.com")
    return parts


def _file_to_be(path: Path) -> Path:
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError("not a file in a folder that there is")
    return path


def _redis(url: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(url.get_secret_value())
        valid = parts.scheme in ("redis", "rediss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("not like redis://:PASSWORD@HOST:PORT/0")
    return url


def _repository() -> Path:
    """The one of the current folder, or else the one that came with this package."""
    own = Path("model_repository")
    return own if own.is_dir() else Path(__file__).with_name("model_repository")


class Settings(BaseSettings):
    """`EXPRESSNET_*` of the environment. A test keeps docs/reference/settings.md equal to this class."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    root_path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~-]+)+$")] | None = Field(
        None, description="Path below which a proxy shows the service, like `/faces`."
    )
    admin_host: str = Field("127.0.0.1", min_length=1, description="Address on which `ADMIN_PORT` is.")
    admin_port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None,
        description="Port of metrics and documentation, which are then nowhere else. It asks for no key.",
    )
    tls_certificate: FilePath | None = Field(
        None, description="PEM file of this service's certificate and its chain: both ports speak HTTPS then."
    )
    tls_private_key: FilePath | None = Field(None, description="PEM file of that certificate's key.")
    trusted_proxies: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_networks)
    ] = Field((), description="Addresses and networks whose `X-Forwarded-For` and `-Proto` are believed.")
    keys_file: FilePath | None = Field(
        None, description="TOML file of API keys, followed while it changes; made by `expressnet keys new`."
    )
    allow_anonymous: bool = Field(
        False,
        description="Whether callers without a key are served where the address or a keys file forbids it.",
    )
    rate_limit: Annotated[str, Field(pattern=PATTERN)] | None = Field(
        None,
        description="Images that each key without a rate of its own, and each address without a key, may "
        "send, like `600/minute`; per second, minute, hour or day.",
    )
    redis_url: Annotated[SecretStr, AfterValidator(_redis)] | None = Field(
        None, description="`redis://` or `rediss://` address at which several gateways count rates together."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_origins)] = (
        Field((), description="Origins, or `*`, whose pages may call from a browser.")
    )
    purpose: Purpose | None = Field(
        None, description=f"What the gateway is run for: {', '.join(Purpose)}. Needs `JURISDICTION`."
    )
    jurisdiction: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(normalized)
    ] = Field(
        (),
        description="Where the people are who are analysed, and where the answers are used: `eu`, `eea`, "
        "`other`, countries like `de` (ISO 3166-1). Needs `PURPOSE`.",
    )
    exemption: Exemption | None = Field(
        None, description="Why emotions may be inferred at work or in education: medical, safety."
    )
    deployer: Line | None = Field(None, description="Who runs the gateway, for the notice on its card.")
    contact: Line | None = Field(None, description="Where questions and objections go, for the same.")
    aggregate_only: Annotated[int, Field(ge=MIN_GROUP_FACES, le=MAX_FACES)] | None = Field(
        None,
        description="Minimum faces of an image whose mean is answered; then no face is answered by itself.",
    )
    audit_file: Annotated[Path, AfterValidator(_file_to_be)] | None = Field(
        None, description="File to which a line about each request for images is added, without any image."
    )
    model_repository: Annotated[Path, AfterValidator(Path.absolute)] = Field(
        default_factory=_repository,
        description="Folder with the models, in Triton's layout. Without it: `model_repository` of the "
        "current folder, or else the models of the package.",
    )
    classifier: str = Field("expressnet_moe", description="The classifier's name in the repository.")
    model_version: str | None = Field(
        None,
        pattern=r"^[1-9][0-9]*$",
        description="The classifier's version, if not the one that its `manifest.json` names.",
    )
    detector: str = Field("yunet", description="The face detector's name in the repository.")
    engine: Literal["embedded", "triton"] = Field(
        "embedded", description="Where models run: in this process, or on an NVIDIA Triton server."
    )
    classifier_engine: Literal["embedded", "triton"] | None = Field(
        None, description="Where the classifier runs, if not where `ENGINE` says."
    )
    detector_engine: Literal["embedded", "triton"] | None = Field(
        None, description="Where the detector runs, if not where `ENGINE` says."
    )
    triton_url: Annotated[str, AfterValidator(_addresses)] = Field(
        "127.0.0.1:8001",
        description="`HOST:PORT` of Triton's gRPC endpoint. Servers behind one name are asked in turn, "
        "as are several `IP:PORT` with commas between.",
    )
    triton_tls: bool = Field(False, description="Whether the connection to Triton is encrypted.")
    triton_root_certificates: FilePath | None = Field(
        None, description="PEM file of the authorities that may vouch for Triton; the system's if absent."
    )
    triton_certificate: FilePath | None = Field(
        None, description="PEM file of this gateway's certificate, if Triton asks for one."
    )
    triton_private_key: FilePath | None = Field(None, description="PEM file of that certificate's key.")
    processes: Annotated[int, Field(ge=1, le=64)] = Field(
        # Python's lock leaves one process about four cores' worth of work: docs/explanation/performance.md.
        default_factory=lambda: max(1, math.ceil(cores_of_process() / 4)),
        description="Processes that serve the port. They count rates together; each has worker threads and "
        "all the limits below for itself.",
    )
    worker_threads: Count = Field(
        default_factory=lambda settings: fitting_threads(cores_of_process(), settings.get("processes", 1)),
        description="Threads that decode, detect and align; also the number of images decoded at a time.",
    )
    body_limit_bytes: Count = Field(
        20_000_000, description="Largest request body, and largest image of a batch."
    )
    batch_body_limit_bytes: Count = Field(
        100_000_000, description="Largest request body of `/v1/emotions/batch`, all images together."
    )
    pixel_limit: Count = Field(50_000_000, description="Most pixels (width x height) of an image.")
    decode_budget_s: Seconds = Field(
        5.0,
        description="Longest time that an image may keep a worker thread; then it is `image_too_complex`, "
        "or `host_busy`, and another thread takes over.",
    )
    max_in_flight_requests: Count = Field(
        64, description="Requests that are worked on or wait; one more is answered `overloaded`."
    )
    max_images_per_worker: Count = Field(
        7,
        description="Images admitted for each worker thread, and at least 8 in all, while more arrive than "
        "can be answered. Others are `overloaded`.",
    )
    queue_limit_faces: Count = Field(
        256, description="Faces that wait for the classifier; a request that would go beyond is `overloaded`."
    )
    max_batch_faces: Annotated[int, Field(ge=1, le=256)] = Field(
        32, description="Most faces in one call of the classifier."
    )
    max_delay_s: Annotated[float, Field(ge=0, le=1)] = Field(
        0.002, description="Longest time that a face waits for those of other images to share its batch."
    )
    max_connections: Annotated[int, Field(ge=2)] = Field(
        512,
        description="Open connections; one more takes the place of the one "
        "that has waited longest for its client.",
    )
    max_streams: Count = Field(16, description="Open streams; one more is answered `overloaded`.")
    stream_idle_s: Seconds = Field(
        30.0, description="Longest time that a stream may send nothing; then it is ended."
    )
    client_timeout_s: Seconds = Field(
        10.0,
        description="Longest time that a client may take to send the head of a request or to take an answer.",
    )
    timeout_s: Seconds = Field(10.0, description="Deadline of a request; `X-Timeout-Ms` can only shorten it.")
    grace_s: Seconds = Field(30.0, description="Time after SIGTERM to answer what was admitted.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Minimum level logged."
    )
    log_format: Literal["json", "text"] = Field("json", description="Log lines for machines or for people.")

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the port."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def declaration(self) -> Declaration:
        """What is declared about the use."""
        return Declaration(
            self.purpose,
            self.jurisdiction,
            self.exemption,
            self.aggregate_only,
            self.deployer,
            self.contact,
        )

    @model_validator(mode="after")
    def _closed(self) -> Settings:
        if not self.loopback and self.keys_file is None and not self.allow_anonymous:
            raise ValueError(
                f"others reach host {self.host}, so set keys_file, or allow_anonymous=true to serve everyone"
            )
        if (self.tls_certificate is None) != (self.tls_private_key is None):
            raise ValueError("tls_certificate and tls_private_key need each other")
        if self.admin_port is not None and self.admin_port == self.port:
            raise ValueError("admin_port must not be port")
        if self.redis_url is not None and self.rate_limit is None and self.keys_file is None:
            raise ValueError("redis_url counts nothing without rate_limit or keys_file")
        return self

    @model_validator(mode="after")
    def _permitted(self) -> Settings:
        if (self.purpose is None) != (not self.jurisdiction):
            raise ValueError("purpose and jurisdiction need each other")
        if self.purpose is None or self.purpose not in PROHIBITED:
            if self.exemption is not None:
                raise ValueError("exemption is for purpose workplace or education alone")
        elif prohibited(self.purpose, self.jurisdiction, self.exemption):
            raise ValueError(
                f"purpose {self.purpose} is prohibited in {','.join(self.jurisdiction)} by {PROHIBITION}, "
                "but for medical or safety reasons (exemption); see docs/explanation/responsible-use.md"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.max_batch_faces > self.queue_limit_faces:
            raise ValueError("max_batch_faces must not exceed queue_limit_faces")
        pem = self.triton_root_certificates or self.triton_certificate or self.triton_private_key
        if pem is not None and not self.triton_tls:
            raise ValueError("certificates for Triton need triton_tls")
        if (self.triton_certificate is None) != (self.triton_private_key is None):
            raise ValueError("triton_certificate and triton_private_key need each other")
        if self.max_streams >= self.max_connections:
            raise ValueError("max_streams must be less than max_connections")
        if self.batch_body_limit_bytes < self.body_limit_bytes:
            raise ValueError("batch_body_limit_bytes must not be less than body_limit_bytes")
        return self


def read_settings(**given: object) -> Settings:
    """The settings of this process; those `given` stand above its environment.

    Raises `SettingsError` naming the first bad or unknown variable.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in os.environ:
        # A misspelt limit that is silently ignored is worse than a start that is refused.
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            endings = [setting.removeprefix(PREFIX) for setting in known]
            near = get_close_matches(name.upper().removeprefix(PREFIX), endings, 1)
            meant = f"; did you mean {PREFIX}{near[0]}? If not, unset" if near else "; unset"
            raise SettingsError(
                f"{name} is not a setting{meant} or rename it: names with {PREFIX} are settings, "
                "and docs/reference/settings.md lists all of them."
            )
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise SettingsError(
                f"{PREFIX}*: {_shown(first['msg'].removeprefix('Value error, '))}."
            ) from error
        variable = PREFIX + str(first["loc"][0]).upper()
        if first["loc"][0] == "redis_url":
            raise SettingsError(
                f"{variable} cannot be used: {first['msg'].lower()}."
            ) from None  # it has a password
        raise SettingsError(
            f"{variable}={_shown(str(first['input']))} cannot be used: {_shown(first['msg'].lower())}."
        ) from error
    except OSError as error:
        # Looking for a file may fail in more ways than that there is none.
        raise SettingsError(f"{PREFIX}*: {_shown(str(error.filename))} cannot be used as a path.") from error


def _shown(text: str) -> str:
    """On one line, and no longer than a person reads."""
    short = text if len(text) <= 200 else f"{text[:200]}..."
    return short if short.isprintable() else ascii(short)
