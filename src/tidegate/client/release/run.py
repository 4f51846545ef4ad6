"""The engine of one release: look, decide, guard, act, remember; again whenever something changed.

It holds nothing that cannot be had again: killed anywhere, the next engine goes on from what it finds. The lease in the
written release keeps two of them apart; each write of the memory tests the version that was read, so of two that begin
at once one wins, and whoever lost its lease writes nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from tidegate import vtime
from tidegate.client.lease import LEASE_SECONDS, RENEW_SECONDS, is_at_work
from tidegate.client.release import asking
from tidegate.client.release.acts import BACKGROUND, perform
from tidegate.client.release.book import Book, Entry
from tidegate.client.release.endings import Endings
from tidegate.client.release.family import look, makers_of
from tidegate.client.release.ground import Ground, is_stale
from tidegate.client.release.look import Sight
from tidegate.client.release.unseen import Unseen
from tidegate.engine import act
from tidegate.kube.api import Api
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError, Unreachable
from tidegate.release.guard import breaches
from tidegate.release.leaving import listed
from tidegate.release.plan import Act, Decision, Step
from tidegate.release.record import Asked, Measured, Phase, Status, noted
from tidegate.release.scene import Scene
from tidegate.release.strategies import decide

if TYPE_CHECKING:
    from tidegate.client.release.activity import Work

POLL_SECONDS = 0.5
AGAIN_SECONDS = 0.1
"""After a write: what comes of it is most often there at once."""
GATHER_SECONDS = 0.05
Heard = Callable[["Turn"], None]


class HeldByOther(Exception):
    """Another engine is at work on the release."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One look and what came of it, for those who watch."""

    sight: Sight
    decision: Decision


