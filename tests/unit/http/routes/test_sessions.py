"""`/v1/sessions` with scripted engines, a real server, and photos and streams of several participants."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from service.access.keys_file import add_key
from service.access.scopes import Scope
from service.settings import Settings
from tests.conftest import Gateway, serving
from tests.fake_engine import fake_engines


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with serving(Settings(port=0), fake_engines()) as served:
        yield served


@pytest.fixture(scope="module")
def groups() -> Iterator[Gateway]:
    with serving(Settings(port=0, aggregate_only=10), fake_engines()) as served:
        yield served


def new_session(gateway: Gateway, **options: object) -> str:
    answer = gateway.client.post("/v1/sessions", json=options)
    assert answer.status_code == 201
    id: str = answer.json()["id"]
    assert answer.headers["Location"] == f"/v1/sessions/{id}/report"
    return id


def report(gateway: Gateway, id: str) -> Any:
    answer = gateway.client.get(f"/v1/sessions/{id}/report")
    assert answer.status_code == 200
    return answer.json()


def opened(gateway: Gateway, id: str, participant: str) -> ClientConnection:
    url = f"{gateway.url.replace('http', 'ws', 1)}/v1/stream?session={id}&participant={participant}"
    return connect(url, compression=None, proxy=None)


def ask(stream: ClientConnection, message: bytes) -> Any:
    stream.send(message)
    return json.loads(stream.recv(timeout=20))


def test_photos_and_frames_of_participants_are_counted(
    gateway: Gateway, astronaut_jpeg: bytes, faceless_jpeg: bytes
) -> None:
    id = new_session(gateway, name="Lesson 4", bin_minutes=30, ttl_s=3600)
    for picture in (astronaut_jpeg, faceless_jpeg, astronaut_jpeg):
        assert gateway.post(picture, session=id, participant="anna").status_code == 200
    with opened(gateway, id, "ben") as stream:
        for picture in (astronaut_jpeg, faceless_jpeg, b"damaged", astronaut_jpeg, astronaut_jpeg):
            ask(stream, picture)
    found = report(gateway, id)
    assert (found["name"], found["bin_minutes"]) == ("Lesson 4", 30)
    assert "min_participants" not in found
    people = {each["participant"]: each for each in found["participants"]}
    # A damaged frame gets a problem, and is not counted.
    assert (people["anna"]["images"], people["ben"]["images"]) == (3, 4)
    assert (people["anna"]["absent"], people["ben"]["absent"]) == (0.3333, 0.25)
    assert people["anna"]["image_share"]["happiness"] == 1
    assert found["group"]["participants"] == 2
    assert found["bins"][0]["participants"] == found["participants"]


def test_a_deleted_session_is_gone(gateway: Gateway, astronaut_jpeg: bytes) -> None:
    id = new_session(gateway)
    with opened(gateway, id, "ben") as stream:
        assert ask(stream, astronaut_jpeg)["type"] == "frame"
        assert gateway.client.delete(f"/v1/sessions/{id}").status_code == 204
        assert ask(stream, astronaut_jpeg)["problem"]["code"] == "not_found"
    for answer in (
        gateway.client.get(f"/v1/sessions/{id}/report"),
        gateway.client.delete(f"/v1/sessions/{id}"),
        gateway.post(astronaut_jpeg, session=id, participant="anna"),
        gateway.client.get("/v1/stream", params={"session": id, "participant": "anna"}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    with pytest.raises(InvalidStatus, match="404"), opened(gateway, id, "ben"):
        pass


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ('{"ttl_s": 59}', "ttl_s: Input should be greater"),
        ('{"bin_minutes": 0}', "bin_minutes: Input should be greater"),
        ('{"min_participants": 4}', "min_participants: Input should be greater"),
        ('{"participants": 30}', "participants: Extra inputs"),
        (json.dumps({"name": "x" * 201}), "name: String should have at most 200"),
        ("{", "JSON decode error"),
        ("[]", "Input should be a valid dictionary"),
    ],
)
def test_invalid_options_are_refused_by_name(gateway: Gateway, body: str, detail: str) -> None:
    answer = gateway.client.post("/v1/sessions", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["detail"].startswith(detail)


def test_options_that_are_too_large_are_refused(gateway: Gateway) -> None:
    answer = gateway.client.post("/v1/sessions", json={"name": "x" * 20_000})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ({"session": "0" * 32}, "session and participant need each other"),
        ({"participant": "anna"}, "session and participant need each other"),
        ({"session": "0" * 32, "participant": "a b"}, "participant: String should match"),
    ],
)
def test_an_image_names_its_session_and_participant(
    gateway: Gateway, astronaut_jpeg: bytes, query: dict[str, str], detail: str
) -> None:
    answer = gateway.post(astronaut_jpeg, **query)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["detail"].startswith(detail)


def test_only_the_key_that_made_a_session_sees_it(tmp_path: Path, astronaut_jpeg: bytes) -> None:
    keys = tmp_path / "keys.toml"
    one, other = (add_key(keys, name, [Scope.PREDICT], None, None) for name in ("one", "other"))
    with serving(Settings(port=0, keys_file=keys), fake_engines()) as gateway:
        gateway.client.headers["X-API-Key"] = one
        id = new_session(gateway)
        assert gateway.post(astronaut_jpeg, session=id, participant="anna").status_code == 200
        gateway.client.headers["X-API-Key"] = other
        assert gateway.client.get(f"/v1/sessions/{id}/report").status_code == 404
        assert gateway.client.delete(f"/v1/sessions/{id}").status_code == 404
        assert gateway.post(astronaut_jpeg, session=id, participant="anna").status_code == 404
        gateway.client.headers["X-API-Key"] = one
        assert report(gateway, id)["participants"][0]["images"] == 1


def test_group_mode_counts_participants_and_shows_none(groups: Gateway, astronaut_jpeg: bytes) -> None:
    id = new_session(groups)
    assert groups.post(astronaut_jpeg, session=id, participant="anna").json()["group"] == {"min_faces": 10}
    with opened(groups, id, "ben") as stream:
        assert ask(stream, astronaut_jpeg)["group"] == {"min_faces": 19}
    assert report(groups, id)["min_participants"] == 10
    assert set(report(groups, id)) == {
        *("id", "name", "started_at", "expires_at", "bin_minutes", "min_participants", "bins")
    }
    answer = groups.client.post("/v1/sessions", json={"min_participants": 9})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["detail"] == "min_participants: must be at least 10 in group mode"
    larger = new_session(groups, min_participants=12)
    assert report(groups, larger)["min_participants"] == 12
