"""The loop of one drain: observe, decide, act, until the pod may be told to stop. The same for gate and label mode.

``Keeper`` is level-triggered and holds no state that cannot be had again: started anew on the same pod it lists
anew, is given a later epoch, and goes on. What differs between the modes is a ``Grip``: how the pod is held, sealed
and let go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import msgspec

from tidegate.dataplane.sockets import Quiet
from tidegate.drain.event import Acknowledged, Event, Gone, Released, SocketsRead, SourceDirty
from tidegate.drain.progress import Drain, EventError
from tidegate.drain.result import unrouted
from tidegate.drain.state import Mode, State
from tidegate.drain.table import step
from tidegate.engine import decide
from tidegate.engine.decide import Act, Seen
from tidegate.engine.journal import Journal
from tidegate.engine.observe import Connections, PodSeen, ViewFollower
from tidegate.kube.errors import ApiError, KubeError
from tidegate.model.endpoint import Endpoint
from tidegate.model.names import DrainResult
from tidegate.observers.coordinator import Ask, Coordinator, read
from tidegate.traffic.listing import every_endpoint
from tidegate.vtime import Nursery

SOCKETS_SECONDS_MIN = 0.02
SOCKETS_SECONDS_MAX = 0.5
SOCKETS_SECONDS_GROWTH = 1.15
"""The pause between two reads stays under an eighth of what has been waited, up to twice a second for long waits."""
LOOK_AGAIN_SECONDS = 0.1
LOOK_SECONDS_MIN = 0.05
LOOK_COUNTS_SECONDS = 1.0
"""How old the last look may be when the pod is told to stop: an API that is slow to take the record costs another."""
LOOK_STALE_SECONDS = 3.0
"""How old it may be when a gate is answered. Its record takes a second at most: more is a process that was not run."""
DENIED_SECONDS = 10.0
"""How long an act may be forbidden before a person is told: RBAC of a starting API server takes a moment."""
AFTERMATH_SECONDS = 0.2
ACT_SECONDS = 0.2
"""Between two tries of an act that the API did not take."""


class Grip(Protocol):
    """How a drain holds its pod, by mode."""

    def is_cut(self, seen: PodSeen) -> bool:
        """Whether the pod is out of its Services as far as it itself shows."""
        ...

    def deadline_at(self, seen: PodSeen) -> float:
        """The last safe instant, in the loop's seconds."""
        ...

    async def cut(self) -> Event | None:
        """Take it out; the event of the table, or None to try again. Raises ``KubeError``."""
        ...

    async def seal(self) -> Event | None:
        """Put the tombstone on it."""
        ...

    async def keep(self, drain: Drain) -> None:
        """The source still sends it traffic: see to it that the cut stands. Raises ``KubeError``."""
        ...

    async def conclude(self, drain: Drain, result: DrainResult) -> bool:
        """Record the result; True when that is done (or given up). Raises ``KubeError``."""
        ...

    async def release(self, drain: Drain, result: DrainResult) -> Event | None:
        """Tell the pod to stop, or whatever its policy says instead; None ends the drain here."""
        ...

    async def note(self, drain: Drain) -> None:
        """The drain's state has changed: a chance to write it down. Never raises."""
        ...


@dataclass(slots=True)
class Ports:
    """What a keeper looks through and writes to."""

    coordinator: Coordinator
    connections: Connections
    journal: Journal


