"""What the law says about inferring emotions, as far as a start can be judged by it. No legal advice.

The texts were read in November 2026; docs/responsible-use.md has them in context.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from service.compliance.jurisdictions import under_eu_law

AI_ACT = "Regulation (EU) 2024/1689"
PROHIBITION = f"Article 5(1)(f) of {AI_ACT}"


class Purpose(StrEnum):
    """What a gateway is run for; docs/responsible-use.md says what falls under which."""

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
    """What a deployer has to do, where that is written, and since or from when."""

    model_config = ConfigDict(frozen=True)

    source: str
    applies_from: str | None = Field(description="ISO date; null where there is no one date.")
    text: str


def prohibited(purpose: Purpose, places: tuple[str, ...], exemption: Exemption | None) -> bool:
    """Whether `PROHIBITION` forbids it."""
    return purpose in PROHIBITED and exemption is None and under_eu_law(places)


def duties(purpose: Purpose, places: tuple[str, ...], exemption: Exemption | None) -> list[Duty]:
    """What holds for a use that is not prohibited. A private one has none that is known here."""
    if purpose is Purpose.personal:
        return []
    found = list(_of_the_eu(purpose, exemption)) if under_eu_law(places) else []
    others = [place for place in dict.fromkeys(places) if not under_eu_law((place,))]
    found += [ELSEWHERE_KNOWN[place] for place in others if place in ELSEWHERE_KNOWN]
    return found if all(place in ELSEWHERE_KNOWN for place in others) else [*found, ELSEWHERE]


def _of_the_eu(purpose: Purpose, exemption: Exemption | None) -> Iterator[Duty]:
    if exemption is not None:
        yield Duty(
            source=f"{AI_ACT}, Article 5(1)(f)",
            applies_from="2025-02-02",
            text=f"Only {exemption} reasons make this use lawful at work and in education: use the answers "
            "for nothing else, and no more than these reasons need.",
        )
    if purpose is Purpose.research:
        yield Duty(
            source=f"{AI_ACT}, Article 2(6)",
            applies_from="2025-02-02",
            text="The Act leaves out systems that are made and put into service for scientific research "
            "alone; for any other use what follows holds.",
        )
    unless = (
        "; but not where the law permits the use to detect, prevent or investigate criminal offences"
        if purpose is Purpose.law_enforcement
        else ""
    )
    yield Duty(
        source=f"{AI_ACT}, Article 50(3) and (5)",
        applies_from="2026-08-02",
        text="Tell the people whose faces are analysed, clearly, accessibly and no later than when they are "
        f"first exposed to it{unless}.",
    )
    yield Duty(
        source=f"{AI_ACT}, Article 6(2) and Annex III, point 1(c)",
        applies_from="2027-12-02",
        text="Emotion recognition is high-risk: provider and deployer have the duties of Chapter III, among "
        "them human oversight, logs and use as instructed. The date was 2026-08-02 until the Act was amended "
        "in 2026; check the Official Journal.",
    )
    if purpose is Purpose.workplace:
        yield Duty(
            source=f"{AI_ACT}, Article 26(7)",
            applies_from="2027-12-02",
            text="Tell workers' representatives and the workers before a high-risk system is used at work.",
        )
    yield EU_DATA_PROTECTION
    if purpose is Purpose.medical or exemption is Exemption.medical:
        yield MEDICAL_DEVICES


EU_DATA_PROTECTION = Duty(
    source="Regulation (EU) 2016/679, Articles 6, 9, 13, 14 and 35",
    applies_from="2018-05-25",
    text="Pictures of people are personal data: have a legal basis, tell people what is done with them, and "
    "assess the impact before you begin. Directive (EU) 2016/680 holds for law enforcement instead.",
)
MEDICAL_DEVICES = Duty(
    source="Regulation (EU) 2017/745, Article 2(1)",
    applies_from="2021-05-26",
    text="Software that is meant for diagnosis, monitoring or treatment is a medical device; this one was "
    "not made or assessed as one.",
)
UNITED_KINGDOM = Duty(
    source="UK GDPR and Data Protection Act 2018",
    applies_from="2021-01-01",
    text="Pictures of people are personal data: have a lawful basis, tell people, and assess the impact. In "
    "October 2022 the Information Commissioner warned against emotion analysis as immature.",
)
UNITED_STATES = Duty(
    source="laws of the states on biometric data, such as Illinois, 740 ILCS 14",
    applies_from=None,
    text="Where a state's law counts scans of faces as biometric data, tell people in writing and have their "
    "written consent first.",
)
NEW_ZEALAND = Duty(
    source="Biometric Processing Privacy Code 2025 of New Zealand, rule 10",
    applies_from="2025-11-03",
    text="To infer emotions from biometric information is allowed in few cases only: find yours before you "
    "begin, and tell people. Who already did it had until 2026-08-03.",
)
ELSEWHERE_KNOWN = {"gb": UNITED_KINGDOM, "nz": NEW_ZEALAND, "us": UNITED_STATES}
ELSEWHERE = Duty(
    source="the law of the place",
    applies_from=None,
    text="No rule of this place is known to the service: ask about data protection, labour and consumer law "
    "before you begin.",
)
