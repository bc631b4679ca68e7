"""Settings: each is read from its variable, and the refusal of a bad value is one sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from service.core.errors import SettingsError
from service.settings import PREFIX, Settings, read_settings

SECRET = "whsec_" + 32 * "a"

# The settings that `service.settings` parses. pydantic parses the others.
READ = {
    "trusted_proxies": ("10.0.0.0/8, ::1,", ("10.0.0.0/8", "::1")),
    "root_path": ("/a/faces", "/a/faces"),
    "redis_url": ("rediss://:secret@redis:6380/1", SecretStr("rediss://:secret@redis:6380/1")),
    "cors_origins": ("https://a.example.com,http://b:8080", ("https://a.example.com", "http://b:8080")),
    "jurisdiction": ("DE, uk,us,", ("de", "gb", "us")),
    "webhook_hosts": ("hooks.example.com, 10.0.0.1", ("hooks.example.com", "10.0.0.1")),
    "webhook_secret": (SECRET, SecretStr(SECRET)),
    "triton_url": ("10.0.0.1:8001, 10.0.0.2:8001", "10.0.0.1:8001,10.0.0.2:8001"),
}

BAD = {
    "port": ["65536"],
    "keys_file": ["/nowhere/keys.toml"],
    "trusted_proxies": ["proxy", "*", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.1,me"],
    "root_path": ["", "/", "faces", "/faces/", "//faces", "/f?x"],
    "rate_limit": ["", "10", "0/minute", "10/week"],
    "cors_origins": ["example.com", "https://example.com/", "ftp://example.com", "https://", "null"],
    "jurisdiction": ["europe", "de fr", "zz", "de,,x"],
    "deployer": ["", " "],
    "aggregate_only": ["4", "129"],
    "audit_file": ["/", "/nowhere/audit.jsonl", "/dev/null/audit"],
    "model_version": ["0", "latest", ""],
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
    "max_delay_s": ["nan", "1.5"],
    "recording_ttl_s": ["59", "nan"],
    "webhook_hosts": ["https://example.com", "example.com:443", "a/b"],
    "timeout_s": ["nan", "inf"],
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


@pytest.mark.parametrize(("cores", "processes", "threads"), [(0.5, 1, 1), (2, 1, 2), (2, 2, 2), (16, 4, 4)])
def test_worker_threads_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: float, processes: int, threads: int
) -> None:
    monkeypatch.setattr("service.settings.cores_of_process", lambda: cores)
    assert Settings(processes=processes).worker_threads == threads


@pytest.mark.parametrize("name", READ)
def test_each_variable_is_read(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    text, value = READ[name]
    needed = {
        "redis_url": {"rate_limit": "1/day"},
        "jurisdiction": {"purpose": "research"},
        "webhook_hosts": {"webhook_secret": SECRET},
        "webhook_secret": {"webhook_hosts": "example.com"},
    }
    for variable, setting in {name: text, **needed.get(name, {})}.items():
        monkeypatch.setenv(PREFIX + variable.upper(), setting)
    assert getattr(read_settings(), name) == value


def test_models_are_read_from_the_setting_or_the_folder_or_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    packaged = read_settings().model_repository
    assert packaged.is_absolute()
    assert {path.name for path in packaged.iterdir()} >= {"expressnet_moe", "yunet"}
    (tmp_path / "model_repository").mkdir()
    assert read_settings().model_repository == tmp_path / "model_repository"
    monkeypatch.setenv("EXPRESSNET_MODEL_REPOSITORY", "elsewhere")
    assert read_settings().model_repository == tmp_path / "elsewhere"


@pytest.mark.parametrize("name", BAD)
def test_a_bad_value_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    variable = PREFIX + name.upper()
    for text in BAD[name]:
        monkeypatch.setenv(variable, text)
        assert refusal().startswith(f"{variable}={text} ")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis",
        "http://:secret@redis",
        "redis://:secret@",
        "redis://:secret@redis:70000",
        "redis://[secret",
    ],
)
def test_an_address_with_a_password_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("EXPRESSNET_REDIS_URL", url)
    monkeypatch.setenv("EXPRESSNET_RATE_LIMIT", "1/day")
    sentence = refusal()
    assert sentence.startswith("EXPRESSNET_REDIS_URL cannot be used: ")
    assert "secret" not in sentence


def test_a_password_is_not_shown_with_the_settings() -> None:
    settings = Settings.model_validate({"redis_url": "redis://:secret@redis", "rate_limit": "1/day"})
    assert ":secret@" not in repr(settings)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "gateway.example.com", "localhost.example.com"]
)
def test_a_public_address_needs_keys_or_anonymous_access(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("EXPRESSNET_HOST", host)
    sentence = refusal()
    assert all(name in sentence for name in (host, "EXPRESSNET_KEYS_FILE", "EXPRESSNET_ALLOW_ANONYMOUS"))
    monkeypatch.setenv("EXPRESSNET_ALLOW_ANONYMOUS", "true")
    assert not read_settings().loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_a_loopback_address_needs_no_keys(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("EXPRESSNET_HOST", host)
    assert read_settings().loopback


@pytest.mark.parametrize("variable", ["EXPRESSNET_PROT", "EXPRESSNET_", "expressnet_max_faces"])
def test_an_unknown_variable_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    assert refusal().startswith(f"{variable} is not a setting")


def test_the_refusal_of_an_unknown_variable_says_how_to_fix_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPRESSNET_KEY", "xn_secret")
    sentence = refusal()
    assert "unset or rename it: names with EXPRESSNET_ are settings" in sentence
    assert "xn_secret" not in sentence
    monkeypatch.delenv("EXPRESSNET_KEY")
    monkeypatch.setenv("EXPRESSNET_KEY_FILE", "keys.toml")
    assert "; did you mean EXPRESSNET_KEYS_FILE? If not, unset or rename it: " in refusal()


def test_variables_without_the_prefix_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setenv("NOT_EXPRESSNET_PORT", "1")
    assert read_settings().port == 8000


@pytest.mark.parametrize("secret", ["", "a" * 32, "whsec_", "whsec_YQ==", "whsec_" + 32 * "?"])
def test_a_secret_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv("EXPRESSNET_WEBHOOK_HOSTS", "example.com")
    monkeypatch.setenv("EXPRESSNET_WEBHOOK_SECRET", secret)
    sentence = refusal()
    assert sentence == (
        "EXPRESSNET_WEBHOOK_SECRET cannot be used: not `whsec_` and 24 to 64 bytes in base64."
    )


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"max_batch_faces": "64", "queue_limit_faces": "32"}, ("max_batch_faces", "queue_limit_faces")),
        (
            {"body_limit_bytes": "2000", "batch_body_limit_bytes": "1999"},
            ("body_limit_bytes", "batch_body_limit_bytes"),
        ),
        ({"triton_root_certificates": __file__}, ("certificates", "triton_tls")),
        ({"tls_certificate": __file__}, ("tls_certificate", "tls_private_key")),
        ({"admin_port": "8000"}, ("admin_port", "port")),
        ({"max_streams": "512"}, ("max_streams", "max_connections")),
        ({"webhook_hosts": "example.com"}, ("webhook_hosts", "webhook_secret")),
        ({"webhook_private": "1"}, ("webhook_private", "webhook_hosts")),
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


@pytest.mark.parametrize("purpose", ["workplace", "education"])
@pytest.mark.parametrize("jurisdiction", ["eu", "us,FR", "no"])
def test_a_prohibited_use_is_refused_with_its_article(
    monkeypatch: pytest.MonkeyPatch, purpose: str, jurisdiction: str
) -> None:
    monkeypatch.setenv("EXPRESSNET_PURPOSE", purpose)
    monkeypatch.setenv("EXPRESSNET_JURISDICTION", jurisdiction)
    sentence = refusal()
    assert "Article 5(1)(f) of Regulation (EU) 2024/1689" in sentence
    assert f"EXPRESSNET_PURPOSE={purpose} is prohibited in {jurisdiction.lower()} by" in sentence
    assert sentence.endswith("see docs/explanation/responsible-use.md.")
    monkeypatch.setenv("EXPRESSNET_EXEMPTION", "safety")
    assert read_settings().exemption == "safety"
    monkeypatch.delenv("EXPRESSNET_EXEMPTION")
    monkeypatch.setenv("EXPRESSNET_JURISDICTION", "us,gb")
    assert read_settings().purpose == purpose


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"purpose": "workplace"}, "EXPRESSNET_PURPOSE and EXPRESSNET_JURISDICTION need each other"),
        ({"jurisdiction": "us"}, "EXPRESSNET_PURPOSE and EXPRESSNET_JURISDICTION need each other"),
        ({"exemption": "medical"}, "EXPRESSNET_EXEMPTION needs EXPRESSNET_PURPOSE=workplace or education"),
        (
            {"purpose": "research", "jurisdiction": "eu", "exemption": "medical"},
            "EXPRESSNET_EXEMPTION needs EXPRESSNET_PURPOSE=workplace or education",
        ),
    ],
)
def test_an_incomplete_declaration_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, text in variables.items():
        monkeypatch.setenv(PREFIX + name.upper(), text)
    assert message in refusal()


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "a" * 201])
def test_the_deployer_must_be_one_short_line(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("EXPRESSNET_DEPLOYER", text)
    sentence = refusal()
    assert sentence.startswith("EXPRESSNET_DEPLOYER=")
    assert sentence.endswith("not one printable line of up to 200 characters.")


def test_equal_limits_do_not_contradict_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "max_batch_faces": "32",
        "queue_limit_faces": "32",
        "body_limit_bytes": "2000",
        "batch_body_limit_bytes": "2000",
    }.items():
        monkeypatch.setenv(PREFIX + name.upper(), text)
    assert read_settings().queue_limit_faces == 32


def test_settings_are_frozen_and_refuse_unknown_names() -> None:
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Settings(prot=1)  # type: ignore[call-arg]
