"""Faults of a lab, settable while it runs: of its nodes, and of its API server.

- ``proxy-freeze`` for ``seconds``: the proxy is stopped as by SIGSTOP; it sees nothing and syncs nothing, the
  kernel keeps forwarding. Then it continues where it stood.
- ``proxy-lag`` of ``seconds``: its event stream arrives that much later, in order, until cleared.
- ``proxy-kill`` for ``seconds`` (0: until ``proxy-restart``): the process is gone, the kernel keeps its rules;
  then a new one starts and lists again.
- ``proxy-restart``: the process is killed and started at once, or started if it was dead.
- ``dns-freeze``, ``dns-lag``, ``dns-kill``, ``dns-restart``: the same of the DNS server on the node. One that is
  frozen answers nothing; one that lags goes on answering what it knew.
- ``api-errors`` for ``seconds``: a ``share`` of what the API server is asked over HTTP is answered with an error
  (``api_errors``). It is the lab's, and names no node.
- ``clear``: end every fault of the node; without a node, every fault of the lab.

``step`` and ``NodeFaults`` are pure; ``Faults`` is the control surface over the loop's clock.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

FaultKind = Literal[
    "proxy-freeze", "proxy-lag", "proxy-kill", "proxy-restart",
    "dns-freeze", "dns-lag", "dns-kill", "dns-restart", "api-errors", "clear",
]  # fmt: skip
KINDS: tuple[FaultKind, ...] = get_args(FaultKind)


_CLOCK_SECONDS = 1e-6
"""A timer may fire a rounding error before its instant; whoever compares again must not find it still ahead."""


class FaultError(ValueError):
    """A fault that cannot be applied; the message says what would be accepted."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, as asked for or (from ``Faults.active``) as it stands: then ``seconds`` is what is left of it."""

    kind: FaultKind
    node: str
    seconds: float = 0.0
    share: float = 0.0
    """Of ``api-errors`` alone: of all requests, more than 0 and at most 1."""


@dataclass(frozen=True, slots=True)
class NodeFaults:
    """What is wrong with one node's proxy, or its DNS server. Instants are seconds of the loop's clock.

    ``incarnation`` counts its starts: a proxy process of an older one is gone.
    """

    frozen_until: float = -math.inf
    lag_seconds: float = 0.0
    dead_until: float = -math.inf
    incarnation: int = 1

    def is_frozen(self, now: float) -> bool:
        return now < self.frozen_until

    def is_dead(self, now: float) -> bool:
        return now < self.dead_until

    def standing(self, name: str, now: float) -> tuple[Fault, ...]:
        """The faults in force at ``now`` of the proxy, or of the DNS server, called ``name``."""
        is_dns, node = name.startswith(_DNS), name.removeprefix(_DNS)
        found: list[Fault] = []
        if self.is_frozen(now):
            found.append(Fault("dns-freeze" if is_dns else "proxy-freeze", node, self.frozen_until - now))
        if self.lag_seconds:
            found.append(Fault("dns-lag" if is_dns else "proxy-lag", node, self.lag_seconds))
        if self.is_dead(now):
            found.append(Fault("dns-kill" if is_dns else "proxy-kill", node, self.dead_until - now))
        return tuple(found)


def step(before: NodeFaults, fault: Fault, now: float) -> NodeFaults:
    """A node's faults once ``fault`` is applied at ``now``. Raises ``FaultError``."""
    seconds = _checked(fault.seconds)
    match fault.kind:
        case "proxy-freeze" | "dns-freeze":
            return dataclasses.replace(before, frozen_until=now + seconds)
        case "proxy-lag" | "dns-lag":
            return dataclasses.replace(before, lag_seconds=seconds)
        case "proxy-kill" | "dns-kill":
            return _reborn(before, now + seconds if seconds else math.inf)
        case "proxy-restart" | "dns-restart":
            return _reborn(before, -math.inf)
        case "clear":
            return NodeFaults(incarnation=before.incarnation)
    raise FaultError(f"unknown fault {fault.kind!r}; known: {', '.join(KINDS)}")


def _checked(seconds: float) -> float:
    if not math.isfinite(seconds) or seconds < 0:
        raise FaultError(f"seconds must be a finite number, 0 or more, not {seconds}")
    return seconds