class Working:
    """What revisions that drain still do (``activity.Work``): asked of rainbow alone, so no other one imports it."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._work: Work | None = None

    async def seen(self, sight: Sight) -> Scene:
        """The scene with it. Never raises."""
        if sight.scene.spec.strategy != "rainbow":
            return sight.scene
        if self._work is None:
            from tidegate.client.release.activity import Work

            self._work = Work(self._client)
        return await self._work.seen(sight)


class Engine:
    """Carries one release. ``turn`` is one round; ``run`` turns until it is at its end or needs a person."""

    def __init__(self, book: Book, ground: Ground, api: Api | None = None, endings: Endings | None = None) -> None:
        rng = random.Random() if ground.seed is None else random.Random(f"{ground.seed}/release")
        self._book, self._ground = book, ground
        self._api: Api = api or ground.client
        self._nonce = f"{rng.getrandbits(48):012x}"
        self._holder = ground.identity.holder or self._nonce
        self._working = Working(ground.client)
        self._beside: dict[str, asyncio.Task[None]] = {}
        self._subjects: dict[str, asking.Subject] = {}
        """What questions under way are about."""
        self._asked: dict[str, Asked] = {}
        self._measured: dict[str, Measured] = {}
        self._failures: dict[str, str] = {}
        self._renewed_at = float("-inf")
        self._written_last: Entry | None = None
        self._news = asyncio.Event()
        self.endings = endings or Endings()
        self._makers: set[str] = set()
        """uids of what ever made pods of this workload: a watch sees all of a namespace."""
        self._unseen = Unseen(ground, self.endings)
        self.heard: Heard = lambda turn: None
        self.may_write: Callable[[], bool] = lambda: True
        """Whether we are still the one that acts (an operator's Lease): asked before every write."""

    async def turn(self) -> Decision:
        """Look, decide, make what is to be made now. Raises ``KubeError``, ``HeldByOther``, ``Invalid``."""
        entry = await self._book.read()
        if entry is None:
            raise KubeError("the release is not written down any more")
        if is_at_work(entry.status, self._ground.identity, vtime.now(), self._holder):
            raise HeldByOther(f"release of {entry.spec.workload} is carried on by {entry.status.by or 'somebody'}")
        entry = await self._claimed(entry)
        sight = await self._seen(self._api, entry)
        if unknown := await self._unseen.pending(entry, sight):
            raise self._put_off(sight, f"how pod/{unknown[0]} ended is not known yet: its node does not answer")
        sight.scene = replace(sight.scene, endings=self._endings(entry.status.began))
        decision = decide(sight.scene)
        is_news = decision.status.phase in _TOLD and decision.status.phase != entry.status.phase
        if is_news and self._api is not self._ground.client:
            # A copy may be older than what we wrote: a breach, and an end, are told by what the API says now.
            sight = await self._seen(self._ground.client, entry)
            decision = decide(sight.scene)
        wrong = breaches(sight.scene, decision)
        if wrong:
            status = msgspec.structs.replace(decision.status, phase=Phase.HALTED.value, reason=f"guard: {wrong[0]}")
            decision = Decision((), status)
        decision = listed(sight.scene, self._explained(decision), self.endings.was_ready)
        self._forget_rounds(decision.status.round)
        self._forget_drains(decision)
        entry = await self._remember(entry, decision)
        sight.entry = entry
        self.heard(Turn(sight, decision))
        for step in decision.steps:
            sight.entry = await self._claimed(sight.entry)  # a look may take long, and so may the step before
            await self._make(sight, step)
        return decision

    async def _seen(self, api: Api, entry: Entry) -> Sight:
        """Everything as it stands by ``api``, with the memory as it is now."""
        sight = await look(api, entry, vtime.now().timestamp(), {})
        self._makers |= makers_of(sight)
        sight.scene = replace(sight.scene, endings=self._endings(entry.status.began))
        sight.scene = replace(sight.scene, status=self._merged(entry.status))
        sight.scene = await self._working.seen(sight)
        return sight

    def _endings(self, began: float) -> dict[str, str]:
        """Pod -> how it ended, of a release that began then: what was seen, and what others have told."""
        return {**self._unseen.since(began), **self.endings.since(began, self._makers)}

    def _put_off(self, sight: Sight, why: str) -> Unreachable:
        """Nothing is decided before that is known; the memory stays as it is."""
        self.heard(Turn(sight, Decision((), msgspec.structs.replace(sight.entry.status, reason=why))))
        return Unreachable(why)

    async def run(self, timeout_seconds: float = float("inf")) -> Status:
        """Until it is done or aborted, or waits for a person (paused, halted), or the time is over.

        Raises ``HeldByOther``, ``Invalid``, ``KubeError`` that no second try will mend.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_seconds
        status = Status()
        try:
            while loop.time() < until:
                pause = POLL_SECONDS
                self._news.clear()
                try:
                    decision = await self.turn()
                    status = decision.status
                    is_acting = any(step.act not in BACKGROUND for step in decision.steps)
                    pause = AGAIN_SECONDS if is_acting else POLL_SECONDS
                    if not decision.steps and Phase(status.phase) in _RESTING and not self._beside:
                        return status
                except Unreachable:
                    pass
                except ApiError as error:
                    if not (is_stale(error) or error.code in (429, 500, 503, 504)):
                        raise
                await self._rest(min(pause, until - loop.time()))
            return status
        finally:
            await self.leave()

    async def leave(self) -> None:
        """Stop what runs beside, and give the lease back. What was begun stays for the next engine."""
        for task in self._beside.values():
            task.cancel()
        await asyncio.gather(*self._beside.values(), return_exceptions=True)
        self._beside.clear()
        for _ in range(5):
            try:
                entry = self._written_last or await self._book.read()
                self._written_last = None  # somebody wrote since, if this comes to nothing: it is read again
                if entry is None or entry.status.holder != self._holder or not self.may_write():
                    return
                await self._book.remember(entry, msgspec.structs.replace(entry.status, holder="", lease_until=""))
                return
            except KubeError:
                await asyncio.sleep(POLL_SECONDS / 10)

    # --- memory ---

    async def _claimed(self, entry: Entry) -> Entry:
        """Ours, with a lease that is fresh enough. Raises ``ApiError``."""
        now = asyncio.get_running_loop().time()
        if entry.status.holder == self._holder and now - self._renewed_at < RENEW_SECONDS:
            return entry
        until = act.instant(vtime.now() + timedelta(seconds=LEASE_SECONDS))
        by = self._ground.identity.by or entry.status.by
        status = msgspec.structs.replace(entry.status, holder=self._holder, lease_until=until, by=by)
        entry = await self._written(entry, status)
        self._renewed_at = now
        return entry

    def _merged(self, status: Status) -> Status:
        """The memory with what was answered since; answers of rounds before are forgotten."""
        asked = {key: one for key, one in {**status.asked, **self._asked}.items() if key.endswith(f"/{status.round}")}
        measured = dict(status.measured)
        for key, one in self._measured.items():
            if key.endswith(f"/{status.began:.0f}") and one.at > measured.get(key, Measured()).at:
                measured[key] = one
        return msgspec.structs.replace(status, asked=asked, measured=measured)

    async def _remember(self, entry: Entry, decision: Decision) -> Entry:
        """Write the memory where it says something new."""
        before = entry.status
        status = msgspec.structs.replace(decision.status, holder=before.holder, lease_until=before.lease_until)
        at = vtime.now().timestamp()
        for step in decision.steps:
            is_asked_again = status.halted_in and step.act is Act.ASK
            if self._key(step) not in self._beside and not is_asked_again:
                status = noted(status, at, str(step))
        if status.phase != before.phase and not decision.steps:
            status = noted(status, at, f"{status.phase}: {status.reason}")
        return entry if status == before else await self._written(entry, status)

    async def _written(self, entry: Entry, status: Status) -> Entry:
        if not self.may_write():
            raise HeldByOther("this process is not the leader any more")
        self._written_last = await self._book.remember(entry, status)
        return self._written_last

    # --- steps ---

    async def _make(self, sight: Sight, step: Step) -> None:
        if not self.may_write():
            raise HeldByOther("this process is not the leader any more")
        if step.act not in BACKGROUND:
            await self._performed(sight, step)
            return
        key = self._key(step)
        about = self._subjects.get(key)
        if about is not None and about.is_outdated(sight.pods_of.get(about.question.revision, ())):
            self._beside[key].cancel()  # and asked anew with the next turn
        if key not in self._beside:
            if step.question is not None and self._asked.get(step.question.key, _UNHEARD).refused:
                del self._asked[step.question.key]  # what the memory says of it is for the strategy to keep
            task = asyncio.get_running_loop().create_task(self._aside(key, sight, step))
            self._beside[key] = task
            task.add_done_callback(lambda done: self._ended(key))

    async def _performed(self, sight: Sight, step: Step) -> None:
        """A step, with the lease kept for as long as it takes: many pods to label, an API that is slow."""
        task = asyncio.get_running_loop().create_task(perform(self._ground, sight, step))
        try:
            while not (await asyncio.wait([task], timeout=RENEW_SECONDS / 2))[0]:
                entry = await self._book.read()
                if entry is None or is_at_work(entry.status, self._ground.identity, vtime.now(), self._holder):
                    raise HeldByOther("another engine has taken the release up meanwhile")
                await self._claimed(entry)
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _ended(self, key: str) -> None:
        self._beside.pop(key, None)
        self._subjects.pop(key, None)
        self.wake()

    async def _aside(self, key: str, sight: Sight, step: Step) -> None:
        try:
            await self._long(sight, step)
            self._failures.pop(key, None)
        except KubeError as error:
            self._failures[key] = str(error)
        except Exception as error:  # a fault of ours: told like any other, else it would be tried for ever in silence
            before, self._failures[key] = self._failures.get(key), f"{type(error).__name__}: {error}"
            if before != self._failures[key]:
                told = {"message": f"{key} came to nothing by a fault of its own", "exception": error}
                asyncio.get_running_loop().call_exception_handler(told)

    async def _long(self, sight: Sight, step: Step) -> None:
        match step.act:
            case Act.ASK:
                await self._ask(sight, step)
            case Act.MEASURE:
                await self._measure(sight, step)
            case _:
                await perform(self._ground, sight, step)

    async def _ask(self, sight: Sight, step: Step) -> None:
        question = step.question
        assert question is not None

        def heard(found: Asked) -> None:
            self._asked[question.key] = found

        if question.is_about_weights:
            from tidegate.client.release import routers

            self._asked[question.key] = await routers.answer(self._ground.client, sight, question, heard)
            return
        if self._api is not self._ground.client:
            # A cache is behind: a pod that came up just before the flip would not be asked about.
            sight = await look(self._ground.client, sight.entry, vtime.now().timestamp(), {})
        pods = sight.pods_of.get(question.revision, [])
        # A Service that a release made beside the user's own has had no others: a proxy may list it only once a route
        # names it, and goes on listing the pods of the other.
        is_main = question.service == sight.entry.spec.service
        before = [found for key, found in sorted(sight.pods_of.items()) if is_main and key != question.revision]
        others = [one for found in before for one in found]
        subject = self._subjects[self._key(step)] = asking.subject_of(sight.entry.namespace, question, pods, others)
        self._asked[question.key] = await asking.answer(self._ground.client, subject, self._nonce, heard)

    async def _measure(self, sight: Sight, step: Step) -> None:
        from tidegate.client.release import analysis
        from tidegate.release.analysis import added

        key, status = step.subject, sight.scene.status
        finding = await analysis.ask(step.detail["asked"], bool(step.detail.get("is_before")))
        before = max(status.measured.get(key, Measured()), self._measured.get(key, Measured()), key=lambda two: two.at)
        self._measured[key] = added(before, finding, vtime.now().timestamp())

    def _explained(self, decision: Decision) -> Decision:
        """With why the same long step came to nothing last time: else it would be tried for ever without a word."""
        found = [self._failures[key] for key in map(self._key, decision.steps) if key in self._failures]
        if not found:
            return decision
        reason = f"{decision.status.reason}; last time: {found[0]}"
        return Decision(decision.steps, msgspec.structs.replace(decision.status, reason=reason))

    def _forget_rounds(self, number: int) -> None:
        """Whoever still asks about a round before stops: the coordinator keeps one question for each pod, and of two
        that name the same one each would have it start over, for ever."""
        for key, task in list(self._beside.items()):
            if key.startswith(f"{Act.ASK.name}/") and not key.endswith(f"/{number}"):
                task.cancel()

    def _forget_drains(self, decision: Decision) -> None:
        """A drain of ours whose pods are to be let go holds them no longer."""
        let_go = [one.subject for one in decision.steps if one.act is Act.LET_GO]
        for revision in let_go:
            if f"{Act.DRAIN.name}/{revision}" in self._beside:
                self._beside[f"{Act.DRAIN.name}/{revision}"].cancel()

    @staticmethod
    def _key(step: Step) -> str:
        return f"{step.act.name}/{step.question.key if step.question is not None else step.subject}"

    @property
    def is_busy(self) -> bool:
        """Whether a long step is under way: pods that are being drained, an observer that is asked."""
        return bool(self._beside)

    @property
    def failures(self) -> tuple[str, ...]:
        """Why long steps came to nothing last time."""
        return tuple(self._failures[key] for key in sorted(self._failures))

    def wake(self) -> None:
        """Something has changed: look again soon."""
        self._news.set()

    async def _rest(self, seconds: float) -> None:
        """Until something changes, but never busily: a rollout changes many pods at once."""
        gather = min(GATHER_SECONDS, seconds)
        await asyncio.sleep(max(gather, 0.0))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds - gather, 0.0)):
                await self._news.wait()


_UNHEARD = Asked("no")
_TOLD = frozenset({Phase.HALTED.value, Phase.DONE.value, Phase.ABORTED.value})
_RESTING = frozenset({Phase.DONE, Phase.ABORTED, Phase.PAUSED, Phase.HALTED})
