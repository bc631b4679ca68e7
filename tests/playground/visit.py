"""A page of the playground, and what its visitors do."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, expect

PATIENCE_MS = 30_000
expect.set_options(timeout=PATIENCE_MS)

# How a browser itself tells, for developers, that an answer was an error.
REFUSED = "Failed to load resource"

# Photos get into the page as a browser hands them over; nothing of it is evaluated by the page.
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
    """One open page; `complaints` are errors of its scripts, its policy and its requests to others."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self._url = url
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._asked)
        page.goto(url)
        # Known when the service has told what it can do.
        expect(page.locator("#version")).not_to_be_empty()

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(REFUSED):
            self.complaints.append(message.text)

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((f"{self._url}/", "blob:", "data:")):
            self.complaints.append(f"asked {request.url}")

    def __getitem__(self, selector: str) -> Locator:
        return self.page.locator(selector)

    def drop(self, data: bytes, name: str = "photo.jpg", media_type: str = "image/jpeg") -> None:
        file = {"data": base64.b64encode(data).decode(), "name": name, "type": media_type}
        transfer = self.page.evaluate_handle(_TRANSFER, file)
        self["body"].dispatch_event("dragenter", {"dataTransfer": transfer})
        self["body"].dispatch_event("drop", {"dataTransfer": transfer})

    def paste(self, png: bytes) -> None:
        """By the clipboard of the system, and the keys."""
        self.page.evaluate(_COPY, {"data": base64.b64encode(png).decode(), "type": "image/png"})
        self.page.keyboard.press("Control+V")

    def include(self, *parts: str) -> None:
        for part in parts:
            self[f'input[name="include"][value="{part}"]'].check()

    def status(self, text: str | re.Pattern[str]) -> None:
        expect(self["#status"]).to_have_text(text)

    def problem(self, sentence: str) -> None:
        expect(self["#problem .lead"]).to_have_text(sentence)

    def boxes(self, width: float) -> list[tuple[float, ...]]:
        """Left, top, right, bottom of each box as it is seen, in pixels of a photo that is `width` wide."""
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
    """A browser without a past; it must have nothing to complain of at the end."""
    with browser.new_context(permissions=["clipboard-read", "clipboard-write"], **context) as opened:
        opened.set_default_timeout(PATIENCE_MS)
        visited = Visit(opened.new_page(), url)
        yield visited
        assert visited.complaints == []


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over union of two boxes, xyxy."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)
