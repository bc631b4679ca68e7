"""The report of a session: shares by bin and in all, for the group and for each participant.

In a session with `min_participants`, the report has groups only, and no two reports differ by one person:

- A group has at least so many participants, and each of them has the same weight.
- Of each bin, `min_participants - 1` participants are omitted by lot: `service/pipeline/groups.py`.
- A bin is shown once it is over. It never changes afterwards, and the whole is made of the shown bins.
- All shares are in coarse steps, and nothing can be selected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from service.api.sessions import ParticipantShares, SessionBin, SessionInfo, SessionReport, SessionShares
from service.pipeline.groups import drawn, in_steps, min_members
from service.sessions.sessions import Session, Tallies, Tally

# A count may arrive late: so long the store may take, and the clocks of gateways may differ.
LATE_S = 5.0


def report(session: Session, tallies: Tallies, labels: Sequence[str], now_s: float) -> SessionReport:
    groups_only = session.min_participants is not None
    bins: list[SessionBin] = []
    rows: list[NDArray[np.float64]] = []
    whole: dict[str, Tally] = {}
    for number, members in sorted(tallies.items()):
        start_s = number * session.bin_s
        shown = SessionBin(start_s=start_s, end_s=start_s + session.bin_s)
        if session.min_participants is None:
            shown.group = _shares(members, labels)
            shown.participants = _participants(members, labels)
        elif session.started_s + shown.end_s + LATE_S > now_s:
            continue
        else:
            found = _group(members, labels, session.min_participants, session.secret)
            if found is None:
                bins.append(shown)
                continue
            rows.append(found)
            members = {name: tally for name, tally in members.items() if tally.readable}
            shown.group = _shaped(in_steps(found[None]), labels, len(members))
        bins.append(shown)
        for name, tally in members.items():
            whole.setdefault(name, Tally()).add(tally)
    group = None
    if rows:
        group = _shaped(in_steps(np.array(rows)), labels, len(whole))
    elif whole and not groups_only:
        group = _shares(whole, labels)
    return SessionReport(
        **dict(info(session)),
        group=group,
        participants=None if groups_only else _participants(whole, labels),
        bins=bins,
    )


def info(session: Session) -> SessionInfo:
    return SessionInfo(
        id=session.id,
        name=session.name,
        started_at=_time(session.started_s),
        expires_at=_time(session.expires_s),
        bin_minutes=session.bin_minutes,
        min_participants=session.min_participants,
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(round(seconds, 3), UTC)


def _group(
    members: Mapping[str, Tally], labels: Sequence[str], min_participants: int, secret: str
) -> NDArray[np.float64] | None:
    """The mean over the participants that count; None if these are too few. As `_row`."""
    # Only faces that were read: otherwise one emotion among many absent people would be one person's.
    readable = [name for name, tally in members.items() if tally.readable]
    if len(readable) < min_members(min_participants):
        return None
    counted = drawn(readable, min_participants, bytes.fromhex(secret))
    mean: NDArray[np.float64] = np.mean([_row(members[name], labels) for name in counted], axis=0)
    return mean


def _row(tally: Tally, labels: Sequence[str]) -> NDArray[np.float64]:
    """float64 [C+3]: shares of the emotions and of certain among readable images, unreadable, absent.

    The first ones are NaN without a readable image.
    """
    counts = [tally.emotions.get(label, 0) for label in labels]
    read = np.array([*counts, tally.certain]) / (tally.readable or np.nan)
    return np.array([*read, *(np.array([tally.unreadable, tally.absent]) / tally.images)])


def _shares(members: Mapping[str, Tally], labels: Sequence[str]) -> SessionShares:
    """The mean over participants: each has the same weight."""
    rows = np.array([_row(tally, labels) for tally in members.values()])
    read = rows[~np.isnan(rows[:, 0])]
    means = np.concatenate([read.mean(0)[:-2] if len(read) else rows[0, :-2], rows.mean(0)[-2:]])
    return _shaped(means, labels, len(members), sum(tally.images for tally in members.values()))


def _participants(members: Mapping[str, Tally], labels: Sequence[str]) -> list[ParticipantShares]:
    return [
        ParticipantShares(participant=name, **dict(_shaped(_row(tally, labels), labels, None, tally.images)))
        for name, tally in sorted(members.items())
    ]


def _shaped(
    row: NDArray[np.float64], labels: Sequence[str], participants: int | None, images: int | None = None
) -> SessionShares:
    *emotions, certain, unreadable, absent = (round(share, 4) for share in row.tolist())
    shares = SessionShares(participants=participants, images=images, unreadable=unreadable, absent=absent)
    if not np.isnan(certain):
        shares.image_share, shares.certain = dict(zip(labels, emotions, strict=True)), certain
    return shares
