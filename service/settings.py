"""Every setting of the gateway, out of the environment, checked once and frozen."""

from __future__ import annotations

import math
import os
from base64 import b64decode
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
from service.core.priors import BALANCED, parse_prior
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
            raise ValueError(f"{part!r} is neither an address nor a network") from None
    return parts


def _origins(parts: tuple[str, ...]) -> tuple[str, ...]:
    for part in parts:
        url = urlsplit(part)
        known = url.scheme in ("http", "https") and bool(url.hostname)
        if part != "*" and not (known and part == f"{url.scheme}://{url.netloc}"):
            raise ValueError(f"{part!r} is not an origin like https://example.com")
    return parts


def _file_to_be(path: Path) -> Path:
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError("it is a folder, or its folder does not exist")
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


def _hosts(parts: tuple[str, ...]) -> tuple[str, ...]:
    for part in parts:
        if urlsplit(f"//{part}").hostname != part.lower():
            raise ValueError(f"{part!r} is not a host like hooks.example.com")
    return parts


def _webhook_secret(secret: SecretStr) -> SecretStr:
    prefix, _, key = secret.get_secret_value().rpartition("whsec_")
    try:
        valid = not prefix and 24 <= len(b64decode(key, validate=True)) <= 64
    except ValueError:
        valid = False
    if not valid or not secret.get_secret_value().startswith("whsec_"):
        raise ValueError("not `whsec_` and 24 to 64 bytes in base64")
    return secret


def _repository() -> Path:
    """The one of the current folder, or else the one that came with this package."""
    own = Path("model_repository")
    return own if own.is_dir() else Path(__file__).with_name("model_repository")


