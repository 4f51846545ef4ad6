"""``prepare_service``: give a Service a label of its own, without losing a request; or take it back.

One loop: look at everything, ask ``traffic.preparation`` for the one next move, make it as a tested write, look again.
The record on the Service is the lock, with a lease that is renewed while we work and given back however we leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta

import msgspec

from tidegate import vtime
from tidegate.client.lease import LEASE_SECONDS, RENEW_SECONDS, is_at_work
from tidegate.client.prepare import writes
from tidegate.client.prepare.plan import PrepareOptions, PreparePlan, plan_prepare, told, who
from tidegate.client.prepare.scene import About, Sight, look, record_of
from tidegate.engine import act
from tidegate.kube.api import SERVICES, Api
from tidegate.kube.errors import ApiError, KubeError, Unreachable
from tidegate.model.names import PrepareRecord
from tidegate.traffic.preparation import ABORTING, PREPARED, PREPARING, VERIFYING, Act, Move, next_move

POLL_SECONDS = 0.5
TROUBLES_MAX = 5
"""Answers of a server in trouble, in a row, that are no end: the client has waited for the reads among them."""
Heard = Callable[[Move], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """``result``: prepared, unchanged (it was so already), aborted, refused (nothing changed), stopped (it cannot go
    on by itself, or its time is over; what was begun stays). ``seconds`` it took."""

    result: str
    reason: str = ""
    seconds: float = 0.0


class _HeldByOther(Exception):
    """Somebody else is at work on the Service."""


async def prepare_service(
    api: Api, about: About, options: PrepareOptions | None = None, heard: Heard = lambda move: None
) -> Prepared:
    """Plan and carry out. Idempotent: what was interrupted anywhere is continued, or with ``is_abort`` undone.

    Raises ``KubeError`` (404 for an unknown Deployment or Service).
    """
    chosen = options or PrepareOptions()
    return await carry_out(api, await plan_prepare(api, about, chosen), chosen, heard)


async def carry_out(api: Api, plan: PreparePlan, options: PrepareOptions, heard: Heard = lambda move: None) -> Prepared:
    """Carry a plan out. A refusal changes nothing. Raises ``KubeError``."""
    if plan.refusals:
        return Prepared("refused", "; ".join(map(str, plan.refusals)))
    if plan.done:
        return Prepared("unchanged", plan.done)
    working = _Preparation(api, plan, options, heard)
    try:
        async with working.leased():
            return await working.run()
    except _HeldByOther as other:
        return Prepared("stopped" if working.has_changed else "refused", str(other), working.seconds)


class _Preparation:
    def __init__(self, api: Api, plan: PreparePlan, options: PrepareOptions, heard: Heard) -> None:
        rng = random.Random() if options.seed is None else random.Random(f"{options.seed}/{plan.about}")
        self._api, self._about, self._wish, self._options, self._heard = api, plan.about, plan.wish, options, heard
        self._token = f"{rng.getrandbits(48):012x}"
        self._holder = options.identity.holder or f"{self._token}-{rng.getrandbits(24):06x}"
        self._record: PrepareRecord | None = None
        """As we wrote it last; None before the first write."""
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._renewed_at = self._extended_at = float("-inf")
        self._last: Move | None = None
        self._problem = ""
        self._troubles = 0
        self.has_changed = False
        self._began_it = False

    @property
    def _is_ours_alone(self) -> bool:
        """Whether there is nothing but a record that we made: a refusal leaves not even that."""
        return self._began_it and not self.has_changed

    @property
    def seconds(self) -> float:
        return self._clock() - self._began

    async def run(self) -> Prepared:
        """Until it is as wished, stuck, or out of time."""
        while self.seconds < self._options.timeout_seconds:
            try:
                result = await self._turn()
            except Unreachable as error:
                self._problem, result = str(error), None
                await asyncio.sleep(POLL_SECONDS)
            except ApiError as error:
                # A failed test is 422; a pod that is gone 404: what was looked at has changed, look again. Of what is
                # made nobody knows whether it stands where the server is in trouble: the next look tells.
                is_changed = error.is_conflict or error.code == 422 or (error.is_not_found and self._last is not None)
                self._troubles = self._troubles + 1 if error.is_trouble else 0
                if not is_changed and not 0 < self._troubles < TROUBLES_MAX:
                    raise
                self._problem, result = str(error), None
                await asyncio.sleep(POLL_SECONDS / 10)
            if result is not None:
                return result
        last = told(self._last, self._about) if self._last is not None else "nothing"
        reason = f"not done within {self._options.timeout_seconds:g} s, it came as far as: {last}"
        return Prepared("stopped", f"{reason} ({self._problem})" if self._problem else reason, self.seconds)

    async def _turn(self) -> Prepared | None:
        sight = await look(self._api, self._about, self._wish.key)
        self._check(sight)
        move = next_move(sight.scene, self._wish)
        if move.act is Act.DONE:
            return self._done(move)
        if move.act is Act.STUCK:
            return Prepared("stopped" if self.has_changed else "refused", move.reason, self.seconds)
        if sight.service is not None and self._clock() - self._renewed_at >= RENEW_SECONDS:
            await self._claim(sight)
            return None
        if move.act is Act.FINISH and not self._wish.is_abort and not await self._is_settled():
            return None
        if move != self._last:
            self._last = move
            self._heard(move)
        if move.act is Act.WAIT:
            await asyncio.sleep(POLL_SECONDS)
            return None
        self._problem = ""
        await self._make(sight, move)
        self._troubles = 0
        return None

    def _done(self, move: Move) -> Prepared:
        if not self.has_changed:
            return Prepared("unchanged", move.reason, self.seconds)
        return Prepared("aborted" if self._wish.is_abort else "prepared", "", self.seconds)

    def _check(self, sight: Sight) -> None:
        """Raises ``_HeldByOther`` where the Service's record is somebody else's who is at work."""
        found = sight.scene.record
        if found is not None and is_at_work(found, self._options.identity, vtime.now(), self._holder):
            raise _HeldByOther(who(self._about, found))
        if self._record is not None and sight.service is not None and self._last is not None:
            is_ours = found is not None and found.token == self._record.token
            if not is_ours and self._last.act is not Act.FINISH:
                raise _HeldByOther(f"the record on svc/{self._about.service} was changed by somebody else meanwhile")

    async def _is_settled(self) -> bool:
        """Whether the selector has stood long enough for what it may have left out to show."""
        if self._extended_at == float("-inf"):
            self._extended_at = self._clock()
        left = self._extended_at + self._options.settle_seconds - self._clock()
        await asyncio.sleep(min(max(left, 0.0), POLL_SECONDS))
        return left <= 0

    # -- the record

    async def _claim(self, sight: Sight) -> None:
        """Take the lease, or renew it; say which way it goes."""
        found = sight.scene.record
        phase = ABORTING if self._wish.is_abort else PREPARING
        if found is not None and not self._wish.is_abort and found.phase in (PREPARING, VERIFYING, PREPARED):
            phase = found.phase
        await self._write(sight, phase)

    async def _write(self, sight: Sight, phase: str, selector: dict[str, str | None] | None = None) -> None:
        assert sight.service is not None
        self._began_it = self._began_it or sight.scene.record is None
        found = sight.scene.record or PrepareRecord(
            token=self._token,
            phase=phase,
            key=self._wish.key,
            value=self._wish.value,
            in_place=self._wish.in_place,
            at=act.instant(vtime.now()),
        )
        until = act.instant(vtime.now() + timedelta(seconds=LEASE_SECONDS))
        following = msgspec.structs.replace(
            found,
            phase=phase,
            deployments=self._about.deployments,
            by=self._options.identity.by or found.by,
            holder="" if phase == PREPARED and selector is None and self._is_finishing else self._holder,
            lease_until="" if phase == PREPARED and selector is None and self._is_finishing else until,
        )
        await writes.write_service(self._api, sight.service, following, selector)
        self._record, self._renewed_at = following, self._clock()

    @property
    def _is_finishing(self) -> bool:
        return self._last is not None and self._last.act is Act.FINISH

    @contextlib.asynccontextmanager
    async def leased(self) -> AsyncIterator[None]:
        """The lease is given back on the way out, whatever the way."""
        try:
            yield
        finally:
            await self._rest()

    async def _rest(self) -> None:
        for _ in range(5):
            if self._record is None:
                return
            try:
                obj = await self._api.get(SERVICES, self._about.service, self._about.namespace)
                found = record_of(obj)
                if found is None or found.holder != self._holder:
                    return
                if self._is_ours_alone:
                    await writes.write_service(self._api, obj, None)
                    return
                resting = msgspec.structs.replace(found, holder="", lease_until="")
                await writes.write_service(self._api, obj, resting)
                return
            except KubeError:
                await asyncio.sleep(POLL_SECONDS / 10)

    # -- the moves

    async def _make(self, sight: Sight, move: Move) -> None:
        wish, name = self._wish, move.subject
        match move.act:
            case Act.CLAIM:
                await self._claim(sight)
                return
            case Act.EXTEND:
                await self._write(sight, VERIFYING, {wish.key: wish.value})
                self._extended_at = self._clock()
            case Act.SHRINK:
                await self._write(sight, ABORTING if wish.is_abort else PREPARING, {wish.key: None})
            case Act.FINISH if wish.is_abort:
                assert sight.service is not None
                await writes.write_service(self._api, sight.service, None)
                self._record = None
            case Act.FINISH:
                await self._write(sight, PREPARED)
            case Act.REHEARSE:
                assert sight.service is not None and sight.scene.record is not None
                await writes.rehearse(self._api, sight.service, sight.scene.record.token, wish)
            case Act.DISMISS:
                assert sight.rehearsal is not None
                await writes.dismiss(self._api, sight.rehearsal)
            case Act.PAUSE:
                record = self._record or sight.scene.record or sight.scene.subjects[0].record
                assert record is not None
                record = msgspec.structs.replace(record, service=self._about.service)
                await writes.pause(self._api, sight, name, record)
            case Act.LABEL_TEMPLATE:
                await writes.label_template(self._api, sight, name, wish)
            case Act.ANNOUNCE:
                await writes.announce(self._api, sight, name)
            case Act.RESUME:
                await writes.resume(self._api, sight, name)
            case _:
                await self._make_each(sight, move)
        self.has_changed = True

    async def _make_each(self, sight: Sight, move: Move) -> None:
        """One write for each name; those that changed meanwhile, and the rest when the lease is due, come next time."""
        for name in move.names:
            if self._clock() - self._renewed_at >= RENEW_SECONDS and sight.service is not None:
                return
            try:
                if move.act is Act.LABEL_PODS:
                    await writes.label_pod(self._api, sight, name, self._wish)
                elif move.act is Act.LABEL_REVISIONS:
                    await writes.label_edition(self._api, sight, name, self._wish)
                else:
                    await writes.clean_edition(self._api, sight, name)
            except ApiError as error:
                if not (error.is_conflict or error.is_not_found or error.code == 422):
                    raise
                self._problem = str(error)
