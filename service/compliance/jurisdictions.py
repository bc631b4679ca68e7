"""Jurisdictions: codes for the places of the people whose faces are analysed."""

from __future__ import annotations


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


ISO_3166 = _codes(
    """
    ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bl bm bn bo bq br bs bt
    bv bw by bz ca cc cd cf cg ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg eh
    er es et fi fj fk fm fo fr ga gb gd ge gf gg gh gi gl gm gn gp gq gr gs gt gu gw gy hk hm hn hr ht
    hu id ie il im in io iq ir is it je jm jo jp ke kg kh ki km kn kp kr kw ky kz la lb lc li lk lr ls
    lt lu lv ly ma mc md me mf mg mh mk ml mm mn mo mp mq mr ms mt mu mv mw mx my mz na nc ne nf ng ni
    nl no np nr nu nz om pa pe pf pg ph pk pl pm pn pr ps pt pw py qa re ro rs ru rw sa sb sc sd se sg
    sh si sj sk sl sm sn so sr ss st sv sx sy sz tc td tf tg th tj tk tl tm tn to tr tt tv tw tz ua ug
    um us uy uz va vc ve vg vi vn vu wf ws ye yt za zm zw
    """
)
EU = _codes("at be bg cy cz de dk ee es fi fr gr hr hu ie it lt lu lv mt nl pl pt ro se si sk")
# Parts of the Union that have codes of their own: Aland, and the outermost regions of France.
EU_BEYOND = _codes("ax gf gp mf mq re yt")
# Regulation (EU) 2024/1689 is of relevance to the European Economic Area, so these take it over.
EEA_ONLY = _codes("is li no")
UNIONS = frozenset({"eu", "eea"})
OTHER = "other"


def normalized(places: tuple[str, ...]) -> tuple[str, ...]:
    """Codes in lower case, `uk` as `gb`. Raises `ValueError` that names the first unknown place."""
    lowered = tuple("gb" if place.lower() == "uk" else place.lower() for place in places)
    for place in lowered:
        if place not in ISO_3166 | UNIONS | {OTHER}:
            raise ValueError(f"{place!r} is not eu, eea, other or a country like de (ISO 3166-1)")
    return lowered


def under_eu_law(where: tuple[str, ...]) -> bool:
    """Whether the law of the EU, or of the EEA which takes it over, applies in any of these places."""
    return any(place in EU | EU_BEYOND | EEA_ONLY | UNIONS for place in where)
