"""Finds what would keep the gateway from serving."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from io import BytesIO
from typing import Literal

from PIL import Image

from service.access.keys import KeysFileError, read_keys
from service.assembly import INSTALLED_BY, Assembly, assemble, places, served_manifests
from service.core.deadline import Deadline
from service.core.errors import ModelFileError, ServiceError, SettingsError
from service.core.manifest import ONNX, Manifest, verified_model_path
from service.core.query import Query
from service.core.seen import Seen
from service.core.timings import Timings
from service.process.cores import cores_of_process, fitting_threads
from service.serving.server import bind, bind_admin, check_certificate
from service.settings import PREFIX, Settings, read_settings
from service.vision.drawn import drawn_face

State = Literal["ok", "warning", "error"]

REDIS_TIMEOUT_S = 2.0
# Files, sockets and pipes that are not connections of clients.
DESCRIPTORS_BESIDE_CONNECTIONS = 100
DRAWN_PX = (640, 480)
# The package that each place of a model needs.
PACKAGES = {"embedded": "onnxruntime", "triton": "tritonclient"}
# Optional extras, and a package that is only installed with the extra.
EXTRAS = {"triton": "tritonclient", "training": "expressnet-training"}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. fix: one sentence; None if the state is ok."""

    check: str
    state: State
    found: str
    fix: str | None = None


async def diagnose() -> AsyncIterator[Finding]:
    """Run the checks one by one. Checks that depend on a failed one are skipped."""
    try:
        settings = read_settings()
    except SettingsError as error:
        yield Finding(
            "settings",
            "error",
            str(error),
            "Correct or unset the setting; docs/reference/settings.md lists all of them.",
        )
        return
    given = sum(name.upper().startswith(PREFIX) for name in os.environ)
    yield Finding("settings", "ok", f"{given} from the environment, all others have their defaults")
    for check in (_ports, _tls, _keys, _threads, _descriptors):
        for finding in check(settings):
            yield finding
    if settings.redis_url is not None:
        yield await _redis(settings.redis_url.get_secret_value())
    yield _extras()
    before_answer = [*_engine(settings), *_models(settings)]
    for finding in before_answer:
        yield finding
    if all(finding.state != "error" for finding in before_answer):
        async for finding in _answer(settings):
            yield finding


def _ports(settings: Settings) -> Iterator[Finding]:
    for name, opened, host, port in (
        ("port", bind, settings.host, settings.port),
        ("admin port", bind_admin, settings.admin_host, settings.admin_port),
    ):
        try:
            listener = opened(settings)
        except SettingsError as error:
            variable = f"{PREFIX}{name.replace(' ', '_').upper()}"
            fix = f"Stop the program on this port (another gateway?), or set {variable}."
            yield Finding(name, "error", str(error), fix)
            continue
        if listener is not None:
            with closing(listener):
                place = f"{host} port {port} is free" if port else f"any free port of {host}"
                yield Finding(name, "ok", place)


def _tls(settings: Settings) -> Iterator[Finding]:
    try:
        check_certificate(settings)
    except SettingsError as error:
        fix = "Use a PEM file of the certificate and its chain, and its key without a password."
        yield Finding("tls", "error", str(error), fix)
        return
    if settings.tls_certificate is not None:
        yield Finding("tls", "ok", f"{settings.tls_certificate} matches its key")
    elif settings.loopback:
        yield Finding("tls", "ok", "none, and only this machine can reach the port")
    else:
        yield Finding(
            "tls",
            "warning",
            f"none, and others reach host {settings.host}: photos and keys are sent unencrypted",
            f"Set {PREFIX}TLS_CERTIFICATE and _TLS_PRIVATE_KEY, unless a proxy before the gateway uses TLS.",
        )


def _keys(settings: Settings) -> Iterator[Finding]:
    if settings.keys_file is None:
        if settings.loopback:
            yield Finding("keys", "ok", "none, and only this machine can reach the port")
        else:
            fix = f"Make a key with `expressnet keys new` and set {PREFIX}KEYS_FILE."
            found = f"none, and every client that reaches host {settings.host} is served"
            yield Finding("keys", "warning", found, fix)
        return
    try:
        keys = read_keys(settings.keys_file)
    except KeysFileError as error:
        fix = "Fix the file, or make a new one with `expressnet keys new`."
        yield Finding("keys", "error", f"{settings.keys_file} cannot be used: {error}", fix)
        return
    valid = sum(not key.expired for key in keys)
    if valid:
        yield Finding("keys", "ok", f"valid keys in {settings.keys_file}: {valid} of {len(keys)}")
    else:
        fix = "Make a key with `expressnet keys new`."
        yield Finding("keys", "warning", f"no key of {settings.keys_file} is valid now", fix)


def _threads(settings: Settings) -> Iterator[Finding]:
    cores = cores_of_process()
    threads, found = settings.worker_threads, f"{settings.worker_threads} worker threads"
    if settings.processes > 1:
        found = f"{settings.processes} processes with {found} each"
    fitting = fitting_threads(cores, settings.processes)
    if threads > fitting:
        fix = f"Set {PREFIX}WORKER_THREADS={fitting}: more threads only compete for cores."
        yield Finding("threads", "warning", f"{found}, but {cores:g} cores", fix)
    else:
        yield Finding("threads", "ok", f"{found}, {cores:g} cores")


