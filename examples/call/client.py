"""Uploads a recorded call, waits, and prints the customer's timeline and report.

python client.py SERVER VIDEO

Tell the customer before the call: Article 50(3) of Regulation (EU) 2024/1689.
"""

import mimetypes
import sys
import time
from itertools import groupby
from typing import Any

import httpx


def analysed(server: httpx.Client, video: str) -> Any:
    """The result of a call. Exits if it has none."""
    media_type = mimetypes.guess_type(video)[0] or "video/mp4"
    with open(video, "rb") as file:
        answer = server.post("/calls", content=file, headers={"Content-Type": media_type})
    while answer.is_success and "report" not in (call := answer.json()):
        if call["state"] not in ("queued", "working", "done"):
            sys.exit(f"{call['state']}: {call.get('problem', {}).get('detail', 'send the call again')}")
        time.sleep(0.5)
        answer = server.get(f"/calls/{call['id']}")
    if answer.is_error:
        sys.exit(f"{answer.status_code}: {answer.text}")
    return answer.json()


def shown(frame: Any) -> str:
    if not frame["faces"]:
        return "nobody"
    smoothed = frame["faces"][0]["smoothed"]
    return str(smoothed["emotion"]) if smoothed["verdict"] == "certain" else "uncertain"


def main(url: str, video: str) -> None:
    with httpx.Client(base_url=url, timeout=60) as server:
        call = analysed(server, video)
    for emotion, group in groupby(call["timeline"]["frames"], key=shown):
        times = [frame["time_s"] for frame in group]
        print(f"{times[0]:.1f} to {times[-1]:.1f} s: {emotion}")
    whole = call["report"]["group"]
    emotions = [f"{emotion} {share:.0%}" for emotion, share in whole["time_share"].items() if share]
    print(f"call: {', '.join(emotions)}, nobody {whole['absent']:.0%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
