"""Which uses are prohibited in which place, and which duties apply."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from service.compliance.jurisdictions import EEA_ONLY, EU, EU_BEYOND, ISO_3166, normalized, under_eu_law
from service.compliance.law import PROHIBITED, Exemption, Purpose, duties, prohibited

EUROPE = ("eu", "eea", "de", "no", "re", "ax")
ELSEWHERE = ("gb", "us", "ch", "sj", "other")


def sources(*declaration: object) -> list[str]:
    return [duty.source for duty in duties(*declaration)]  # type: ignore[arg-type]


def test_country_codes_are_those_of_iso_3166() -> None:
    assert (len(ISO_3166), len(EU)) == (249, 27)
    assert ISO_3166 >= EU | EU_BEYOND | EEA_ONLY
    assert "uk" not in ISO_3166
    table = Path("/usr/share/zoneinfo/iso3166.tab")
    if table.exists():
        lines = table.read_text(encoding="utf-8").splitlines()
        assert {line[:2].lower() for line in lines if line[0] != "#"} == ISO_3166


@pytest.mark.parametrize("place", ["", "europe", "zz", "deu", "d"])
def test_an_unknown_place_is_refused_by_name(place: str) -> None:
    with pytest.raises(ValueError, match=f"^{place!r} is not"):
        normalized(("de", place))


@pytest.mark.parametrize("place", EUROPE)
def test_places_under_eu_law(place: str) -> None:
    assert under_eu_law(("us", place))


@pytest.mark.parametrize("place", ELSEWHERE)
def test_places_not_under_eu_law(place: str) -> None:
    assert normalized((place.upper(),)) == (place,)
    assert not under_eu_law((place,))


@pytest.mark.parametrize("purpose", Purpose)
def test_work_and_education_are_prohibited_in_europe_without_an_exemption(purpose: Purpose) -> None:
    for place in EUROPE:
        assert prohibited(purpose, ("us", place), None) == (purpose in {"workplace", "education"})
        assert not any(prohibited(purpose, (place,), exemption) for exemption in Exemption)
    assert not prohibited(purpose, ELSEWHERE, None)


@pytest.mark.parametrize("purpose", sorted(set(Purpose) - PROHIBITED - {Purpose.personal}))
def test_in_europe_people_must_be_informed_and_the_system_is_high_risk(purpose: Purpose) -> None:
    found = {duty.source: duty for duty in duties(purpose, ("fr",), None)}
    inform = found["Regulation (EU) 2024/1689, Article 50(3) and (5)"]
    risk = found["Regulation (EU) 2024/1689, Article 6(2) and Annex III, point 1(c)"]
    assert (inform.applies_from, risk.applies_from) == ("2026-08-02", "2027-12-02")
    assert ("criminal offences" in inform.text) == (purpose is Purpose.law_enforcement)
    assert any("2016/679" in source for source in found)
    assert any("2017/745" in source for source in found) == (purpose is Purpose.medical)
    assert any("2(6)" in source for source in found) == (purpose is Purpose.research)


@pytest.mark.parametrize("exemption", Exemption)
def test_an_exemption_adds_the_duty_to_stay_within_it(exemption: Exemption) -> None:
    (bound,) = [d for d in duties(Purpose.workplace, ("eu",), exemption) if "5(1)(f)" in d.source]
    assert str(exemption) in bound.text
    assert "Regulation (EU) 2024/1689, Article 26(7)" in sources(Purpose.workplace, ("eu",), exemption)
    assert "Regulation (EU) 2024/1689, Article 26(7)" not in sources(Purpose.education, ("eu",), exemption)


def test_each_place_adds_its_own_duties_once() -> None:
    assert sources(Purpose.personal, ("eu", "us"), None) == []
    assert sources(Purpose.other, ("gb",), None) == ["UK GDPR and Data Protection Act 2018"]
    assert sources(Purpose.other, ("ch", "jp"), None) == ["the law of the place"]
    assert "Illinois" in sources(Purpose.workplace, ("us",), None)[0]
    assert sources(Purpose.other, ("nz", "nz"), None)[0].endswith("New Zealand, rule 10")
    everywhere = sources(Purpose.entertainment, ("de", "fr", "no", "gb", "us", "nz", "ch", "gb"), None)
    assert len(everywhere) == len(set(everywhere)) == 7


def test_every_duty_applies_to_some_declaration() -> None:
    declared = [
        (purpose, (place,), exemption)
        for purpose in Purpose
        for place in ("eu", *ELSEWHERE, "nz")
        for exemption in (None, *Exemption)
    ]
    applied = {duty.text for each in declared for duty in duties(*each)}
    texts = files("service.compliance").joinpath("duties.toml").read_text(encoding="utf-8")
    written = tomllib.loads(texts)["duties"]
    assert {text.replace("{exemption}", "medical") for text in (duty["text"] for duty in written)} <= applied
    assert not any("{" in text for text in applied)
