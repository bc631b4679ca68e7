"""Access control over real connections: keys, scopes, rates, ports, TLS, proxies and browsers."""

from __future__ import annotations

import base64
import re
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from structlog.testing import capture_logs

from service.access.keys_file import add_key, remove_key
from service.access.scopes import Scope
from service.settings import Settings
from tests.conftest import Gateway, eventually, free_port, serving
from tests.fake_engine import fake_engines

JPEG = {"Content-Type": "image/jpeg"}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def settings(**given: Any) -> Settings:
    return Settings.model_validate({"port": 0, **given})


class Guarded:
    """A client of a gateway that requires keys, its keys file, and the keys by name."""

    def __init__(self, gateway: Gateway, file: Path, keys: dict[str, str]) -> None:
        self.client = gateway.client
        self.file = file
        self.keys = keys

    def rejected(self, reason: str) -> float:
        exposed = self.client.get("/metrics", headers=bearer(self.keys["ops"])).text
        found = re.search(rf'^expressnet_rejected_total{{reason="{reason}"}} (\S+)$', exposed, re.MULTILINE)
        assert found
        return float(found[1])


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    file = tmp_path_factory.mktemp("keys") / "keys.toml"
    keys = {
        "mobile": add_key(file, "mobile", [Scope.PREDICT], None, None),
        "archive": add_key(file, "archive", [Scope.BATCH], "40/day", None),
        "ops": add_key(file, "ops", [Scope.ADMIN], None, None),
        "old": add_key(file, "old", list(Scope), None, datetime(2020, 1, 1, tzinfo=UTC)),
    }
    with serving(settings(keys_file=file), fake_engines()) as gateway:
        yield Guarded(gateway, file, keys)


CALLS = [
    ("GET", "/v1/models", "predict"),
    ("GET", "/v1/models/yunet", "predict"),
    ("POST", "/v1/emotions", "predict"),
    ("POST", "/v1/emotions/batch", "batch"),
    ("GET", "/metrics", "admin"),
    ("GET", "/docs", "admin"),
    ("GET", "/openapi.json", "admin"),
    ("GET", "/static-offline-docs/swagger-ui.css", "admin"),
]


@pytest.mark.parametrize(("method", "path", "scope"), CALLS)
def test_each_call_needs_a_key_with_its_scope(guarded: Guarded, method: str, path: str, scope: str) -> None:
    owner = {"predict": "mobile", "batch": "archive", "admin": "ops"}
    before = {reason: guarded.rejected(reason) for reason in ("unauthorized", "forbidden")}
    unauthorized = 0
    for headers in ({}, bearer("xn_" + "A" * 43), {"X-API-Key": "x"}, {"Authorization": "Basic YTpi"}):
        answer = guarded.client.request(method, path, headers=headers)
        unauthorized += 1
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    for name, key in guarded.keys.items():
        for headers in (bearer(key), {"X-API-Key": key}, {"authorization": f"bearer  {key}"}):
            answer = guarded.client.request(method, path, headers=headers)
            if name == "old":
                unauthorized += 1
                assert (answer.status_code, answer.json()["detail"]) == (401, "the key has expired")
            elif name == owner[scope]:
                assert answer.status_code not in (401, 403), answer.text
            else:
                assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
                assert scope in answer.json()["detail"]
                assert "WWW-Authenticate" not in answer.headers
            assert key not in answer.text
    assert guarded.rejected("unauthorized") - before["unauthorized"] == unauthorized
    assert guarded.rejected("forbidden") - before["forbidden"] == 6


def test_without_a_key_nothing_shows_which_paths_exist(guarded: Guarded) -> None:
    for method, path, status in (("GET", "/whatever/comes", 404), ("DELETE", "/v1/emotions", 405)):
        assert guarded.client.request(method, path).status_code == 401
        for name in ("mobile", "ops"):
            assert (
                guarded.client.request(method, path, headers=bearer(guarded.keys[name])).status_code == status
            )


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/", "/playground/main.js", "/playground/service.json"]
)
def test_probes_and_the_playground_are_open(guarded: Guarded, path: str) -> None:
    assert guarded.client.get(path).status_code == 200


def test_an_empty_key_counts_as_no_key(guarded: Guarded) -> None:
    good = bearer(guarded.keys["mobile"])
    assert guarded.client.get("/v1/models", headers=good | {"X-API-Key": ""}).status_code == 200
    for empty in ({"X-API-Key": ""}, {"Authorization": "Bearer"}):
        answer = guarded.client.get("/v1/models", headers=empty)
        assert "no key was sent" in answer.json()["detail"]


