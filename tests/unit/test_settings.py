"""Settings: each out of its variable, and a start that is refused in one sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import PREFIX, Settings, SettingsError, read_settings

GOOD = {
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("9000", 9000),
    "model_repository": ("/models", Path("/models")),
    "classifier": ("other_classifier", "other_classifier"),
    "model_version": ("2", "2"),
    "detector": ("other_detector", "other_detector"),
    "engine": ("triton", "triton"),
    "classifier_engine": ("triton", "triton"),
    "detector_engine": ("embedded", "embedded"),
    "triton_url": ("10.0.0.1:8001, 10.0.0.2:8001", "10.0.0.1:8001,10.0.0.2:8001"),
    "triton_tls": ("true", True),
    "triton_root_certificates": (__file__, Path(__file__)),
    "triton_certificate": (__file__, Path(__file__)),
    "triton_private_key": (__file__, Path(__file__)),
    "worker_threads": ("3", 3),
    "body_limit_bytes": ("1000", 1000),
    "batch_body_limit_bytes": ("200000000", 200_000_000),
    "pixel_limit": ("1000000", 1_000_000),
    "max_in_flight_requests": ("7", 7),
    "queue_limit_faces": ("512", 512),
    "max_batch_faces": ("16", 16),
    "max_delay_s": ("0.01", 0.01),
    "timeout_s": ("2.5", 2.5),
    "grace_s": ("5", 5.0),
    "log_level": ("debug", "debug"),
    "log_format": ("text", "text"),
}

# What a setting cannot be without.
NEEDS = {
    "triton_root_certificates": {"triton_tls": "true"},
    "triton_certificate": {"triton_tls": "true", "triton_private_key": __file__},
    "triton_private_key": {"triton_tls": "true", "triton_certificate": __file__},
}

BAD = {
    "host": [""],
    "port": ["-1", "65536", "http", "80.5"],
    "model_version": ["0", "-1", "latest", ""],
    "engine": ["tritonn", ""],
    "classifier_engine": ["gpu"],
    "detector_engine": ["gpu"],
    "triton_url": [
        "",
        "triton",
        ":8001",
        "triton:",
        "triton:0",
        "triton:65536",
        "a:1,b:1",
        "1.2.3.4:1,[::1]:1",
    ],
    "triton_tls": ["maybe"],
    "triton_root_certificates": ["/nowhere/ca.pem"],
    "triton_certificate": ["/nowhere/gateway.pem"],
    "triton_private_key": ["/nowhere/gateway.key"],
    "worker_threads": ["0", "-2", "many"],
    "body_limit_bytes": ["0", "20MB"],
    "batch_body_limit_bytes": ["0", "-1"],
    "pixel_limit": ["0", "1e400"],
    "max_in_flight_requests": ["0", ""],
    "queue_limit_faces": ["0"],
    "max_batch_faces": ["0", "257"],
    "max_delay_s": ["-0.001", "1.5", "nan", "inf"],
    "timeout_s": ["0", "-1", "3601", "nan", "inf", "soon"],
    "grace_s": ["0", "nan"],
    "log_level": ["loud"],
    "log_format": ["xml"],
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)


def refusal() -> str:
    with pytest.raises(SettingsError) as caught:
        read_settings()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert "pydantic" not in sentence
    return sentence


def test_every_setting_has_a_default() -> None:
    settings = read_settings()
    assert settings == Settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert (settings.body_limit_bytes, settings.pixel_limit) == (20_000_000, 50_000_000)
    assert (settings.queue_limit_faces, settings.timeout_s) == (256, 10.0)
    assert settings.worker_threads >= 1


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("name", GOOD)
def test_each_variable_is_read(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    text, value = GOOD[name]
    default = getattr(Settings(), name)
    for variable, setting in {name: text, **NEEDS.get(name, {})}.items():
        monkeypatch.setenv(PREFIX + variable.upper(), setting)
    settings = read_settings()
    assert getattr(settings, name) == value
    assert value != default or name == "worker_threads"


def test_no_setting_is_without_a_test() -> None:
    assert set(Settings.model_fields) == set(GOOD)


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts])
def test_a_bad_value_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    variable = PREFIX + name.upper()
    monkeypatch.setenv(variable, text)
    sentence = refusal()
    assert sentence.startswith(f"{variable}={text} ")


@pytest.mark.parametrize("variable", ["EXPRESSNET_PROT", "EXPRESSNET_", "expressnet_max_faces"])
def test_an_unknown_variable_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    assert refusal().startswith(f"{variable} is not a setting")


def test_variables_of_others_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setenv("NOT_EXPRESSNET_PORT", "1")
    assert read_settings().port == 8000


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"max_batch_faces": "64", "queue_limit_faces": "32"}, ("max_batch_faces", "queue_limit_faces")),
        (
            {"body_limit_bytes": "2000", "batch_body_limit_bytes": "1999"},
            ("body_limit_bytes", "batch_body_limit_bytes"),
        ),
        ({"triton_root_certificates": __file__}, ("certificates", "triton_tls")),
        (
            {"triton_tls": "1", "triton_certificate": __file__},
            ("triton_certificate", "triton_private_key"),
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: tuple[str, str]
) -> None:
    for name, text in variables.items():
        monkeypatch.setenv(PREFIX + name.upper(), text)
    sentence = refusal()
    assert all(name in sentence.lower() for name in named)


def test_values_at_the_edge_of_a_contradiction_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "max_batch_faces": "32",
        "queue_limit_faces": "32",
        "body_limit_bytes": "2000",
        "batch_body_limit_bytes": "2000",
    }.items():
        monkeypatch.setenv(PREFIX + name.upper(), text)
    assert read_settings().queue_limit_faces == 32


def test_settings_are_frozen_and_know_no_others() -> None:
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Settings(prot=1)  # type: ignore[call-arg]