class Settings(BaseSettings):
    """`EXPRESSNET_*` of the environment. `make reference` makes docs/reference/settings.md of it."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address to listen on. An address that others can reach needs `EXPRESSNET_KEYS_FILE` "
        "or `EXPRESSNET_ALLOW_ANONYMOUS=true`.",
    )
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on. 0 takes a free port.")
    root_path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~-]+)+$")] | None = Field(
        None, description="URL path at which a proxy exposes the service, like `/faces`."
    )
    admin_host: str = Field("127.0.0.1", min_length=1, description="Address for `EXPRESSNET_ADMIN_PORT`.")
    admin_port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None,
        description="Separate port for metrics and documentation. The main port then no longer serves "
        "them. The admin port needs no key.",
    )
    tls_certificate: FilePath | None = Field(
        None,
        description="PEM file with the certificate of this service and its chain. Both ports then use HTTPS.",
    )
    tls_private_key: FilePath | None = Field(
        None, description="PEM file with the private key of `EXPRESSNET_TLS_CERTIFICATE`."
    )
    trusted_proxies: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_networks)
    ] = Field(
        (),
        description="Addresses and networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` "
        "headers are trusted.",
    )
    keys_file: FilePath | None = Field(
        None,
        description="TOML file with the API keys. `expressnet keys new` writes it. The service reloads "
        "it when it changes.",
    )
    allow_anonymous: bool = Field(
        False,
        description="Serve callers without a key, even on an address that others can reach or with a "
        "keys file.",
    )
    rate_limit: Annotated[str, Field(pattern=PATTERN)] | None = Field(
        None,
        description="Rate of images, like `600/minute`, for each key without its own rate and for each "
        "address without a key. The unit is second, minute, hour or day.",
    )
    redis_url: Annotated[SecretStr, AfterValidator(_redis)] | None = Field(
        None,
        description="`redis://` or `rediss://` address of a Redis server. Several gateways share their "
        "rate counts and sessions there.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_origins)] = (
        Field(
            (),
            description="Web origins whose pages may call the service from a browser. `*` allows every "
            "origin.",
        )
    )
    purpose: Purpose | None = Field(
        None, description="Purpose that the gateway is used for. Needs `EXPRESSNET_JURISDICTION`."
    )
    jurisdiction: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(normalized)
    ] = Field(
        (),
        description="Where the people in the images are, and where the answers are used: `eu`, `eea`, "
        "`other` or ISO 3166-1 country codes like `de`. Needs `EXPRESSNET_PURPOSE`.",
    )
    exemption: Exemption | None = Field(
        None,
        description="Reason for which emotion inference is allowed at work or in education: medical or "
        "safety.",
    )
    deployer: Line | None = Field(
        None, description="Name of the organisation that runs the gateway, for the notice in the model card."
    )
    contact: Line | None = Field(
        None, description="Contact for questions and objections, for the notice in the model card."
    )
    aggregate_only: Annotated[int, Field(ge=MIN_GROUP_FACES, le=MAX_FACES)] | None = Field(
        None,
        description="Group mode: the answer is the mean over all faces of an image with at least this "
        "many faces. The service then never answers single faces.",
    )
    audit_file: Annotated[Path, AfterValidator(_file_to_be)] | None = Field(
        None,
        description="File that gets one line for each request with images. The lines contain no image data.",
    )
    model_repository: Annotated[Path, AfterValidator(Path.absolute)] = Field(
        default_factory=_repository,
        description="Folder with the models, in Triton's layout. The default is `model_repository` in "
        "the current folder if it exists, else the models in the package.",
    )
    classifier: str = Field("expressnet_moe", description="Name of the classifier in the model repository.")
    model_version: str | None = Field(
        None,
        pattern=r"^[1-9][0-9]*$",
        description="Version of the classifier. The default is the version in its `manifest.json`.",
    )
    detector: str = Field("yunet", description="Name of the face detector in the model repository.")
    engine: Literal["embedded", "triton"] = Field(
        "embedded", description="Where the models run: in this process, or on an NVIDIA Triton server."
    )
    classifier_engine: Literal["embedded", "triton"] | None = Field(
        None, description="Where the classifier runs. The default is `EXPRESSNET_ENGINE`."
    )
    detector_engine: Literal["embedded", "triton"] | None = Field(
        None, description="Where the detector runs. The default is `EXPRESSNET_ENGINE`."
    )
    triton_url: Annotated[str, AfterValidator(_addresses)] = Field(
        "127.0.0.1:8001",
        description="`HOST:PORT` of Triton's gRPC endpoint, or several `IP:PORT` separated by commas. "
        "Requests alternate between all servers, also between those behind one host name.",
    )
    triton_tls: bool = Field(False, description="Encrypt the connection to Triton.")
    triton_root_certificates: FilePath | None = Field(
        None,
        description="PEM file with the root certificates that Triton's certificate is checked against. "
        "The default is those of the system.",
    )
    triton_certificate: FilePath | None = Field(
        None, description="PEM file with the client certificate of this gateway, if Triton requires one."
    )
    triton_private_key: FilePath | None = Field(
        None, description="PEM file with the private key of `EXPRESSNET_TRITON_CERTIFICATE`."
    )
    prior: Annotated[str, AfterValidator(parse_prior)] = Field(
        BALANCED,
        description="Prior of answers whose request names no `prior`: `training`, `balanced`, or shares of "
        "the emotions like `neutral=0.6,happiness=0.4`.",
    )
    processes: Annotated[int, Field(ge=1, le=64)] = Field(
        # Python's lock leaves one process about four cores' worth of work: docs/explanation/performance.md.
        default_factory=lambda: max(1, math.ceil(cores_of_process() / 4)),
        description="Number of processes that serve the port. They count rates together. Worker threads "
        "and the limits below apply to each process.",
    )
    worker_threads: Count = Field(
        default_factory=lambda settings: fitting_threads(cores_of_process(), settings.get("processes", 1)),
        description="Threads that decode, detect and align. This is also the max number of images "
        "decoded at a time.",
    )
    body_limit_bytes: Count = Field(
        20_000_000, description="Max size of a request body, and of each image in a batch."
    )
    batch_body_limit_bytes: Count = Field(
        100_000_000, description="Max size of the body of `/v1/emotions/batch`, all images together."
    )
    pixel_limit: Count = Field(50_000_000, description="Max number of pixels (width x height) of an image.")
    decode_budget_s: Seconds = Field(
        5.0,
        description="Max time that one image may occupy a worker thread. A slower image is answered "
        "`image_too_complex` or `host_busy`, and a new thread replaces the blocked one.",
    )
    max_in_flight_requests: Count = Field(
        64,
        description="Max number of requests that are admitted at a time. Further requests are answered "
        "`overloaded`.",
    )
    max_images_per_worker: Count = Field(
        7,
        description="Max number of images admitted for each worker thread while more images arrive than "
        "can be answered. At least 8 images are always admitted. Further images are answered "
        "`overloaded`.",
    )
    queue_limit_faces: Count = Field(
        256,
        description="Max number of faces that wait for the classifier. A request that would exceed it is "
        "answered `overloaded`.",
    )
    max_batch_faces: Annotated[int, Field(ge=1, le=256)] = Field(
        32, description="Max number of faces in one call of the classifier."
    )
    max_delay_s: Annotated[float, Field(ge=0, le=1)] = Field(
        0.002, description="Max time that a face waits for faces of other images to share its batch."
    )
    max_connections: Annotated[int, Field(ge=2)] = Field(
        512,
        description="Max number of open connections. A new connection above the limit closes the "
        "connection that has waited longest for its client.",
    )
    max_streams: Count = Field(
        64, description="Max number of open streams. Further streams are answered `overloaded`."
    )
    stream_idle_s: Seconds = Field(
        30.0,
        description="Max time between two messages of a client in a stream. The service then closes the "
        "stream.",
    )
    max_recordings: Count = Field(
        4,
        description="Max number of recordings that are received, wait or are at work. Further recordings "
        "are answered `overloaded`. Two are at work at a time.",
    )
    recording_limit_bytes: Count = Field(1_000_000_000, description="Max size of a recording.")
    recording_limit_minutes: Count = Field(120, description="Max length of a recording.")
    recording_pixel_limit: Count = Field(
        9_437_184, description="Max number of pixels (width x height) of the frames of a recording."
    )
    recording_memory_bytes: Count = Field(
        16_000_000,
        description="Max size of a recording that is kept in memory while it is analysed. A larger one is "
        "in a file without a name in the temporary folder (`TMPDIR`).",
    )
    recording_ttl_s: Annotated[float, Field(ge=60, le=604_800)] = Field(
        3600.0, description="Time for which the results of a recording are kept."
    )
    webhook_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_hosts)] = (
        Field((), description="Hosts that the option `webhook` of a recording may name. Empty: none.")
    )
    webhook_secret: Annotated[SecretStr, AfterValidator(_webhook_secret)] | None = Field(
        None,
        description="`whsec_` and 24 to 64 bytes in base64: the key that webhooks are signed with, by the "
        "Standard Webhooks specification.",
    )
    webhook_private: bool = Field(
        False, description="Send webhooks also to private addresses of these hosts, and over HTTP."
    )
    client_timeout_s: Seconds = Field(
        10.0,
        description="Max time for a client to send the head of a request or the next part of a recording, "
        "and to accept an answer.",
    )
    timeout_s: Seconds = Field(10.0, description="Deadline of a request. `X-Timeout-Ms` can only shorten it.")
    grace_s: Seconds = Field(30.0, description="Max time after SIGTERM to answer the admitted requests.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Min level of log lines."
    )
    log_format: Literal["json", "text"] = Field(
        "json", description="Format of log lines: `json` for machines, `text` for people."
    )

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
                f"EXPRESSNET_HOST={self.host} is open to others: set EXPRESSNET_KEYS_FILE, "
                "or EXPRESSNET_ALLOW_ANONYMOUS=true to serve everyone"
            )
        if (self.tls_certificate is None) != (self.tls_private_key is None):
            raise ValueError("EXPRESSNET_TLS_CERTIFICATE and EXPRESSNET_TLS_PRIVATE_KEY need each other")
        if self.admin_port is not None and self.admin_port == self.port:
            raise ValueError("EXPRESSNET_ADMIN_PORT must differ from EXPRESSNET_PORT")
        return self

    @model_validator(mode="after")
    def _permitted(self) -> Settings:
        if (self.purpose is None) != (not self.jurisdiction):
            raise ValueError("EXPRESSNET_PURPOSE and EXPRESSNET_JURISDICTION need each other")
        if self.purpose is None or self.purpose not in PROHIBITED:
            if self.exemption is not None:
                raise ValueError("EXPRESSNET_EXEMPTION needs EXPRESSNET_PURPOSE=workplace or education")
        elif prohibited(self.purpose, self.jurisdiction, self.exemption):
            raise ValueError(
                f"EXPRESSNET_PURPOSE={self.purpose} is prohibited in {','.join(self.jurisdiction)} by "
                f"{PROHIBITION}, except for medical or safety reasons (EXPRESSNET_EXEMPTION); "
                "see docs/explanation/responsible-use.md"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.max_batch_faces > self.queue_limit_faces:
            raise ValueError("EXPRESSNET_MAX_BATCH_FACES must not exceed EXPRESSNET_QUEUE_LIMIT_FACES")
        pem = self.triton_root_certificates or self.triton_certificate or self.triton_private_key
        if pem is not None and not self.triton_tls:
            raise ValueError(
                "EXPRESSNET_TRITON_ROOT_CERTIFICATES, _CERTIFICATE and _PRIVATE_KEY "
                "need EXPRESSNET_TRITON_TLS=true"
            )
        if (self.triton_certificate is None) != (self.triton_private_key is None):
            raise ValueError(
                "EXPRESSNET_TRITON_CERTIFICATE and EXPRESSNET_TRITON_PRIVATE_KEY need each other"
            )
        if bool(self.webhook_hosts) != (self.webhook_secret is not None):
            raise ValueError("EXPRESSNET_WEBHOOK_HOSTS and EXPRESSNET_WEBHOOK_SECRET need each other")
        if self.webhook_private and not self.webhook_hosts:
            raise ValueError("EXPRESSNET_WEBHOOK_PRIVATE needs EXPRESSNET_WEBHOOK_HOSTS")
        if self.max_streams >= self.max_connections:
            raise ValueError("EXPRESSNET_MAX_STREAMS must be less than EXPRESSNET_MAX_CONNECTIONS")
        if self.batch_body_limit_bytes < self.body_limit_bytes:
            raise ValueError(
                "EXPRESSNET_BATCH_BODY_LIMIT_BYTES must not be less than EXPRESSNET_BODY_LIMIT_BYTES"
            )
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
        reason = _shown(first["msg"].removeprefix("Value error, "))
        if not first["loc"]:
            raise SettingsError(f"{reason}.") from error
        variable = PREFIX + str(first["loc"][0]).upper()
        if first["loc"][0] in ("redis_url", "webhook_secret"):
            # The value is secret, or has a password.
            raise SettingsError(f"{variable} cannot be used: {reason[0].lower()}{reason[1:]}.") from None
        raise SettingsError(
            f"{variable}={_shown(str(first['input']))} cannot be used: {reason[0].lower()}{reason[1:]}."
        ) from error
    except OSError as error:
        # Looking for a file may fail in more ways than that there is none.
        raise SettingsError(
            f"{PREFIX}* names a path that cannot be used: {_shown(str(error.filename))}."
        ) from error


def _shown(text: str) -> str:
    """On one line, and no longer than a person reads."""
    short = text if len(text) <= 300 else f"{text[:300]}..."
    return short if short.isprintable() else ascii(short)