def test_a_request_without_a_key_is_refused_before_its_body_is_read(guarded: Guarded) -> None:
    address = guarded.client.base_url
    with socket.create_connection((address.host, address.port or 0), timeout=10) as connection:
        connection.sendall(b"POST /v1/emotions HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_the_key_s_name_is_logged_and_never_the_key(guarded: Guarded, astronaut_jpeg: bytes) -> None:
    key = guarded.keys["mobile"]
    with capture_logs() as lines:
        answer = guarded.client.post("/v1/emotions", content=astronaut_jpeg, headers=JPEG | bearer(key))
        assert answer.status_code == 200
        guarded.client.get("/v1/models")
        eventually(lambda: len([line for line in lines if line["event"] == "request"]) == 2)
    assert [line.get("key") for line in lines if line["event"] == "request"] == ["mobile", None]
    assert key not in repr(lines)


def test_keys_are_added_and_removed_while_the_gateway_runs(guarded: Guarded) -> None:
    new = add_key(guarded.file, "new", [Scope.PREDICT], None, None)

    def status() -> int:
        return guarded.client.get("/v1/models", headers=bearer(new)).status_code

    eventually(lambda: status() == 200)
    remove_key(guarded.file, "new")
    eventually(lambda: status() == 401)
    good = guarded.file.read_text()
    guarded.file.write_text("[broken")
    invalid = "\nexpressnet_keys_file_valid 0.0\n"
    ops, mobile = bearer(guarded.keys["ops"]), bearer(guarded.keys["mobile"])
    eventually(lambda: invalid in guarded.client.get("/metrics", headers=ops).text)
    assert guarded.client.get("/v1/models", headers=mobile).status_code == 200
    guarded.file.write_text(good)
    eventually(lambda: invalid not in guarded.client.get("/metrics", headers=ops).text)


def test_a_key_s_own_rate_counts_images(guarded: Guarded, faceless_jpeg: bytes) -> None:
    def send(images: int) -> httpx.Response:
        return guarded.client.post(
            "/v1/emotions/batch",
            files=[("images", ("a.jpg", faceless_jpeg))] * images,
            headers=bearer(guarded.keys["archive"]),
        )

    first = send(30)
    assert first.status_code == 200
    assert first.headers["RateLimit-Policy"] == '"key";q=40;w=86400'
    remaining = re.fullmatch(r'"key";r=(\d+);t=\d+', first.headers["RateLimit"])
    assert remaining
    # The calls of earlier tests count as well.
    assert 0 <= int(remaining[1]) <= 10
    before = guarded.rejected("rate_limited")
    refused = send(12)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert 1 <= int(refused.headers["Retry-After"]) <= 86400
    assert refused.headers["RateLimit-Policy"] == '"key";q=40;w=86400'
    assert guarded.rejected("rate_limited") == before + 1
    # A key without its own rate is unlimited, since no default rate is set.
    models = guarded.client.get("/v1/models", headers=bearer(guarded.keys["mobile"]))
    assert "RateLimit" not in models.headers


def test_the_openapi_document_describes_how_to_send_a_key(guarded: Guarded) -> None:
    document = guarded.client.get("/openapi.json", headers=bearer(guarded.keys["ops"])).json()
    assert {scheme["type"] for scheme in document["components"]["securitySchemes"].values()} == {
        "http",
        "apiKey",
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert bool(operation.get("security")) == (path not in ("/livez", "/readyz"))
            assert {} not in operation.get("security", [])


def test_keys_keep_their_rates_beside_anonymous_callers(tmp_path: Path, faceless_jpeg: bytes) -> None:
    file = tmp_path / "keys.toml"
    key = add_key(file, "partner", [Scope.PREDICT], "1000/day", None)
    given = settings(keys_file=file, allow_anonymous=True, rate_limit="3/day", trusted_proxies="127.0.0.0/8")
    with serving(given, fake_engines()) as gateway:

        def send(**headers: str) -> httpx.Response:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return gateway.client.post("/v1/emotions", content=faceless_jpeg, headers=JPEG | named)

        answers = [send(x_forwarded_for="10.0.0.1") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == [
            "r=2",
            "r=1",
            "r=0",
            "r=0",
        ]
        assert answers[0].headers["RateLimit-Policy"] == '"default";q=3;w=86400'
        # The address that the proxy appends counts. What the caller wrote before that address does not.
        assert send(x_forwarded_for="10.0.0.2, 10.0.0.1").status_code == 429
        assert send(x_forwarded_for="10.0.0.1, 10.0.0.2").status_code == 200
        # An IPv6 subscriber has a whole /64, so all its addresses share a rate.
        ipv6_statuses = [send(x_forwarded_for=f"2001:db8:0:1::{host}").status_code for host in range(1, 5)]
        assert ipv6_statuses == [200, 200, 200, 429]
        assert send(x_forwarded_for="2001:db8:0:2::1").status_code == 200
        for _ in range(5):
            answer = send(x_forwarded_for="10.0.0.1", x_api_key=key)
            assert answer.status_code == 200
            assert answer.headers["RateLimit-Policy"] == '"key";q=1000;w=86400'
        # A heatmap is more work than an image, and takes more of the rate.
        remaining = []
        for include in ("quality", "heatmap"):
            answer = gateway.client.post(
                "/v1/emotions",
                content=faceless_jpeg,
                headers=JPEG | {"X-API-Key": key},
                params={"include": include},
            )
            remaining.append(int(re.findall(r"r=(\d+)", answer.headers["RateLimit"])[0]))
        assert remaining == [994, 989]
        # The scheme that the proxy reports counts as well.
        assert "Strict-Transport-Security" in send(x_api_key=key, x_forwarded_proto="https").headers
        assert "Strict-Transport-Security" not in send(x_api_key=key).headers
        wrong = send(x_api_key=key[:-1])
        assert wrong.status_code == 401
        # The operator's pages always require a key.
        assert gateway.client.get("/metrics").status_code == 401
        # Waiting does not help a batch that exceeds the whole rate.
        batch = gateway.client.post(
            "/v1/emotions/batch",
            files=[("images", ("a.jpg", faceless_jpeg))] * 5,
            headers={"X-Forwarded-For": "10.0.0.9"},
        )
        assert (batch.status_code, batch.json()["code"]) == (422, "invalid_request")
        assert "smaller batches" in batch.json()["detail"]


def test_without_a_trusted_proxy_forwarded_headers_are_ignored(faceless_jpeg: bytes) -> None:
    with serving(settings(rate_limit="2/day"), fake_engines()) as gateway:

        def send(number: int) -> httpx.Response:
            forged = {"X-Forwarded-For": f"10.0.0.{number}", "X-Forwarded-Proto": "https"}
            return gateway.client.post("/v1/emotions", content=faceless_jpeg, headers=JPEG | forged)

        answers = [send(number) for number in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert "Strict-Transport-Security" not in answers[0].headers
        assert gateway.metric('expressnet_rejected_total{reason="rate_limited"}') == 1
        # Only images count.
        assert gateway.client.get("/v1/models").status_code == 200


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], ssl.SSLContext]:
    """The TLS settings with a new certificate, and a context that trusts the certificate."""
    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    server = ca.issue_cert("127.0.0.1")
    files = {"tls_certificate": folder / "tls.crt", "tls_private_key": folder / "tls.key"}
    server.private_key_pem.write_to_path(files["tls_private_key"])
    for pem in server.cert_chain_pems:
        pem.write_to_path(files["tls_certificate"], append=True)
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    return files, trusting


@pytest.fixture(scope="module")
def encrypted(authority: tuple[dict[str, Path], ssl.SSLContext]) -> Iterator[tuple[Gateway, httpx.Client]]:
    """A gateway with TLS, an admin port and allowed origins, and a client of the admin port."""
    files, trusting = authority
    port = free_port()
    given = settings(**files, admin_port=port, cors_origins="https://app.example.com, https://b.example.com")
    with (
        serving(given, fake_engines(), verify=trusting) as gateway,
        httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trusting) as admin,
    ):
        yield gateway, admin


def test_both_ports_speak_tls(encrypted: tuple[Gateway, httpx.Client], faceless_jpeg: bytes) -> None:
    gateway, admin = encrypted
    answer = gateway.post(faceless_jpeg)
    assert answer.status_code == 200
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    with pytest.raises(httpx.TransportError):
        httpx.get(gateway.url.replace("https:", "http:") + "/livez")
    with pytest.raises(httpx.ConnectError, match="certificate"):
        httpx.get(gateway.url + "/livez")
    # The server refuses this request before the application receives it.
    malformed = gateway.client.get("/livez", headers={"X-Long": "x" * 40_000})
    assert malformed.status_code == 431
    assert malformed.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert admin.get("/livez").status_code == 200


OPERATOR_PATHS = ("/metrics", "/docs", "/openapi.json", "/static-offline-docs/swagger-ui.css")


def test_metrics_and_documentation_are_on_the_admin_port_only(
    encrypted: tuple[Gateway, httpx.Client],
) -> None:
    gateway, admin = encrypted
    for path in OPERATOR_PATHS:
        assert admin.get(path).status_code == 200
        # The socket decides the port. No header reaches the pages of the other port.
        for headers in ({}, {"Host": str(admin.base_url.netloc, "ascii")}, {"X-Forwarded-Port": "9000"}):
            hidden = gateway.client.get(path, headers=headers)
            assert (hidden.status_code, hidden.json()["code"]) == (404, "not_found")
    for path in ("/livez", "/readyz"):
        assert gateway.client.get(path).status_code == admin.get(path).status_code == 200
    assert gateway.client.get("/v1/models").status_code == 200
    assert admin.get("/v1/models").status_code == 404
    # The playground is on the port of the API.
    assert gateway.client.get("/").headers["Content-Type"] == "text/html; charset=utf-8"
    assert gateway.client.get("/playground/main.js").status_code == 200
    assert admin.get("/").headers["Location"] == "docs"
    assert admin.get("/playground/main.js").status_code == 404
    assert admin.post("/v1/emotions", content=b"x").status_code == 404
    assert '"supportedSubmitMethods": []' in admin.get("/docs").text


def test_pages_of_the_listed_origins_may_call(
    encrypted: tuple[Gateway, httpx.Client], faceless_jpeg: bytes
) -> None:
    gateway, _ = encrypted
    listed, other = {"Origin": "https://b.example.com"}, {"Origin": "https://evil.example.com"}
    preflight = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "X-API-Key, Content-Type",
    }
    allowed = gateway.client.options("/v1/emotions", headers=listed | preflight)
    assert allowed.status_code == 200
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://b.example.com"
    assert "Access-Control-Allow-Credentials" not in allowed.headers
    refused = gateway.client.options("/v1/emotions", headers=other | preflight)
    assert refused.status_code == 400
    assert "Access-Control-Allow-Origin" not in refused.headers
    answer = gateway.client.post("/v1/emotions", content=faceless_jpeg, headers=JPEG | listed)
    assert answer.headers["Access-Control-Allow-Origin"] == "https://b.example.com"
    exposed = {name.strip() for name in answer.headers["Access-Control-Expose-Headers"].split(",")}
    assert {
        "Location",
        "RateLimit",
        "RateLimit-Policy",
        "Retry-After",
        "Server-Timing",
        "X-Request-ID",
    } == exposed