class Keeper:
    """Carries one drain to its end."""

    def __init__(self, drain: Drain, ask: Ask, ports: Ports, grip: Grip, pod: PodSeen) -> None:
        self.drain = drain
        self.pod = pod
        self.grip = grip
        self.follower = ViewFollower(ports.coordinator, ask, self.wake)
        self.told: Callable[[Drain], None] = lambda drain: None
        self.heard: Callable[[Drain, Event], None] = lambda drain, event: None
        """Told of every event that was taken, and of what it led to; to the pod's end."""
        self.goal = State.GONE
        """Where to stop: UNROUTED for a pod that is kept, once no new connection can arrive."""
        self._ask = ask
        self._ports = ports
        self._woken = asyncio.Event()
        self._spell = ""
        self._looked_at: float | None = None
        self._sockets_at = 0.0
        self._pause = SOCKETS_SECONDS_MIN
        self._rounds = 0
        self._noted: tuple[State, bool] | None = None
        self._denied: dict[Act, float] = {}

    def wake(self) -> None:
        """Something was observed: tick."""
        self._woken.set()

    async def run(self) -> DrainResult:
        """The drain's result, once the pod was told to stop or the policy says to leave it."""
        async with Nursery() as nursery:
            nursery.start(self.follower.run(), name=f"follow {self.drain.pod}")
            while not await self._tick():
                pass
            nursery.cancel()
        if self._is_at_goal():
            return unrouted(self.drain, asyncio.get_running_loop().time())
        assert self.drain.result is not None
        return self.drain.result

    def _is_at_goal(self) -> bool:
        return self.goal is State.UNROUTED and self.drain.state in (State.UNROUTED, State.QUIET)

    async def watch_to_the_end(self, seconds: float) -> None:
        """After ``run``, beside whatever is owed to others: the proof was as of an instant, so until the pod is gone
        (at most ``seconds``) what contradicts it is journalled. Then the coordinator is told that it is over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        async with Nursery() as nursery:
            nursery.start(self.follower.run(), name=f"follow {self.drain.pod} to its end")
            while self.drain.state is State.RELEASED and loop.time() < until:
                self._woken.clear()
                known = self.drain.regressions
                event = next(decide.aftermath_events(self.drain, self._seen()), None)
                if event is None:
                    await self._wait(AFTERMATH_SECONDS)
                elif not self._step(event):
                    break
                for what in self.drain.regressions[len(known) :]:
                    self._journal("regression", pod=self.drain.pod, what=what)
            nursery.cancel()
        await self.follower.finish()

    # --- one tick ---

    async def _tick(self) -> bool:
        """Observe, decide, act once. True when the drain is over for this keeper."""
        self._woken.clear()
        self._observe()
        standing = (self.drain.state, self.drain.quiet is not None)
        if self._noted != standing:  # what is in flight is told once it was read: it may take hours from there
            self._noted = standing
            self.told(self.drain)
            await self.grip.note(self.drain)
        act = decide.next_act(self.drain, self._is_looked_again())
        if act is Act.END or self._is_at_goal():
            return True
        try:
            is_over = await self._do(act)
        except KubeError as error:
            self._journal("act-failed", act=act.name, why=str(error))
            self._check_given_up(act, error)
            await self._wait(ACT_SECONDS)
            return False
        self._denied.pop(act, None)
        return is_over

    def _check_given_up(self, act: Act, error: KubeError) -> None:
        """Whoever watches a label drain is told of a permission that is missing, which does not come by waiting, and,
        once the deadline is over, of an API that takes nothing: nobody waits for it for ever."""
        now = asyncio.get_running_loop().time()
        is_denied = isinstance(error, ApiError) and error.code == 403
        is_late = now >= self.grip.deadline_at(self.pod)
        if self.drain.mode is not Mode.LABEL or not (is_denied or is_late):
            self._denied.pop(act, None)
        elif now - self._denied.setdefault(act, now) >= DENIED_SECONDS:
            raise error

    async def _do(self, act: Act) -> bool:
        match act:
            case Act.CUT:
                await self._apply_or_wait(await self.grip.cut())
            case Act.READ_SOCKETS:
                await self._read_sockets()
            case Act.TOMBSTONE:
                await self._seal()
            case Act.LOOK_AGAIN:
                await self._look_again()
            case Act.CONCLUDE:
                return await self._conclude()
            case _:
                if self.drain.state is State.CUT:
                    await self.grip.keep(self.drain)
                await self._wait(self._until_deadline())
        return False

    def _observe(self) -> None:
        """Bring the drain up to what is seen, one event of the table at a time."""
        while True:
            seen = self._seen()
            events = _events(self.drain, seen)
            event = next(events, None)
            if event is None or not self._step(event):
                return
            # Answers change nothing about each other: all of a view in one go, or a round costs nodes squared.
            if isinstance(event, Acknowledged) and not all(map(self._step, events)):
                return

    def _seen(self) -> Seen:
        return Seen(
            now=asyncio.get_running_loop().time(),
            pod=self.pod.pod,
            is_gone=self.pod.is_gone,
            view=self.follower.view,
            spell=self._spell,
            deadline_at=self.grip.deadline_at(self.pod),
            is_cut=self.grip.is_cut(self.pod),
        )

    def _step(self, event: Event) -> bool:
        before = self.drain.state
        try:
            self.drain = step(self.drain, event)
        except EventError as error:
            self._journal("refused-event", what=type(event).__name__, why=str(error))
            return False
        self.heard(self.drain, event)
        if before is State.CUT and self.drain.state is State.CLEAN and self.follower.view is not None:
            self._spell = self.follower.view.spell
        if self.drain.state is not before:
            self._journal("state", to=self.drain.state.name, by=type(event).__name__, pod=self.drain.pod)
        return True

    async def _apply_or_wait(self, event: Event | None) -> None:
        if event is None:
            await self._wait(ACT_SECONDS)
        else:
            self._step(event)

    # --- acts ---

    async def _sockets(self) -> Quiet:
        """What is in flight where its slices have it serve. A pod that none lists (its Service is gone, or its label)
        may still have clients: then wherever it listens."""
        view, pod = self.follower.view, self.pod.pod
        served: tuple[Endpoint, ...] = read(view.serving) if view is not None else ()
        if not served and pod is not None and not pod.host_network:
            served = every_endpoint(pod)
        return await self._ports.connections.read(served)

    async def _read_sockets(self) -> None:
        loop = asyncio.get_running_loop()
        wait = self._sockets_at + self._pause - loop.time()
        if wait > 0:
            await self._wait(min(wait, self._until_deadline()))
            return
        self._sockets_at = began = loop.time()
        quiet = await self._sockets()
        self._pause = (
            SOCKETS_SECONDS_MIN if quiet.is_quiet else min(SOCKETS_SECONDS_GROWTH * self._pause, SOCKETS_SECONDS_MAX)
        )
        self._step(SocketsRead(at=began, quiet=quiet))

    async def _seal(self) -> None:
        event = await self.grip.seal()
        if event is None:
            await self._wait(ACT_SECONDS)
            return
        # Everything once more from here: a list that began after the tombstone, a new epoch, new answers.
        self._rounds += 1
        self.follower.start_over(msgspec.structs.replace(self._ask, round=f"{self._ask.round}/{self._rounds}"))
        self._spell = ""
        self._step(event)

    async def _look_again(self) -> None:
        """Source, fence and acknowledgements once more, at once and all begun after this call; quiet after them."""
        loop = asyncio.get_running_loop()
        try:  # the deadline does not wait for somebody who hangs: what is left after it belongs to the app
            async with asyncio.timeout(max(self._until_deadline(), LOOK_SECONDS_MIN)):
                is_fresh = await self.follower.look_again()
        except TimeoutError:
            is_fresh = False
        self._observe()
        if self.drain.state is not State.DRAINED:
            return
        if is_fresh:
            self._looked_at = began = loop.time()
            self._step(SocketsRead(at=began, quiet=await self._sockets()))
        elif loop.time() >= self.grip.deadline_at(self.pod):
            # A proof that could not be repeated just before the act is none.
            why = self.follower.failure or "a node or the API did not answer"
            self._step(SourceDirty(at=loop.time(), reasons=(f"the last look could not be taken: {why}",)))
        else:
            await asyncio.sleep(LOOK_AGAIN_SECONDS)  # not `_wait`: the answer that was not fresh has woken us itself

    def _is_looked_again(self) -> bool:
        """Whether the last look is recent enough to act on; it counts for the proof that stood when it was taken."""
        if self.drain.state is not State.DRAINED:
            self._looked_at = None
        looked_at = self._looked_at
        return looked_at is not None and asyncio.get_running_loop().time() - looked_at < LOOK_COUNTS_SECONDS

    def _is_stale(self) -> bool:
        """Whether a gate's proof is of before we stood still: its holder waits for us, and news may be read late."""
        if self.drain.mode is not Mode.GATE or self.drain.state is not State.DRAINED or self._looked_at is None:
            return False
        return asyncio.get_running_loop().time() - self._looked_at > LOOK_STALE_SECONDS

    async def _conclude(self) -> bool:
        result = self.drain.result
        assert result is not None
        if not await self.grip.conclude(self.drain, result):
            await self._wait(ACT_SECONDS)
            return False
        # What came in while the record was written may have taken the proof back.
        before = self.drain.state
        self._observe()
        if self.drain.state is not before or self._is_stale():
            return False
        event = await self.grip.release(self.drain, result)
        if event is None:
            return True
        self._step(event)
        return isinstance(event, Released | Gone) or self.drain.state.is_over

    # --- waiting ---

    def _until_deadline(self) -> float:
        left = self.grip.deadline_at(self.pod) - asyncio.get_running_loop().time()
        return max(0.0, left) if self.drain.state in decide.BEFORE_END else 60.0

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 0.001)):
                await self._woken.wait()
        except TimeoutError:
            return

    def _journal(self, event: str, **fields: object) -> None:
        self._ports.journal.record(event, **fields)


def _events(drain: Drain, seen: Seen) -> Iterator[Event]:
    yield from decide.pod_events(drain, seen)
    yield from decide.end_events(drain, seen)
    yield from decide.source_events(drain, seen)
    yield from decide.fence_events(drain, seen)