def _reborn(before: NodeFaults, dead_until: float) -> NodeFaults:
    """The process is another one: what froze the old one does not hold it; the lag is the network's and stays."""
    return NodeFaults(lag_seconds=before.lag_seconds, dead_until=dead_until, incarnation=before.incarnation + 1)


def as_json(fault: Fault) -> dict[str, Any]:
    """A fault in force by its stable keys (docs/json.md); ``seconds`` is null for one that ends only when told to."""
    seconds = round(fault.seconds, 3) if math.isfinite(fault.seconds) else None
    share = {"share": fault.share} if fault.kind == "api-errors" else {}
    return {"kind": fault.kind, "node": fault.node, "seconds": seconds, **share}


_DNS = "dns "


def dns_of(node: str) -> str:
    """What the DNS server on a node is called where ``Faults`` is asked; its proxy has the node's own name."""
    return _DNS + node


class Faults:
    """The faults of a lab; components ask it, ``tidegate lab fault`` tells it."""

    def __init__(self, nodes: Iterable[str]) -> None:
        self._states = {name: NodeFaults() for node in nodes for name in (node, dns_of(node))}
        self._changed = {node: asyncio.Event() for node in self._states}
        self._api_until, self._api_share = -math.inf, 0.0

    def apply(self, fault: Fault) -> None:
        """Put a fault in force, now. Raises ``FaultError`` and changes nothing."""
        nodes = [name for name in self._states if not name.startswith(_DNS)]
        if fault.kind == "api-errors":
            return self._trouble(fault)
        if fault.share:
            raise FaultError(f"{fault.kind} has no share: that is api-errors'")
        if fault.kind == "clear" and not fault.node:
            self._api_until = -math.inf
            for node in nodes:
                self.apply(Fault("clear", node))
            return
        if fault.node not in nodes:
            raise FaultError(f"no node {fault.node!r}; nodes: {', '.join(nodes)}")
        both = (fault.node, dns_of(fault.node))
        for name in both if fault.kind == "clear" else both[1:] if fault.kind.startswith("dns-") else both[:1]:
            self._states[name] = step(self._states[name], fault, _now())
            changed, self._changed[name] = self._changed[name], asyncio.Event()
            changed.set()

    def active(self) -> tuple[Fault, ...]:
        """The faults in force, by node; ``seconds`` is what is left (for a lag: its length)."""
        now = _now()
        found = [fault for node, state in self._states.items() for fault in state.standing(node, now)]
        if self.api_share():
            found.append(Fault("api-errors", "", self._api_until - now, self._api_share))
        return tuple(found)

    def api_share(self) -> float:
        """Which share of requests the API server answers with an error now; 0 for none."""
        return self._api_share if _now() < self._api_until else 0.0

    def _trouble(self, fault: Fault) -> None:
        if fault.node:
            raise FaultError(f"api-errors is the API server's: it names no node, not {fault.node!r} either")
        if not 0 < fault.share <= 1:  # not a number is neither
            raise FaultError(f"share must be more than 0 and at most 1, not {fault.share}")
        self._api_until, self._api_share = _now() + _checked(fault.seconds), fault.share

    def of(self, node: str) -> NodeFaults:
        """What is wrong with a node's proxy."""
        return self._states[node]

    async def thawed(self, node: str) -> None:
        """Return once the node's proxy is not frozen."""
        while (state := self._states[node]).is_frozen(_now()):
            await self._sleep_until(node, state.frozen_until)

    async def revived(self, node: str) -> None:
        """Return once the node's proxy may run."""
        while (state := self._states[node]).is_dead(_now()):
            await self._sleep_until(node, state.dead_until)

    async def killed(self, node: str, incarnation: int) -> None:
        """Return once the proxy process started as ``incarnation`` has been killed."""
        while self._states[node].incarnation == incarnation:
            await self._changed[node].wait()

    async def changed(self, node: str, until: float) -> None:
        """Return at the node's next fault, or at ``until`` on the loop's clock."""
        await self._sleep_until(node, until)

    async def _sleep_until(self, node: str, until: float) -> None:
        try:
            async with asyncio.timeout_at(until + _CLOCK_SECONDS if math.isfinite(until) else None):
                await self._changed[node].wait()
        except TimeoutError:
            return


def _now() -> float:
    return asyncio.get_running_loop().time()
