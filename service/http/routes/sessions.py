"""`/v1/sessions`: counts over the photos and frames of several participants."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from service.api.sessions import SessionInfo, SessionOptions, SessionReport
from service.core.errors import BodyTooLarge, Draining, InvalidRequest, NotFound, Overloaded, StoreUnavailable
from service.core.manifest import ClassifierManifest
from service.core.seen import Outcome
from service.http import examples
from service.http.examples import example_of
from service.http.problems import documented
from service.http.request_state import RequestState, state_of
from service.http.route_table import SESSION, SESSIONS
from service.sessions.report import info, report
from service.sessions.sessions import Session, Sessions

_Id = Annotated[str, Path(description="The id of the session.", examples=[examples.SESSION.id])]


class Seat:
    """The place of one participant in a session."""

    def __init__(self, sessions: Sessions, session: Session, participant: str) -> None:
        self._sessions = sessions
        self._session = session
        self._participant = participant

    async def count(self, outcome: Outcome) -> None:
        """Raises `NotFound` once the session has ended, and `StoreUnavailable`."""
        await self._sessions.count(self._session, self._participant, outcome)


async def take_seat(
    sessions: Sessions, state: RequestState, session: str | None, participant: str | None
) -> Seat | None:
    """The seat that a request names, None without one. Raises `NotFound` and `StoreUnavailable`."""
    if session is None or participant is None:
        return None
    return Seat(sessions, await sessions.find(owner_of(state), session), participant)


def owner_of(state: RequestState) -> str:
    return "" if state.key is None else state.key.name


def sessions_router(
    sessions: Sessions, classifier: ClassifierManifest, min_participants: int | None
) -> APIRouter:
    """min_participants: `EXPRESSNET_AGGREGATE_ONLY`."""
    router = APIRouter(tags=["sessions"])
    problems = documented(NotFound, StoreUnavailable)

    @router.post(
        SESSIONS,
        operation_id="create_session",
        summary="Start a session",
        status_code=201,
        response_model_exclude_none=True,
        responses=example_of(examples.SESSION, status=201)
        | documented(BodyTooLarge, InvalidRequest, StoreUnavailable, Overloaded, Draining),
    )
    async def create(request: Request, response: Response, options: SessionOptions) -> SessionInfo:
        group_size = options.min_participants or min_participants
        if group_size is not None and min_participants is not None and group_size < min_participants:
            raise InvalidRequest(f"min_participants: must be at least {min_participants} in group mode")
        session = Session(
            owner_of(state_of(request.scope)),
            options.name,
            options.bin_minutes,
            options.ttl_s,
            group_size,
            started_s=sessions.now(),
        )
        await sessions.add(session)
        response.headers["Location"] = f"{request.scope['root_path']}{SESSIONS}/{session.id}/report"
        return info(session)

    @router.get(
        f"{SESSION}/report",
        operation_id="report_session",
        summary="What was seen in a session so far",
        response_model_exclude_none=True,
        responses=example_of(examples.SESSION_REPORT) | problems,
    )
    async def report_session(request: Request, id: _Id) -> SessionReport:
        session = await sessions.find(owner_of(state_of(request.scope)), id)
        tallies = await sessions.tallies(session)
        # On a thread: a long session has many counts.
        return await asyncio.to_thread(report, session, tallies, classifier.labels, sessions.now())

    @router.delete(
        SESSION,
        operation_id="delete_session",
        summary="Delete a session and its counts",
        status_code=204,
        responses=problems,
    )
    async def delete(request: Request, id: _Id) -> None:
        await sessions.delete(await sessions.find(owner_of(state_of(request.scope)), id))

    return router
