"""A lesson backend: counts photos of webcams in a session, and shows the teacher the class for each minute.

In the EU, inferring emotions in education and at work is prohibited, except for medical or safety reasons:
Article 5(1)(f) of Regulation (EU) 2024/1689. Where it is allowed, report groups only, as this server does.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse

GATEWAY = os.environ.get("GATEWAY", "http://127.0.0.1:8000")
# With 5, a minute is shown if it has 9 participants: four of them are omitted by lot.
SESSION = {"name": "Lesson", "min_participants": 5, "bin_minutes": 1, "ttl_s": 4 * 3600}


@asynccontextmanager
async def lesson(app: FastAPI) -> AsyncIterator[None]:
    """The session starts and ends with this server."""
    async with httpx.AsyncClient(base_url=GATEWAY, timeout=15) as gateway:
        session = (await gateway.post("/v1/sessions", json=SESSION)).raise_for_status().json()
        app.state.gateway, app.state.session = gateway, session["id"]
        yield
        await gateway.delete(f"/v1/sessions/{session['id']}")


app = FastAPI(lifespan=lesson)


@app.post("/photos/{participant}", status_code=204)
async def add_photo(participant: str, request: Request) -> None:
    """Counts a photo. Its answer is dropped, so nobody sees the emotion of one participant."""
    counted = await app.state.gateway.post(
        "/v1/emotions",
        params={"session": app.state.session, "participant": participant},
        content=await request.body(),
        headers={"Content-Type": request.headers.get("Content-Type", "image/jpeg")},
    )
    if counted.is_error:
        raise HTTPException(counted.status_code, counted.json()["detail"])


@app.get("/report", response_class=PlainTextResponse)
async def report() -> str:
    """One line for each minute that is over, and one for the lesson."""
    found = await app.state.gateway.get(f"/v1/sessions/{app.state.session}/report")
    lesson = found.raise_for_status().json()
    lines = [f"minute {1 + minute['start_s'] / 60:.0f}: {shares(minute)}" for minute in lesson["bins"]]
    return "\n".join([*lines, f"lesson: {shares(lesson)}"]) + "\n"


def shares(part: dict[str, Any]) -> str:
    if not (group := part.get("group")):
        return "too few participants"
    return ", ".join(f"{emotion} {share:.0%}" for emotion, share in group["image_share"].items() if share)
