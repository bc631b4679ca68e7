"""The clients of docs/guides/python.md and javascript.md retry while the service is busy, and only then."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from service.settings import Settings
from tests.conftest import serving
from tests.docs.blocks import ROOT, blocks_of
from tests.fake_engine import fake_engines

NO_ANSWER = 0  # the connection ends without an answer
BUSY = {"title": "Busy", "detail": "wait", "code": "overloaded"}
BAD = {"title": "Bad", "detail": "no image", "code": "invalid_image"}

SYNC = """
from emotions import Emotions, Refused
try:
    print(Emotions().photo(b"x"))
except Refused as refused:
    print(refused.code)
"""
ASYNC = """
import asyncio
from emotions import Refused
from emotions_async import AsyncEmotions
async def main():
    emotions = AsyncEmotions()
    try:
        print(await emotions.photo(b"x"))
    except Refused as refused:
        print(refused.code)
    await emotions.close()
asyncio.run(main())
"""
FETCH = """
import { emotions } from "./web/emotions.js";
try {
  const photo = new Blob(["x"], { type: "image/jpeg" });
  const { EMOTIONS_URL, EMOTIONS_KEY } = process.env;
  console.log(JSON.stringify(await emotions(EMOTIONS_URL, photo, { key: EMOTIONS_KEY })));
} catch (error) {
  console.log(error.code);
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the two pages."""
    folder = tmp_path_factory.mktemp("integrate")
    for page in ("python.md", "javascript.md"):
        for block in blocks_of((ROOT / "docs" / "guides" / page).read_text(encoding="utf-8")):
            if "file" in block.marks:
                target = folder / block.marks["file"]
                target.parent.mkdir(exist_ok=True)
                target.write_text(block.text)
    return folder


@contextmanager
def scripted_server(*answers: tuple[int, Mapping[str, object]]) -> Iterator[tuple[str, list[str | None]]]:
    """A server that gives these answers in order. Yields its address and the keys that it receives."""
    remaining, keys = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            keys.append(self.headers["Authorization"])
            status, body = remaining.pop(0)
            if status == NO_ANSWER:
                self.close_connection = True
                return
            self.send_response(status)
            media_type = "application/json" if status == 200 else "application/problem+json"
            for name, value in (("Content-Type", media_type), ("Retry-After", "0"), ("Connection", "close")):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http_server(Handler) as url:
        yield url, keys


@contextmanager
def http_server(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def run_client(program: str, text: str, url: str, folder: Path) -> str:
    if program == "node" and shutil.which("node") is None:
        pytest.skip("not installed: node")
    if program == "node":
        command = ["node", "--input-type=module", "--eval", text]
    else:
        command = [sys.executable, "-c", text]
    environment = os.environ | {"EMOTIONS_URL": url, "EMOTIONS_KEY": "xn_secret"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


CLIENTS = pytest.mark.parametrize(("program", "text"), [("python", SYNC), ("python", ASYNC), ("node", FETCH)])


@CLIENTS
def test_a_client_retries_while_the_service_is_busy(program: str, text: str, folder: Path) -> None:
    with scripted_server((429, BUSY), (NO_ANSWER, {}), (503, BUSY), (200, {"faces": []})) as (url, keys):
        assert "faces" in run_client(program, text, url, folder)
    assert keys == ["Bearer xn_secret"] * 4


@CLIENTS
def test_a_client_does_not_retry_a_refused_photo(program: str, text: str, folder: Path) -> None:
    with scripted_server((400, BAD)) as (url, keys):
        assert run_client(program, text, url, folder) == "invalid_image"
    assert len(keys) == 1


def test_the_page_shows_faces_in_a_browser(folder: Path, astronaut_jpeg: bytes, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="not installed: playwright")
    browser_path = shutil.which("chromium")
    if browser_path is None:
        pytest.skip("not installed: chromium")
    photo, text = tmp_path / "photo.jpg", tmp_path / "notes.jpg"
    photo.write_bytes(astronaut_jpeg)
    text.write_bytes(b"no photo")
    shutil.copytree(folder / "web", tmp_path / "web")
    index = tmp_path / "web" / "index.html"
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with (
        http_server(functools.partial(handler, directory=str(index.parent))) as page_url,
        serving(Settings(port=0, cors_origins=page_url), fake_engines()) as gateway,
        playwright.sync_playwright() as browsers,
    ):
        browser = browsers.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page()
        index.write_text(index.read_text().replace("http://127.0.0.1:8000", gateway.url))
        page.goto(f"{page_url}/index.html")
        status = page.locator("[role=status]")
        page.set_input_files("input", photo)
        playwright.expect(status).to_contain_text("certain")
        page.set_input_files("input", text)
        playwright.expect(status).to_contain_text("The image cannot be read")
        browser.close()
