"""Every setting of the gateway, out of the environment, checked once and frozen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "EXPRESSNET_"

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


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
    detector: str = Field("mtcnn", description="The face detector's name in the repository.")
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
        0.002, description="Longest time that a face waits for others to share its batch."
    )
    timeout_s: Seconds = Field(10.0, description="Deadline of a request; `X-Timeout-Ms` can only shorten it.")
    grace_s: Seconds = Field(30.0, description="Time after SIGTERM to answer what was admitted.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")
    log_format: Literal["json", "text"] = Field("json", description="Log lines for machines or for people.")

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.max_batch_faces > self.queue_limit_faces:
            raise ValueError("max_batch_faces must not exceed queue_limit_faces")
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
