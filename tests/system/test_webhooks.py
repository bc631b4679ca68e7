"""Webhooks of recordings to a real receiver that is slow, down, redirecting or failing."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from service.recordings import webhooks
from service.settings import Settings
from tests.conftest import Gateway, eventually, free_port, serving
from tests.fake_engine import fake_engines
from tests.recordings import RECORDINGS, clip, ended, send

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


class Receiver:
    """An HTTP server that answers each message by the next of `answers`, and the last one for ever."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[Callable[[BaseHTTPRequestHandler], None]] = [status(204)]
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.messages.append((self.path, dict(self.headers), body))
                answers = receiver.answers
                (answers.pop(0) if len(answers) > 1 else answers[0])(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"


def status(code: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()

    return answer


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Failed messages are sent again at once."""
    monkeypatch.setattr(webhooks, "DELAYS_S", (0.05,) * 3)
    found = Receiver()
    yield found
    found.server.shutdown()
    found.server.server_close()


def settings(**more: Any) -> Settings:
    given = {"port": 0, "webhook_hosts": "127.0.0.1", "webhook_secret": SECRET, "webhook_private": True}
    return Settings.model_validate(given | more)


def outcome(gateway: Gateway, name: str) -> float:
    return gateway.metric(f'expressnet_webhooks_total{{outcome="{name}"}}')


def test_the_receiver_gets_a_signed_message_without_images(receiver: Receiver, tmp_path: Path) -> None:
    with serving(settings(), fake_engines()) as gateway:
        id = send(gateway, clip(tmp_path), webhook=receiver.url).json()["id"]
        eventually(lambda: outcome(gateway, "delivered") == 1)
        job = ended(gateway, id)
        assert gateway.client.get(f"{RECORDINGS}/{id}/report").status_code == 200
    ((path, headers, body),) = receiver.messages
    assert path == "/hook"
    message = Webhook(SECRET).verify(body, headers)
    assert message["type"] == "recording.done"
    assert message["data"] == job
    assert set(message) == {"type", "timestamp", "data"}


def test_a_failed_recording_is_announced(receiver: Receiver, tmp_path: Path) -> None:
    data = clip(tmp_path, seconds=10, kind="mkv")
    with serving(settings(), fake_engines()) as gateway:
        send(gateway, data[: len(data) // 2], webhook=receiver.url, fps=1)
        eventually(lambda: receiver.messages)
    message = json.loads(receiver.messages[0][2])
    assert (message["type"], message["data"]["problem"]["code"]) == ("recording.failed", "invalid_video")


def test_a_message_is_sent_again_until_it_is_accepted(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "TIMEOUT_S", 0.5)
    late = threading.Event()

    def slow(handler: BaseHTTPRequestHandler) -> None:
        late.wait(20)

    receiver.answers = [status(500), slow, status(302, Location=receiver.url + "/elsewhere"), status(200)]
    with serving(settings(), fake_engines()) as gateway:
        send(gateway, clip(tmp_path), webhook=receiver.url)
        eventually(lambda: outcome(gateway, "delivered") == 1)
        late.set()
    assert [path for path, *_ in receiver.messages] == ["/hook"] * 4
    assert len({headers["webhook-id"] for _, headers, _ in receiver.messages}) == 1
    for _, headers, body in receiver.messages:
        Webhook(SECRET).verify(body, headers)


@pytest.mark.parametrize("answer", [status(500), status(301, Location="http://127.0.0.1/")])
def test_a_message_that_is_never_accepted_is_given_up(
    receiver: Receiver, tmp_path: Path, answer: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    receiver.answers = [answer]
    with serving(settings(), fake_engines()) as gateway:
        send(gateway, clip(tmp_path), webhook=receiver.url)
        eventually(lambda: outcome(gateway, "undelivered") == 1)
    assert len(receiver.messages) == 4


def test_a_receiver_that_is_gone_is_not_tried_again(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answers = [status(410)]
    with serving(settings(), fake_engines()) as gateway:
        send(gateway, clip(tmp_path), webhook=receiver.url)
        eventually(lambda: outcome(gateway, "undelivered") == 1)
    assert len(receiver.messages) == 1


def test_a_receiver_that_is_down_is_given_up(receiver: Receiver, tmp_path: Path) -> None:
    with serving(settings(), fake_engines()) as gateway:
        send(gateway, clip(tmp_path), webhook=f"http://127.0.0.1:{free_port()}/")
        eventually(lambda: outcome(gateway, "undelivered") == 1)


def test_the_last_attempt_is_within_a_day() -> None:
    assert sum(webhooks.DELAYS_S) * (1 + webhooks.JITTER) + 8 * webhooks.TIMEOUT_S < 86_400


def test_private_addresses_get_nothing(receiver: Receiver, tmp_path: Path) -> None:
    port = receiver.server.server_port
    with serving(
        settings(webhook_private=False, webhook_hosts="localhost,127.0.0.1"), fake_engines()
    ) as gateway:
        for host in ("localhost", "127.0.0.1"):
            answer = send(gateway, clip(tmp_path), webhook=f"https://{host}:{port}/hook")
            assert answer.status_code == 202
        eventually(lambda: outcome(gateway, "undelivered") == 2)
    assert receiver.messages == []


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "https://example.com/",
        "https://hooks.example.com.evil.example/",
        "https://user:password@hooks.example.com/",
        "ftp://hooks.example.com/",
        "https://hooks.example.com:99999/",
        "https://[/",
        "hooks.example.com",
        "",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    given = settings(webhook_hosts="hooks.example.com", webhook_private=False)
    with serving(given, fake_engines()) as gateway:
        answer = send(gateway, b"", webhook=url)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert answer.json()["detail"].startswith("webhook: ")


def test_without_allowed_hosts_there_are_no_webhooks() -> None:
    with serving(Settings(port=0), fake_engines()) as gateway:
        answer = send(gateway, b"", webhook="https://hooks.example.com/")
        assert answer.status_code == 422
        assert "EXPRESSNET_WEBHOOK_HOSTS" in answer.json()["detail"]
