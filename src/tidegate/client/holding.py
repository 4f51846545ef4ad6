"""Our hold on one pod: its record, its lease, and the patches that are refused once somebody else holds it.

Every write tests uid and resourceVersion, so of two callers at once the first wins and the other finds the winner's
record. The lease tells a process that is at work from one that was killed: it is renewed while we work and given
back however we leave, so that the next run goes on at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta

import msgspec

from tidegate import vtime
from tidegate.client.lease import LEASE_SECONDS, RENEW_SECONDS
from tidegate.client.options import Identity
from tidegate.engine import act
from tidegate.engine.observe import PodSeen
from tidegate.kube.api import PODS, Api
from tidegate.kube.errors import ApiError, KubeError
from tidegate.model.names import DrainRecord, decode_drain
from tidegate.model.pod import Pod


class HeldByOther(Exception):
    """Somebody else holds the pod now. ``record`` is theirs, None where they took ours off and left none."""

    def __init__(self, pod: Pod, record: DrainRecord | None) -> None:
        super().__init__(f"{pod} was changed by somebody else meanwhile" if record is None else told(pod, record))
        self.record = record


def told(pod: Pod, record: DrainRecord) -> str:
    """Who holds ``pod``, since when, under which token."""
    verb = {"cut": "cut", "isolate": "isolated", "drain": "drained", "restore": "restored"}.get(
        record.verb, record.verb
    )
    doing = verb if record.is_at_rest else f"being {verb}"
    return f"{pod} is {doing} by {record.by or 'somebody'} since {record.at or 'a while'} (token {record.token})"


class Holding:
    """``record`` is what stands on the pod, or will with the first write."""

    def __init__(self, api: Api, seen: PodSeen, record: DrainRecord, identity: Identity) -> None:
        self.seen = seen
        self.record = msgspec.structs.replace(record, holder=identity.holder or record.token)
        self._known = {"", record.holder, self.record.holder}
        self._api = api
        stands = decode_drain(self.pod.annotations)
        self._is_written = stands is not None and stands.token == record.token
        self._lock = asyncio.Lock()

    @property
    def pod(self) -> Pod:
        assert self.seen.pod is not None
        return self.seen.pod

    async def write(self, labels: Mapping[str, str | None], record: DrainRecord) -> bool:
        """Set labels and record in one tested patch; False where the pod was not as it was seen: look, try again.

        Raises ``HeldByOther``, ``KubeError``.
        """
        async with self._lock:
            return await self._write(labels, record)

    async def _write(self, labels: Mapping[str, str | None], record: DrainRecord) -> bool:
        until = vtime.now() + timedelta(seconds=LEASE_SECONDS)
        leased = msgspec.structs.replace(
            record, holder=self.record.holder, lease_until=act.instant(until) if self.record.holder else ""
        )
        try:
            self.seen.update(await act.relabel(self._api, self.pod, labels, leased))
        except ApiError as error:
            if not (error.is_conflict or error.code == 422):  # a failed ``test`` is 422 Invalid
                raise
            await self._look()
            return False
        self.record, self._is_written = leased, True
        return True

    async def _look(self) -> None:
        """The pod as it is now. Raises ``HeldByOther`` where its record is not ours."""
        try:
            self.seen.update(await self._api.get(PODS, self.pod.name, self.pod.namespace))
        except ApiError as error:
            if not error.is_not_found:
                raise
            self.seen.update(None)
        self.check()

    def check(self) -> None:
        """Raises ``HeldByOther`` where the pod, as last seen, carries another's record (or ours was taken off)."""
        if self.seen.is_gone:
            return
        found = decode_drain(self.pod.annotations)
        if found is None:
            if self._is_written:
                raise HeldByOther(self.pod, None)
        elif found.token != self.record.token and (self._is_written or found.labels):
            raise HeldByOther(self.pod, found)
        elif found.token == self.record.token and found.holder not in self._known:
            raise HeldByOther(self.pod, found)  # two went on with what somebody had left, and this one was first

    @contextlib.asynccontextmanager
    async def leased(self) -> AsyncIterator[None]:
        """The lease is renewed inside, and given back on the way out, whatever the way."""
        renewing = asyncio.get_running_loop().create_task(self._renew())
        try:
            yield
        finally:
            renewing.cancel()
            await self._rest()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            if self._is_written and not self.seen.is_gone:
                with contextlib.suppress(KubeError, HeldByOther):
                    await self.write({}, self.record)

    async def _rest(self) -> None:
        if not self._is_written or self.seen.is_gone or self.pod.is_terminating:
            return
        self.record = msgspec.structs.replace(self.record, holder="", lease_until="")
        for _ in range(5):
            with contextlib.suppress(KubeError, HeldByOther):
                self.check()
                if await self.write({}, self.record):
                    return
