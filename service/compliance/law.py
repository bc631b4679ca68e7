"""The law on inferring emotions: prohibited uses and the duties of all others. No legal advice.

duties.toml has the texts, and the month in which they were read.
"""

from __future__ import annotations

import tomllib
from enum import StrEnum
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, Field

from service.compliance.jurisdictions import OTHER, under_eu_law

AI_ACT = "Regulation (EU) 2024/1689"
PROHIBITION = f"Article 5(1)(f) of {AI_ACT}"


class Purpose(StrEnum):
    """The purpose of a gateway; docs/guides/responsible-deployment.md explains each."""

    accessibility = "accessibility"
    border = "border"
    customer_service = "customer_service"
    education = "education"
    entertainment = "entertainment"
    law_enforcement = "law_enforcement"
    market_research = "market_research"
    medical = "medical"
    personal = "personal"
    research = "research"
    safety = "safety"
    workplace = "workplace"
    other = "other"


class Exemption(StrEnum):
    """The two reasons for which emotions may be inferred at work and in education."""

    medical = "medical"
    safety = "safety"


PROHIBITED = frozenset({Purpose.workplace, Purpose.education})


class Duty(BaseModel):
    """An obligation of the deployer."""

    model_config = ConfigDict(frozen=True)

    source: str = Field(description="Law and article.")
    applies_from: str | None = Field(
        description="Day from which it applies (ISO date). `null` if there is no single date."
    )
    text: str = Field(description="What the deployer has to do.")


def prohibited(purpose: Purpose, places: tuple[str, ...], exemption: Exemption | None) -> bool:
    """Whether `PROHIBITION` forbids this use."""
    return purpose in PROHIBITED and exemption is None and under_eu_law(places)


class _Entry(Duty):
    """A duty of duties.toml, and the uses to which it applies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    applies_from: str | None = None
    place: str
    purposes: frozenset[Purpose] = frozenset()
    exemptions: frozenset[Exemption] = frozenset()
    not_purposes: frozenset[Purpose] = frozenset()

    def holds(self, purpose: Purpose, exemption: Exemption | None) -> bool:
        if not self.purposes and not self.exemptions:
            return purpose not in self.not_purposes
        return purpose in self.purposes or exemption in self.exemptions


class _Texts(BaseModel):
    """The content of duties.toml."""

    model_config = ConfigDict(extra="forbid")

    read_in: str
    duties: tuple[_Entry, ...]


_TEXTS = _Texts.model_validate(
    tomllib.loads(files(__package__).joinpath("duties.toml").read_text(encoding="utf-8"))
)
READ_IN = _TEXTS.read_in
"""The month in which the texts were read."""
_PLACES = frozenset(entry.place for entry in _TEXTS.duties) - {OTHER}


def duties(purpose: Purpose, places: tuple[str, ...], exemption: Exemption | None) -> list[Duty]:
    """The duties of a use that is not prohibited. The service knows no duties of private use."""
    if purpose is Purpose.personal:
        return []
    beyond = [place for place in dict.fromkeys(places) if not under_eu_law((place,))]
    where = ["eu"] if under_eu_law(places) else []
    where += [place for place in beyond if place in _PLACES]
    where += [] if _PLACES.issuperset(beyond) else [OTHER]
    return [
        Duty(
            source=entry.source,
            applies_from=entry.applies_from,
            text=entry.text.format(exemption=exemption),
        )
        for place in where
        for entry in _TEXTS.duties
        if entry.place == place and entry.holds(purpose, exemption)
    ]
