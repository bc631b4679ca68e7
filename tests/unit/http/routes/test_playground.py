"""The files of the playground, as a browser requests them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from service.access.keys_file import add_key
from service.access.scopes import Scope
from service.api.schemas import Include
from service.http.routes.playground import MEDIA_TYPES
from service.settings import Settings
from tests.conftest import Gateway, free_port, serving
from tests.fake_engine import fake_engines

NAMES = sorted(item.name for item in (files("service") / "playground").iterdir())
PATHS = ["/", *(f"/playground/{name}" for name in NAMES if name != "index.html"), "/playground/service.json"]


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with serving(Settings(port=0), fake_engines()) as served:
        yield served


@pytest.mark.parametrize("path", PATHS)
def test_a_file_has_its_media_type_and_is_revalidated_by_its_digest(gateway: Gateway, path: str) -> None:
    answer = gateway.client.get(path)
    assert answer.status_code == 200
    assert (
        answer.headers["Content-Type"]
        == MEDIA_TYPES["." + path.rpartition(".")[2] if path != "/" else ".html"]
    )
    assert answer.headers["Cache-Control"] == "no-cache"
    head = gateway.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(answer.content))
    tag = answer.headers["ETag"]
    for known in (tag, f'"other", W/{tag}', "*"):
        again = gateway.client.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    assert gateway.client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_no_two_files_have_the_same_digest(gateway: Gateway) -> None:
    assert len({gateway.client.get(path).headers["ETag"] for path in PATHS}) == len(PATHS)


@pytest.mark.parametrize("name", ["nothing.js", "index.html", "..%2f__init__.py", "%2e%2e/settings.py", ""])
def test_there_are_no_other_files(gateway: Gateway, name: str) -> None:
    answer = gateway.client.get(f"/playground/{name}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_post_is_not_allowed(gateway: Gateway) -> None:
    answer = gateway.client.post("/")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


def test_the_page_may_load_its_own_files_and_nothing_else(gateway: Gateway) -> None:
    page = gateway.client.get("/")
    policy = dict(part.split(" ", 1) for part in page.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["media-src"] == "blob:"
    assert page.headers["Permissions-Policy"] == "camera=(self), microphone=(), geolocation=()"
    # The policy blocks inline styles and scripts without an error, also in browsers that no test uses.
    assert not re.findall(r"<style|<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", page.text)
    for address in re.findall(r'(?:src|href)="([^"#]+)"', page.text):
        # The addresses are relative, so the page also works behind a proxy that adds a path.
        assert not address.startswith(("/", "http"))
        assert gateway.client.get(f"/{address}").status_code == 200


@pytest.mark.parametrize(
    ("options", "asks_for_key", "allows_anonymous", "shows_docs"),
    [
        ({}, False, True, True),
        ({"keys_file": True}, True, False, False),
        ({"keys_file": True, "allow_anonymous": True}, True, True, False),
        ({"admin_port": free_port()}, False, True, False),
    ],
)
def test_service_json_has_the_access_and_the_limits_of_the_service(
    tmp_path: Path, options: dict[str, Any], asks_for_key: bool, allows_anonymous: bool, shows_docs: bool
) -> None:
    if "keys_file" in options:
        options = {**options, "keys_file": tmp_path / "keys.toml"}
        add_key(options["keys_file"], "one", [Scope.PREDICT], None, None)
    settings = Settings.model_validate(
        {"port": 0, "body_limit_bytes": 1000, "recording_limit_bytes": 2000, "timeout_s": 3, **options}
    )
    with serving(settings, fake_engines()) as served:
        about = served.client.get("/playground/service.json").json()
    assert (about["asks_for_key"], about["allows_anonymous"]) == (asks_for_key, allows_anonymous)
    assert about["shows_docs"] == shows_docs
    assert about["include"] == list(Include)
    assert (about["body_limit_bytes"], about["recording_limit_bytes"]) == (1000, 2000)
    assert (about["timeout_s"], about["prior"]) == (3, "balanced")
    # Anyone can read this file without a key, so it must not show a path of the server.
    assert str(tmp_path) not in str(about)
