"""The declaration of a deployer appears on the model card, in the log of the start and in the notice."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import structlog

from service.compliance.deployment import deployment, notice
from service.http.app import create_app
from service.serving.announce import announce
from service.settings import Settings
from tests.fake_engine import fake_engines

DECLARED = {
    "purpose": "customer_service",
    "jurisdiction": ("de", "us"),
    "deployer": "Example GmbH",
    "contact": "privacy@example.com",
    "aggregate_only": 8,
}


def settings(**values: Any) -> Settings:
    return Settings.model_validate(values)


def test_an_empty_declaration_is_reported_as_undeclared() -> None:
    found = deployment(Settings().declaration)
    assert (found.purpose, found.jurisdiction, found.exemption) == ("undeclared", (), None)
    assert found.duties == []
    assert all(gap in found.notice for gap in ("[who]", "[what for]", "[contact]"))


def test_the_notice_has_the_declaration_and_the_limits_of_the_model() -> None:
    text = notice(settings(**DECLARED).declaration)
    assert "[" not in text
    for part in ("Example GmbH", "customer service", "privacy@example.com", "at least 8 people"):
        assert part in text
    assert "does not know what you feel" in text
    assert len(text.split()) < 100
    assert "averages" not in notice(Settings().declaration)


@pytest.mark.parametrize(("purpose", "words"), [("personal", "private use"), ("other", "[what for]")])
def test_purposes_in_plain_words(purpose: str, words: str) -> None:
    assert f"Purpose: {words}." in notice(settings(purpose=purpose, jurisdiction="eu").declaration)


async def test_the_card_of_the_classifier_has_the_declaration() -> None:
    transport = httpx.ASGITransport(create_app(settings(**DECLARED), fake_engines()))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        paths = ("/v1/models/expressnet_moe", "/v1/models/yunet", "/v1/models")
        card, detector, both = [(await client.get(path)).json() for path in paths]
    expected = deployment(settings(**DECLARED).declaration).model_dump(mode="json")
    assert card["deployment"] == expected
    assert [duty["source"] for duty in expected["duties"]][-1].startswith("laws of the states")
    assert card["intended_use"]
    assert detector["deployment"] is None
    assert [model["deployment"] for model in both["models"]] == [expected, None]


def test_the_start_logs_the_declaration_and_its_duties() -> None:
    with structlog.testing.capture_logs() as events:
        announce(settings(purpose="education", jurisdiction="it", exemption="medical").declaration)
    first, *others = events
    assert first["event"] == "declared"
    assert (first["purpose"], first["jurisdiction"], first["exemption"]) == ("education", ("it",), "medical")
    assert {event["event"] for event in others} == {"duty"}
    assert "Article 5(1)(f)" in others[0]["source"]
    assert all(event["text"] for event in others)


def test_the_start_warns_of_a_missing_declaration() -> None:
    with structlog.testing.capture_logs() as events:
        announce(Settings().declaration)
    (event,) = events
    assert (event["event"], event["log_level"]) == ("no purpose is declared", "warning")
