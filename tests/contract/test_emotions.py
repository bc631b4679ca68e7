"""The contract of `POST /v1/emotions`, which holds for every engine."""

from __future__ import annotations

import base64
import io
import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.core.manifest import EMOTIONS
from tests.conftest import ASTRONAUT_FACE, Gateway, as_stored, encoded


def overlap(box: dict[str, float], xyxy: tuple[float, float, float, float]) -> float:
    """Intersection over union."""
    left, top = max(box["x"], xyxy[0]), max(box["y"], xyxy[1])
    right = min(box["x"] + box["width"], xyxy[2])
    bottom = min(box["y"] + box["height"], xyxy[3])
    shared = max(right - left, 0) * max(bottom - top, 0)
    union = box["width"] * box["height"] + (xyxy[2] - xyxy[0]) * (xyxy[3] - xyxy[1]) - shared
    return shared / union


def test_one_photo_one_face(gateway: Gateway, astronaut_jpeg: bytes) -> None:
    response = gateway.post(astronaut_jpeg)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert list(answer) == ["request_id", "model", "image", "faces_found", "faces"]
    assert answer["image"] == {"width": 512, "height": 512}
    assert answer["model"] == {"name": "expressnet_moe", "version": "1", "prior": "balanced"}
    (face,) = answer["faces"]
    assert set(face) == {
        "box",
        "detection_confidence",
        "emotion",
        "confidence",
        "agreement",
        "verdict",
        "probabilities",
    }
    assert overlap(face["box"], ASTRONAUT_FACE) >= 0.7
    assert face["emotion"] == "happiness"
    assert face["confidence"] == max(face["probabilities"].values())
    assert tuple(face["probabilities"]) == EMOTIONS
    assert sum(face["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert face["verdict"] in ("certain", "uncertain")
    assert 0.9 <= face["detection_confidence"] <= 1


def test_a_prior_changes_the_probabilities_and_is_named_in_the_answer(
    gateway: Gateway, astronaut_jpeg: bytes
) -> None:
    training = gateway.post(astronaut_jpeg, prior="training").json()
    sad = gateway.post(astronaut_jpeg, prior="sadness=8,happiness=2").json()
    assert training["model"]["prior"] == "training"
    assert sad["model"]["prior"] == "sadness=0.8,happiness=0.2"
    (before,), (after,) = training["faces"], sad["faces"]
    assert before["agreement"] == pytest.approx(10 * before["confidence"], abs=0.051)
    assert after["probabilities"]["sadness"] > before["probabilities"]["sadness"]
    assert after["probabilities"]["neutral"] < before["probabilities"]["neutral"]
    assert after["agreement"] == before["agreement"]
    assert sum(after["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_all_forms_of_a_body_give_the_same_answer(gateway: Gateway, astronaut_jpeg: bytes) -> None:
    text = base64.b64encode(astronaut_jpeg).decode()
    answers = [
        gateway.post(astronaut_jpeg),
        gateway.client.post("/v1/emotions", files={"image": ("a.jpg", astronaut_jpeg, "image/jpeg")}),
        gateway.client.post("/v1/emotions", json={"image": text}),
        gateway.client.post("/v1/emotions", json={"image": f"data:image/jpeg;base64,{text}"}),
    ]
    faces = [answer.json()["faces"] for answer in answers]
    assert len(faces[0]) == 1
    assert faces[1:] == faces[:1] * 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_gives_the_same_answer(
    gateway: Gateway, astronaut: NDArray[np.uint8], orientation: int
) -> None:
    upright = Image.fromarray(astronaut)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = as_stored(upright, orientation)
    lossless = gateway.post(encoded(stored, "PNG", exif=exif), media_type="image/png").json()
    assert lossless["faces"] == gateway.post(encoded(upright, "PNG"), media_type="image/png").json()["faces"]
    # JPEG compresses the rotated image differently, so the decoded pixels differ slightly.
    (face,) = gateway.post(encoded(stored, exif=exif)).json()["faces"]
    assert overlap(face["box"], ASTRONAUT_FACE) >= 0.7
    assert face["emotion"] == "happiness"


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turned_photo_is_answered_as_upright(
    gateway: Gateway, astronaut: NDArray[np.uint8], quarters: int
) -> None:
    turned = np.rot90(astronaut, quarters)
    (face,) = gateway.post(encoded(turned), include="quality").json()["faces"]
    left, top, right, bottom = ASTRONAUT_FACE
    for _ in range(quarters):  # anticlockwise
        left, top, right, bottom = top, 512 - right, bottom, 512 - left
    assert overlap(face["box"], (left, top, right, bottom)) >= 0.7
    assert face["emotion"] == "happiness"
    assert abs((face["quality"]["roll_degrees"] + 90 * quarters + 180) % 360 - 180) < 15


def test_montage_of_nine_gives_nine_faces_largest_first(
    gateway: Gateway, astronaut: NDArray[np.uint8]
) -> None:
    faces = gateway.post(encoded(np.tile(astronaut, (3, 3, 1)))).json()["faces"]
    assert len(faces) == 9
    areas = [face["box"]["width"] * face["box"]["height"] for face in faces]
    assert areas == sorted(areas, reverse=True)
    cells = {(int(face["box"]["x"] // 512), int(face["box"]["y"] // 512)) for face in faces}
    assert len(cells) == 9


def test_a_jpeg_decoded_at_reduced_size_gives_about_the_answer_of_full_size(
    gateway: Gateway, astronaut: NDArray[np.uint8]
) -> None:
    # Half the resolution is enough to detect faces of this size, and to crop a face of 220 px.
    min_face_px = 56
    jpeg = encoded(Image.fromarray(astronaut).resize((1024, 1024)), quality=95)
    png = encoded(Image.open(io.BytesIO(jpeg)), "PNG")
    reduced = gateway.post(jpeg, min_face_px=min_face_px, include="landmarks,quality").json()
    full = gateway.post(
        png, media_type="image/png", min_face_px=min_face_px, include="landmarks,quality"
    ).json()
    assert reduced["image"] == full["image"] == {"width": 1024, "height": 1024}
    (reduced_face,), (full_face,) = reduced["faces"], full["faces"]
    box = full_face["box"]
    corners = (box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"])
    assert overlap(reduced_face["box"], corners) > 0.9
    for name, point in reduced_face["landmarks"].items():
        assert abs(point["x"] - full_face["landmarks"][name]["x"]) < 8
        assert abs(point["y"] - full_face["landmarks"][name]["y"]) < 8
    for name, probability in reduced_face["probabilities"].items():
        assert probability == pytest.approx(full_face["probabilities"][name], abs=0.1)
    assert reduced_face["quality"]["size_px"] == pytest.approx(full_face["quality"]["size_px"], rel=0.05)
    assert reduced_face["quality"]["sharpness"] == pytest.approx(full_face["quality"]["sharpness"], rel=0.3)


def test_max_faces_limits_the_answer(gateway: Gateway, astronaut: NDArray[np.uint8]) -> None:
    montage = encoded(np.tile(astronaut, (1, 3, 1)))
    answer = gateway.post(montage, max_faces=2).json()
    assert (len(answer["faces"]), answer["faces_found"]) == (2, 3)
    parts = [("images", ("a", montage))]
    batch = gateway.client.post("/v1/emotions/batch", files=parts, params={"max_faces": 1}).json()
    result = batch["results"][0]["result"]
    assert (len(result["faces"]), result["faces_found"]) == (1, 3)


def test_no_face_is_an_empty_list(gateway: Gateway, faceless_jpeg: bytes) -> None:
    response = gateway.post(faceless_jpeg)
    assert response.status_code == 200
    assert response.json()["faces"] == []


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (11, 300), (20, 20)])
def test_images_smaller_than_a_face(gateway: Gateway, size: tuple[int, int]) -> None:
    response = gateway.post(encoded(Image.new("RGB", size, "red"), "PNG"), media_type="image/png")
    assert response.status_code == 200
    assert response.json() | {"request_id": "", "model": None} == {
        "request_id": "",
        "model": None,
        "image": {"width": size[0], "height": size[1]},
        "faces_found": 0,
        "faces": [],
    }


def test_without_detection_the_image_is_one_face(gateway: Gateway, astronaut: NDArray[np.uint8]) -> None:
    left, top, right, bottom = ASTRONAUT_FACE
    crop = encoded(astronaut[top:bottom, left:right])
    answer = gateway.post(crop, detect="false", include="experts,landmarks,quality").json()
    (face,) = answer["faces"]
    assert face["box"] == {"x": 0, "y": 0, "width": right - left, "height": bottom - top}
    assert face["emotion"] == "happiness"
    assert "detection_confidence" not in face
    assert "landmarks" not in face
    assert "roll_degrees" not in face["quality"]


def test_includes(gateway: Gateway, astronaut_jpeg: bytes) -> None:
    answer = gateway.post(astronaut_jpeg, include="landmarks, quality,experts,engagement,heatmap").json()
    (face,) = answer["faces"]
    landmarks = face["landmarks"]
    assert landmarks["left_eye"]["x"] < landmarks["nose"]["x"] < landmarks["right_eye"]["x"]
    assert landmarks["left_eye"]["y"] < landmarks["nose"]["y"] < landmarks["left_mouth"]["y"]
    assert face["quality"]["size_px"] == pytest.approx(
        min(face["box"]["width"], face["box"]["height"]), abs=0.1
    )
    assert 0 < face["quality"]["brightness"] < 1
    assert -20 < face["quality"]["roll_degrees"] < 20
    for mixture in ("large_kernel", "fused"):
        weights = face["experts"][mixture]
        assert len(weights) == 4
        assert sum(weight > 0 for weight in weights) == 2
    assert -0.5 < face["quality"]["pitch"] < 0.5
    assert face["engagement"]["index"] == pytest.approx(0.6 * face["confidence"], abs=1e-4)
    picture = Image.open(io.BytesIO(base64.b64decode(face["heatmap"]["png"])))
    assert (picture.format, picture.size) == ("PNG", (112, 112))
    where = face["heatmap"]["box"]
    assert where["width"] == pytest.approx(where["height"])
    assert (
        overlap(
            face["box"], (where["x"], where["y"], where["x"] + where["width"], where["y"] + where["height"])
        )
        > 0.5
    )
    assert 0 <= face["heatmap"]["largest_fall"] <= 1


def test_a_poor_face_is_uncertain_and_has_reasons_for_every_include(
    gateway: Gateway, astronaut: NDArray[np.uint8]
) -> None:
    left, top, right, bottom = 168, 60, 280, 172  # the square that the classifier sees
    face = Image.fromarray(astronaut).crop((left, top, right, bottom))
    hazy = Image.blend(Image.new("RGB", face.size, (128, 128, 128)), face, 0.03)
    for picture, expected in ((face, None), (hazy, "low_contrast")):
        answers = [
            gateway.post(
                encoded(picture, "PNG"), media_type="image/png", detect="false", include=include
            ).json()
            for include in ("", "quality,heatmap")
        ]
        plain, full = (answer["faces"][0] for answer in answers)
        assert plain == {key: value for key, value in full.items() if key in plain}
        if expected is None:
            assert plain["verdict"] == "certain"
            assert "reasons" not in plain
        else:
            assert plain["verdict"] == "uncertain"
            assert expected in plain["reasons"]


def test_batch_keeps_order_and_survives_a_bad_image(
    gateway: Gateway, astronaut_jpeg: bytes, faceless_jpeg: bytes
) -> None:
    images = [astronaut_jpeg, b"not an image", faceless_jpeg, b"", astronaut_jpeg]
    response = gateway.client.post(
        "/v1/emotions/batch", files=[("images", (f"{i}.jpg", data)) for i, data in enumerate(images)]
    )
    assert response.status_code == 200
    results = response.json()["results"]
    assert [item["index"] for item in results] == [0, 1, 2, 3, 4]
    assert [item.get("problem", {}).get("code") for item in results] == [
        None,
        "invalid_image",
        None,
        "invalid_image",
        None,
    ]
    assert [len(item["result"]["faces"]) for item in results if "result" in item] == [1, 0, 1]
    single = gateway.post(astronaut_jpeg).json()["faces"]
    assert results[0]["result"]["faces"] == results[4]["result"]["faces"]
    assert results[0]["result"]["faces"][0]["box"] == single[0]["box"]


def test_concurrent_requests_share_batches_and_answers_do_not_depend_on_neighbours(
    gateway: Gateway, astronaut: NDArray[np.uint8]
) -> None:
    left, top, right, bottom = ASTRONAUT_FACE
    face = astronaut[top:bottom, left:right]
    crops = [encoded((face * (0.4 + 0.02 * i)).astype(np.uint8), "PNG") for i in range(24)]

    def probabilities_of(crop: bytes) -> dict[str, float]:
        answer = gateway.post(crop, media_type="image/png", detect="false").json()
        probabilities: dict[str, float] = answer["faces"][0]["probabilities"]
        return probabilities

    alone = [probabilities_of(crop) for crop in crops]
    calls, faces = "expressnet_batch_size_faces_count", "expressnet_batch_size_faces_sum"
    for _ in range(20):
        calls_before, faces_before = gateway.metric(calls), gateway.metric(faces)
        with ThreadPoolExecutor(len(crops)) as pool:
            together = list(pool.map(probabilities_of, crops))
        assert together == [pytest.approx(row, abs=1e-5) for row in alone]
        assert gateway.metric(faces) - faces_before == len(crops)
        if gateway.metric(calls) - calls_before < len(crops):
            return
    pytest.fail("no two of 24 concurrent requests ever shared a batch")


def test_every_answer_carries_an_id_and_timings(gateway: Gateway, astronaut_jpeg: bytes) -> None:
    response = gateway.post(astronaut_jpeg)
    assert response.headers["X-Request-ID"] == response.json()["request_id"]
    timings = {}
    for part in response.headers["Server-Timing"].split(", "):
        match = re.fullmatch(r"(\w+);dur=([\d.]+)", part)
        assert match, part
        timings[match[1]] = match[2]
    assert set(timings) == {"decode", "detect", "align", "queue", "classify", "total"}
    assert float(timings["total"]) >= float(timings["detect"])


def test_request_id_is_echoed_unless_it_could_harm_a_log(gateway: Gateway, faceless_jpeg: bytes) -> None:
    def echoed(offered: str) -> str:
        headers = {"Content-Type": "image/jpeg", "X-Request-ID": offered}
        answer: httpx.Response = gateway.client.post("/v1/emotions", content=faceless_jpeg, headers=headers)
        return answer.headers["X-Request-ID"]

    assert echoed("order-7.a:b_c") == "order-7.a:b_c"
    for bad in ("x" * 129, "a b", 'a"b'):
        assert re.fullmatch("[0-9a-f]{32}", echoed(bad))


def test_prediction_metrics_count_the_answers(gateway: Gateway, astronaut_jpeg: bytes) -> None:
    verdict = gateway.post(astronaut_jpeg).json()["faces"][0]["verdict"]
    predictions = f'expressnet_predictions_total{{emotion="happiness",verdict="{verdict}"}}'
    requests = 'expressnet_http_requests_total{method="POST",route="/v1/emotions",status="200"}'
    samples = [predictions, requests, "expressnet_faces_per_image_sum", "expressnet_confidence_count"]
    before = [gateway.metric(sample) for sample in samples]
    gateway.post(astronaut_jpeg)
    assert [gateway.metric(sample) - b for sample, b in zip(samples, before, strict=True)] == [1, 1, 1, 1]
    for stage in ("queue", "decode", "detect", "align", "classify"):
        assert gateway.metric(f'expressnet_stage_duration_seconds_count{{stage="{stage}"}}') > 0