def test_a_preflight_request_needs_no_key(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    add_key(file, "page", [Scope.PREDICT], None, None)
    with serving(settings(keys_file=file, cors_origins="*"), fake_engines()) as gateway:
        origin = {"Origin": "https://app.example.com"}
        preflight = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        assert gateway.client.options("/v1/emotions", headers=origin | preflight).status_code == 200
        # A page can read the reason of the refusal.
        refused = gateway.client.get("/v1/models", headers=origin)
        assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (401, "*")
        # OPTIONS requests that are no preflight need a key.
        assert gateway.client.options("/v1/emotions").status_code == 401
        assert gateway.client.options("/nothing").status_code == 401


def test_a_gateway_on_the_loopback_address_needs_no_key(faceless_jpeg: bytes) -> None:
    with serving(settings(), fake_engines()) as gateway:
        answer = gateway.post(faceless_jpeg)
        assert answer.status_code == 200
        assert not {"access-control-allow-origin", "ratelimit", "strict-transport-security"} & set(
            answer.headers
        )
        document = gateway.client.get("/openapi.json").json()
        assert {} in document["paths"]["/v1/emotions"]["post"]["security"]
        paths = ["/v1/emotions", "/nothing", "/livez", "/readyz", "/metrics", "/openapi.json", "/docs", "/"]
        for path in paths:
            headers = gateway.client.get(path).headers
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
            assert "unsafe-eval" not in headers["Content-Security-Policy"]
            assert (headers.get("Cache-Control") == "no-store") == (
                path == "/nothing" or path.startswith("/v1/")
            )
        assert answer.headers["Cache-Control"] == "no-store"
        # The gateway ignores the upgrade, since this path is no WebSocket.
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        answer = gateway.client.get(
            "/v1/models", headers=upgrade | {"Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw=="}
        )
        assert answer.status_code == 200


def test_the_only_allowed_inline_script_is_the_documentation_s_own() -> None:
    with serving(settings(), fake_engines()) as gateway:
        page = gateway.client.get("/docs")
    policy = page.headers["Content-Security-Policy"]
    (inline,) = re.findall(r"<script>(.*?)</script>", page.text, flags=re.DOTALL)
    digest = base64.b64encode(sha256(inline.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in policy
