"""A support-call backend: has the customer's half of a recorded call analysed, and keeps the result.

In the EU, inferring emotions at work and in education is prohibited, except for medical or safety reasons:
Article 5(1)(f) of Regulation (EU) 2024/1689. The agent is at work: never analyse the agent's half.
"""

import os
from typing import Annotated, Any

import httpx
from fastapi import FastAPI, HTTPException, Path, Request
from standardwebhooks import Webhook, WebhookVerificationError

GATEWAY = os.environ.get("GATEWAY", "http://127.0.0.1:8000")
HOOK = os.environ.get("HOOK", "http://127.0.0.1:8001/hook")
webhook = Webhook(os.environ["EXPRESSNET_WEBHOOK_SECRET"])
CUSTOMER = "0,0,0.5,1"  # x, y, width and height as shares of the frame: the left half

app = FastAPI()
gateway = httpx.AsyncClient(base_url=GATEWAY, timeout=60)
results: dict[str, Any] = {}  # use a database instead


@app.post("/calls", status_code=202)
async def add_call(request: Request) -> Any:
    """Passes the video on while it arrives. Nothing is stored here."""
    media_type = request.headers.get("Content-Type", "video/mp4")
    options = {"region": CUSTOMER, "webhook": HOOK}
    return checked(
        await gateway.post(
            "/v1/recordings", params=options, content=request.stream(), headers={"Content-Type": media_type}
        )
    )


@app.get("/calls/{id}")
async def call(id: Annotated[str, Path(pattern="^[0-9a-f]+$")]) -> Any:
    """The result, or how far the work is."""
    return results.get(id) or checked(await gateway.get(f"/v1/recordings/{id}"))


@app.post("/hook", status_code=204)
async def recording_ended(request: Request) -> None:
    """The gateway calls this at the end of a recording, and calls again if it gets an error."""
    try:
        job = webhook.verify(await request.body(), dict(request.headers))["data"]
    except WebhookVerificationError as error:
        raise HTTPException(401, str(error)) from None
    if job["state"] == "done" and job["id"] not in results:
        place = f"/v1/recordings/{job['id']}"
        parts = {part: checked(await gateway.get(f"{place}/{part}")) for part in ("report", "timeline")}
        results[job["id"]] = job | parts
        await gateway.delete(place)


def checked(answer: httpx.Response) -> Any:
    if answer.is_error:
        raise HTTPException(answer.status_code, answer.json()["detail"])
    return answer.json()
