"""Every setting of the gateway, out of the environment, checked once and frozen."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, FilePath, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "EXPRESSNET_"

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


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


class SettingsError(Exception):
    """A setting has a value that cannot be used; one sentence that names it."""


class Settings(BaseSettings):
    """`EXPRESSNET_*` of the environment. A test keeps docs/settings.md equal to this class."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    model_repository: Path = Field(
        Path("model_repository"), description="Folder with the models, in Triton's layout."
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
    worker_threads: Count = Field(
        default_factory=lambda: os.cpu_count() or 1,
        description="Threads that decode, detect and align; also the number of images decoded at a time.",
    )
    body_limit_bytes: Count = Field(
        20_000_000, description="Largest request body, and largest image of a batch."
    )
    batch_body_limit_bytes: Count = Field(
        100_000_000, description="Largest request body of `/v1/emotions/batch`, all images together."
    )
    pixel_limit: Count = Field(50_000_000, description="Most pixels (width x height) of an image.")
    max_in_flight_requests: Count = Field(
        64, description="Requests that are worked on or wait; one more is answered `overloaded`."
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
    timeout_s: Seconds = Field(10.0, description="Deadline of a request; `X-Timeout-Ms` can only shorten it.")
    grace_s: Seconds = Field(30.0, description="Time after SIGTERM to answer what was admitted.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")
    log_format: Literal["json", "text"] = Field("json", description="Log lines for machines or for people.")

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.max_batch_faces > self.queue_limit_faces:
            raise ValueError("max_batch_faces must not exceed queue_limit_faces")
        pem = self.triton_root_certificates or self.triton_certificate or self.triton_private_key
        if pem is not None and not self.triton_tls:
            raise ValueError("certificates for Triton need triton_tls")
        if (self.triton_certificate is None) != (self.triton_private_key is None):
            raise ValueError("triton_certificate and triton_private_key need each other")
        if self.batch_body_limit_bytes < self.body_limit_bytes:
            raise ValueError("batch_body_limit_bytes must not be less than body_limit_bytes")
        return self


def read_settings() -> Settings:
    """The settings of this process. Raises `SettingsError` naming the first bad or unknown variable."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in os.environ:
        # A misspelt limit that is silently ignored is worse than a start that is refused.
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            raise SettingsError(f"{name} is not a setting; docs/settings.md lists all of them.")
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise SettingsError(f"{PREFIX}*: {first['msg'].removeprefix('Value error, ')}.") from error
        variable = PREFIX + str(first["loc"][0]).upper()
        raise SettingsError(
            f"{variable}={first['input']!s} cannot be used: {first['msg'].lower()}."
        ) from error
