"""The `fer` package behind a minimal FastAPI wrapper.

Runs in the peers' environment. `python -m tests.bench.fer_service mtcnn --port 8001` serves HTTP;
`... --time photo.jpg` prints the milliseconds of each call of the library as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import uvicorn
from fastapi import FastAPI, UploadFile

from tests.bench.figures import ROUNDS, WARM_UP
from tests.stand_ins import STAND_INS

# facenet-pytorch imports torchvision, but the release that fits the installed torch may not exist.
sys.modules.update(STAND_INS)

from fer.fer import FER  # noqa: E402


def image_of(data: bytes) -> np.ndarray:
    image: np.ndarray = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return image


def create_app(detector: FER) -> FastAPI:
    app = FastAPI()

    @app.post("/emotions")
    def emotions(file: UploadFile) -> list[dict[str, Any]]:
        faces = detector.detect_emotions(image_of(file.file.read()))
        return [{"box": [int(side) for side in face["box"]], "emotions": face["emotions"]} for face in faces]

    return app


def times_ms(detector: FER, data: bytes) -> list[float]:
    image = image_of(data)
    times = []
    for _ in range(WARM_UP + ROUNDS):
        started = time.perf_counter()
        detector.detect_emotions(image)
        times.append((time.perf_counter() - started) * 1e3)
    return times[WARM_UP:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=("mtcnn", "haar"))
    parser.add_argument("--port", type=int)
    parser.add_argument("--time", type=Path)
    arguments = parser.parse_args()
    detector = FER(mtcnn=arguments.mode == "mtcnn")  # smallest face: 20 px, or 50 px with Haar
    if arguments.time:
        print(json.dumps(times_ms(detector, arguments.time.read_bytes())))
    else:
        uvicorn.run(create_app(detector), port=arguments.port, log_level="critical")


if __name__ == "__main__":
    main()
