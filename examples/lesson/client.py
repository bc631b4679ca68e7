"""The webcam of a participant: sends a photo every 2 s, until it is stopped.

python client.py SERVER PHOTO PARTICIPANT...

PHOTO is read again each time: let the program of your camera overwrite it. With several participants, one
photo plays a whole class. Everybody in front of the camera must know about it and agree.
"""

import asyncio
import random
import sys
from contextlib import suppress
from pathlib import Path

import httpx

INTERVAL_S = 2


async def webcam(server: httpx.AsyncClient, photo: Path, participant: str) -> None:
    await asyncio.sleep(random.uniform(0, INTERVAL_S))  # webcams do not send at the same moment
    while True:
        jpeg = await asyncio.to_thread(photo.read_bytes)
        try:
            answer = await server.post(f"/photos/{participant}", content=jpeg)
            if answer.is_error:
                print(f"{participant}: {answer.status_code} {answer.text}")
        except httpx.TransportError as error:
            print(f"{participant}: {error!r}")
        # A lost photo is not sent again: the next one is newer.
        await asyncio.sleep(INTERVAL_S)


async def main(url: str, photo: str, *participants: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=15) as server:
        await asyncio.gather(*(webcam(server, Path(photo), name) for name in participants))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
