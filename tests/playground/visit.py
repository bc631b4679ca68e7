"""An open page of the playground, and the actions of a visitor."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, expect

TIMEOUT_MS = 30_000
expect.set_options(timeout=TIMEOUT_MS)

# The starts of the browser's own console messages for an answer with an error status.
ERROR_STATUS_MESSAGES = ("Failed to load resource", "WebSocket connection to")

# These scripts hand a photo to the page as a browser does. Playwright evaluates them, not the page.
_TRANSFER = """({data, name, type}) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, {type}));
  return transfer;
}"""
_COPY = """async ({data, type}) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  await navigator.clipboard.write([new ClipboardItem({[type]: new Blob([bytes], {type})})]);
}"""


class Visit:
    """One open page. `errors` has errors of its scripts and its policy, and requests to other hosts."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.errors: list[str] = []
        self._url = url
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._on_request)
        page.goto(url)
        # The version appears once the page knows what the service can do.
        expect(page.locator("#version")).not_to_be_empty()

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(ERROR_STATUS_MESSAGES):
            self.errors.append(message.text)

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((f"{self._url}/", "blob:", "data:")):
            self.errors.append(f"request to {request.url}")

    def __getitem__(self, selector: str) -> Locator:
        return self.page.locator(selector)

    def drop(self, data: bytes, name: str = "photo.jpg", media_type: str = "image/jpeg") -> None:
        file = {"data": base64.b64encode(data).decode(), "name": name, "type": media_type}
        transfer = self.page.evaluate_handle(_TRANSFER, file)
        self["body"].dispatch_event("dragenter", {"dataTransfer": transfer})
        self["body"].dispatch_event("drop", {"dataTransfer": transfer})

    def paste(self, png: bytes) -> None:
        """Paste from the system's clipboard, with the keyboard."""
        self.page.evaluate(_COPY, {"data": base64.b64encode(png).decode(), "type": "image/png"})
        self.page.keyboard.press("Control+V")

    def include(self, *parts: str) -> None:
        for part in parts:
            self[f'input[name="include"][value="{part}"]'].check()

    def expect_status(self, text: str | re.Pattern[str]) -> None:
        expect(self["#status"]).to_have_text(text)

    def expect_problem(self, sentence: str) -> None:
        expect(self["#problem .lead"]).to_have_text(sentence)

    def boxes(self, width: float) -> list[tuple[float, ...]]:
        """Left, top, right, bottom of each box on the page, in pixels of a photo that is `width` wide."""
        frame = self[".frame"].bounding_box()
        assert frame
        scale = width / frame["width"]
        seen = [box.bounding_box() for box in self[".box"].all()]
        return [
            (
                (box["x"] - frame["x"]) * scale,
                (box["y"] - frame["y"]) * scale,
                (box["x"] + box["width"] - frame["x"]) * scale,
                (box["y"] + box["height"] - frame["y"]) * scale,
            )
            for box in seen
            if box
        ]


@contextmanager
def visit(browser: Browser, url: str, **context: Any) -> Iterator[Visit]:
    """Open the page in a new browser context. At the end, the page must have had no errors."""
    with browser.new_context(permissions=["clipboard-read", "clipboard-write"], **context) as opened:
        opened.set_default_timeout(TIMEOUT_MS)
        visited = Visit(opened.new_page(), url)
        yield visited
        assert visited.errors == []


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over union of two boxes, xyxy."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)