def _descriptors(settings: Settings) -> Iterator[Finding]:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.max_connections + DESCRIPTORS_BESIDE_CONNECTIONS
    if limit != resource.RLIM_INFINITY and limit < needed:
        fix = f"Raise the limit with `ulimit -n {needed}`, or lower {PREFIX}MAX_CONNECTIONS."
        yield Finding("open files", "warning", f"{limit} for {settings.max_connections} connections", fix)
    else:
        yield Finding("open files", "ok", f"enough for {settings.max_connections} connections")


async def _redis(url: str) -> Finding:
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    client = Redis.from_url(url, socket_connect_timeout=REDIS_TIMEOUT_S, socket_timeout=REDIS_TIMEOUT_S)
    try:
        async with asyncio.timeout(2 * REDIS_TIMEOUT_S):
            await client.ping()  # type: ignore[misc]  # its annotation covers the blocking client too
    except (RedisError, OSError, TimeoutError) as error:
        # The text of the error may hold the password of the address.
        found = f"does not answer ({type(error).__name__}): each gateway counts rates for itself"
        return Finding("redis", "warning", found, f"Start Redis, or correct {PREFIX}REDIS_URL.")
    finally:
        await client.aclose()
    return Finding("redis", "ok", "answers")


def _extras() -> Finding:
    present, absent = [], []
    for extra, package in EXTRAS.items():
        try:
            present.append(f"{extra} ({package} {version(package)})")
        except PackageNotFoundError:
            absent.append(extra)
    found = f"installed: {', '.join(present) or 'none'}"
    return Finding("extras", "ok", found + (f"; not installed: {', '.join(absent)}" if absent else ""))


def _engine(settings: Settings) -> Iterator[Finding]:
    for place in sorted(set(places(settings))):
        package = PACKAGES[place]
        if find_spec(package) is None:
            fix = f"Install it: pip install {INSTALLED_BY[package]}."
            yield Finding("engine", "error", f"{place} needs {package}, which is not installed", fix)
        else:
            yield Finding("engine", "ok", f"{place}, by {package} {version(package)}")


def _models(settings: Settings) -> Iterator[Finding]:
    try:
        manifests = served_manifests(settings)
    except ModelFileError as error:
        fix = f"Correct {PREFIX}MODEL_REPOSITORY, _CLASSIFIER, _MODEL_VERSION or _DETECTOR."
        yield Finding("models", "error", str(error), fix)
        return
    for manifest, place in zip(manifests, places(settings), strict=True):
        yield _model(settings, manifest, place)


def _model(settings: Settings, manifest: Manifest, place: str) -> Finding:
    named = f"{manifest.name} {manifest.version}"
    if place == "triton":
        return Finding("models", "ok", f"{named}: its manifest is ok; Triton has the file")
    try:
        verified_model_path(settings.model_repository, manifest, ONNX)
    except ModelFileError as error:
        fix = "Get the file that matches the manifest, or export the model again."
        return Finding("models", "error", str(error), fix)
    return Finding("models", "ok", f"{named}: sha256 {manifest.sha256[ONNX][:12]} matches its manifest")


async def _answer(settings: Settings) -> AsyncIterator[Finding]:
    """Let the models answer, in this process or on Triton."""
    try:
        began = time.perf_counter()
        # The drawn face is no person, who would have to be part of a group.
        async with assemble(settings.model_copy(update={"aggregate_only": None})) as assembly:
            warm_s = time.perf_counter() - began
            ok = True
            async for finding in _pings(settings, assembly):
                ok = ok and finding.state == "ok"
                yield finding
            if ok:
                yield await _drawn_face(settings, assembly, warm_s)
    except ModelFileError as error:
        yield Finding("answer", "error", str(error), "Export the model again.")


async def _pings(settings: Settings, assembly: Assembly) -> AsyncIterator[Finding]:
    for (name, engine), place in zip(assembly.named_engines.items(), places(settings), strict=True):
        if place != "triton":
            continue
        try:
            await engine.ping()
        except ServiceError as error:
            fix = f"Start Triton with this repository, or correct {PREFIX}TRITON_URL."
            yield Finding("triton", "error", f"{name} at {settings.triton_url}: {error.detail}", fix)
        else:
            yield Finding(
                "triton", "ok", f"{name} is ready at {settings.triton_url}, with the manifest's digest"
            )


async def _drawn_face(settings: Settings, assembly: Assembly, warm_s: float) -> Finding:
    async def see(query: Query) -> tuple[Seen, float]:
        began = time.perf_counter()
        deadline = Deadline.after(settings.timeout_s)
        seen = await assembly.faces.run(_drawn_photo(), query, deadline, Timings())
        return seen, 1e3 * (time.perf_counter() - began)

    try:
        _, detect_ms = await see(Query())
        one, classify_ms = await see(Query(detect=False))
    except ServiceError as error:
        fix = "Check the models and the engine's log."
        return Finding("answer", "error", f"{error.code}: {error.detail}", fix)
    width, height = DRAWN_PX
    return Finding(
        "answer",
        "ok",
        f"on a drawn image of {width} x {height} px, detection took {detect_ms:.0f} ms, classification took "
        f"{classify_ms:.0f} ms ({one.emotions[0]}, {one.verdict(0)}); the models were warm in {warm_s:.1f} s",
    )


def _drawn_photo() -> bytes:
    """A drawn face as PNG: enough to run everything once."""
    width, height = DRAWN_PX
    picture = Image.new("RGB", DRAWN_PX, (90, 110, 140))
    face = drawn_face(height // 2)
    picture.paste(face, ((width - face.width) // 2, height // 4))
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
