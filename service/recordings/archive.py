"""States and results of recordings in the store, where every gateway finds them."""

from __future__ import annotations

from hashlib import sha256

from service.api.recordings import RecordingJob, RecordingState
from service.core.errors import NotFound
from service.recordings.job import Job
from service.recordings.results import Results
from service.state.store import Store

# A gateway that has been silent for so long has ended. It writes twice a second.
ALIVE_S = 10.0


class Archive:
    """Methods raise `StoreUnavailable`. ttl_s: how long a state and its results are kept."""

    def __init__(self, store: Store, ttl_s: float) -> None:
        self._store = store
        self._ttl_s = ttl_s

    async def beat(self, job: Job) -> bool:
        """Write that the job is alive, and its state. Returns whether another gateway has cancelled it."""
        await self._store.write(_alive(job.id), {"alive": b"1"}, ALIVE_S)
        await self._write_state(job)
        return bool(await self._store.read(_cancel(job.id)))

    async def keep(self, job: Job) -> None:
        """Write the final state and the results."""
        # The results first: they must be there once the state says so.
        if job.results is not None:
            await self._store.write(_results(job.id), job.results.fields, self._ttl_s)
        await self._write_state(job)

    async def find(self, owner: str, id: str) -> RecordingJob:
        """Raises `NotFound` if the recording is unknown, expired or another caller's."""
        # Read before the state: a job that ends between the two reads is not interrupted.
        alive = await self._store.read(_alive(id))
        fields = await self._store.read(_state(id))
        if fields.get("owner") != owner.encode():
            raise unknown()
        job = RecordingJob.model_validate_json(fields["job"])
        if not alive and not job.state.final:
            job.state, job.left_s = RecordingState.interrupted, None
        return job

    async def results(self, id: str) -> Results | None:
        fields = await self._store.read(_results(id))
        return Results.of(fields) if fields else None

    async def delete(self, id: str) -> None:
        await self._store.delete(_results(id))
        await self._store.delete(_state(id))

    async def cancel(self, id: str) -> None:
        """Tell the gateway that works on it."""
        await self._store.write(_cancel(id), {"cancel": b"1"}, 2 * ALIVE_S)

    async def repeated(self, owner: str, key: str) -> tuple[str, str] | None:
        """The id that was remembered for an idempotency key, and the sender's fingerprint."""
        fields = await self._store.read(_repeat(owner, key))
        return (fields["id"].decode(), fields["fingerprint"].decode()) if fields else None

    async def remember(self, owner: str, key: str, id: str, fingerprint: str) -> None:
        fields = {"id": id.encode(), "fingerprint": fingerprint.encode()}
        await self._store.write(_repeat(owner, key), fields, self._ttl_s)

    async def _write_state(self, job: Job) -> None:
        fields = {
            "owner": job.request.owner.encode(),
            "job": job.view().model_dump_json(exclude_none=True).encode(),
        }
        await self._store.write(_state(job.id), fields, self._ttl_s)


def unknown() -> NotFound:
    return NotFound("no recording of this id is kept for this caller")


def _state(id: str) -> str:
    return f"recording:{id}"


def _results(id: str) -> str:
    return f"recording:{id}:results"


def _alive(id: str) -> str:
    return f"recording:{id}:alive"


def _cancel(id: str) -> str:
    return f"recording:{id}:cancel"


def _repeat(owner: str, key: str) -> str:
    digest = sha256(f"{owner}:{key}".encode()).hexdigest()  # a name of a key has no colon
    return f"recording-key:{digest}"
