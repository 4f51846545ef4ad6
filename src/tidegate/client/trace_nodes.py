"""What the nodes show of one pod while it is traced: routes by long poll, connections by short looks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from tidegate import vtime
from tidegate.dataplane.facts import Facts
from tidegate.dataplane.sockets import Quiet
from tidegate.kube.errors import KubeError
from tidegate.model.endpoint import Endpoint
from tidegate.observers.coordinator import CoordinatorUnreachable
from tidegate.observers.proxied import ProxiedAgents, ProxiedCoordinator
from tidegate.observers.witness import Question
from tidegate.traffic.moments import LATE, Moment

POLL_SECONDS = 2.0
"""How long a node holds the question; it answers at once when its table changes."""
LOOK_SECONDS = 0.25
"""Between two looks at the pod's sockets; a connection that lives shorter may be missed, and the trace says so."""
BACKOFF_SECONDS = 1.0
SKEW_SECONDS = 1.0
"""A dump whose own instant is further from its arrival than this was stamped by a clock that is not ours."""

Tell = Callable[[Moment], None]


@dataclass(frozen=True, slots=True)
class RoutesAsked:
    """Of which node, to which endpoints. ``is_late``: the pod was there before the trace, so a route seen at the first
    look is older than that."""

    node: str
    endpoints: tuple[Endpoint, ...]
    is_late: bool


async def follow_routes(agents: ProxiedAgents, asked: RoutesAsked, tell: Tell) -> None:
    """Tell when a node begins and ceases to send new connections to the endpoints, for ever."""
    node, endpoints = asked.node, asked.endpoints
    was_routed: bool | None = None
    since, problem = "", ""
    while True:
        try:
            answer = await agents.ask(node, Question(endpoints, since, POLL_SECONDS if since else 0.0))
            unreadable = "; ".join(map(str, answer.facts.unreadable))
        except KubeError as error:
            answer, unreadable = None, str(error)
        if answer is None or unreadable:
            if unreadable != problem:
                step = "unrouted" if was_routed else "routed"
                tell(Moment(step, None, f"agent of {node}", node, gap=f"not seen: {unreadable}"))
            problem, since = unreadable, ""
            await asyncio.sleep(BACKOFF_SECONDS)
            continue
        problem, since = "", answer.digest
        is_routed = any(answer.facts.routes_to(endpoint) for endpoint in endpoints)
        if is_routed != bool(was_routed):
            tell(_turn(asked, answer.facts, is_routed, was_routed is None))
        was_routed = is_routed


def _turn(asked: RoutesAsked, facts: Facts, is_routed: bool, is_first: bool) -> Moment:
    source = f"agent of {asked.node}"
    via = ", ".join(sorted({route.service for route in facts.routes if route.service}))
    detail = f"by {via}" if is_routed and via else ""
    if is_first and asked.is_late:
        return Moment("routed", None, source, asked.node, detail, gap=LATE)
    return Moment("routed" if is_routed else "unrouted", dumped_at(facts), source, asked.node, detail)


def dumped_at(facts: Facts) -> datetime:
    """The dump's own instant where its clock agrees with ours, else now, as it arrives."""
    at, arrived = datetime.fromtimestamp(facts.at, UTC), vtime.now()
    return at if 0 <= (arrived - at).total_seconds() <= SKEW_SECONDS else arrived


class Connections:
    """Looks at the pod's sockets again and again: the first connection, and the last moment one was alive."""

    def __init__(self, agents: ProxiedAgents, tell: Tell) -> None:
        self._agents = agents
        self._tell = tell
        self.last_seen: datetime | None = None
        self.none_at: datetime | None = None
        self.problem = ""

    async def follow(self, node: str, endpoints: tuple[Endpoint, ...]) -> None:
        """Look for ever."""
        while True:
            began = vtime.now()
            quiet = await self._agents.connections(node, endpoints)
            self._take(quiet, began, vtime.now())
            await asyncio.sleep(LOOK_SECONDS)

    def _take(self, quiet: Quiet, began: datetime, ended: datetime) -> None:
        if quiet.live:
            if self.last_seen is None:
                who = quiet.live[0].remote.address
                self._tell(Moment("first-connection", ended, self._source, detail=f"from {who}"))
            # Alive when it was read, at some instant of the question: its beginning is the one that cannot be late.
            self.last_seen, self.none_at = began, None
        elif not quiet.unreadable and self.none_at is None:
            self.none_at = ended
        self.problem = "; ".join(map(str, quiet.unreadable))

    @property
    def _source(self) -> str:
        return f"agent of the pod's node, every {LOOK_SECONDS:g} s"

    def last(self) -> Moment:
        """The last moment a connection was seen alive; a gap where none was seen at all."""
        if self.last_seen is None:
            why = self.problem or f"none was seen: one that lives less than {LOOK_SECONDS:g} s may be missed"
            return Moment("last-connection", None, "", gap=why)
        until = f"none at {self.none_at:%H:%M:%S.%f}"[:-3] if self.none_at is not None else "no later look"
        return Moment("last-connection", self.last_seen, self._source, detail=until)


async def follow_ledger(coordinator: ProxiedCoordinator, uid: str, tell: Tell) -> None:
    """Tell the fence epoch of the pod's drain, once the coordinator shows it."""
    while True:
        try:
            for drain in (await coordinator.status())["drains"]:
                if drain.get("uid") == uid and drain.get("epoch"):
                    detail = f"epoch {drain['epoch']}"
                    tell(Moment("fenced", vtime.now(), "coordinator's ledger", detail=detail))
                    return
        except (CoordinatorUnreachable, KeyError, TypeError):
            await asyncio.sleep(BACKOFF_SECONDS)
        await asyncio.sleep(LOOK_SECONDS)
