"""Kind ``behavioural``: connect through a data plane and see which epoch answers. No dump, no privilege.

For nodes without an agent, and for data planes that show nothing. Each replica is a vantage: a prober (a pod without
privileges on its node), or, with ``direct``, a frontend of the data plane itself that routes to the live fence.

What it proves: that whoever forwarded this one connection, out of this one network namespace, had applied everything
written before that epoch. Not that no rule leads to a pod: routes are not read, so what one dump would show beside the
epoch goes unseen. Even a kube-proxy of today shows an epoch too early after a new LIST (a restarted API server): it is
told of the slices one after another, and a sync may begin in between. Hence always a second epoch; and proof
(`verified`) only where the configuration says that a sync is one transaction (``atomic``: kube-proxy in nftables or
iptables mode; 0 of 200 measured cuts contradicted even its first epoch). Elsewhere a drain is `assumed`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from tidegate.dataplane.facts import Facts
from tidegate.kube import wire
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request
from tidegate.model.endpointslice import EndpointSlice
from tidegate.model.epoch import Epoch, earliest
from tidegate.model.livefence import HOST, PATH, SLOTS, epoch_of
from tidegate.observers.external import Fencing, Question, Replica, Spec, host_and_port, replicas_of
from tidegate.observers.options import decode_options

PROBER_PORT = 15211
PROBE_PATH = "/v1/fence"
TIMEOUT_SECONDS = 1.0


class Slot(msgspec.Struct, frozen=True):
    """What a fence answers. ``node`` is where it was asked from, "" where it was asked by ourselves."""

    install: str
    slot: int
    node: str = ""


class Live(Protocol):
    """The live fence as its observers need it: where it is dialled, and the last epoch sent to it."""

    @property
    def addresses(self) -> tuple[str, ...]: ...

    @property
    def latest(self) -> Epoch | None: ...


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """``atomic``: see above. ``direct``: the addresses are frontends, not probers. ``nodes``: which nodes these probers
    stand for; each of them needs one (its address, or its pod's node)."""

    atomic: bool = False
    direct: bool = False
    nodes: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()


class Behavioural:
    """Observer of kind ``behavioural``."""

    def __init__(self, spec: Spec) -> None:
        self._where = spec.where
        self._options = decode_options(spec, Options)
        if self._options.nodes and (self._options.direct or not spec.where.service):
            raise ValueError(f"{spec.path}.nodes: only where the probers are the pods of a service")
        self.covers = self._options.covers
        self.fencing = Fencing.DOUBLE
        self.routes_unread = "atomic" if self._options.atomic else "torn"
        self.stands_for = self._options.nodes
        self.live: Live | None = None
        self._positions: dict[str, Epoch | None] = {}

    def replicas(self, slices: Iterable[EndpointSlice]) -> tuple[Replica, ...]:
        known = tuple(slices)
        found = replicas_of(self._where, known)
        there = {
            endpoint.node
            for one in known
            if f"{one.namespace}/{one.service}" == self._where.service
            for endpoint in one.endpoints
        }
        if missing := [node for node in self._options.nodes if node not in there]:
            raise ValueError(f"no prober on {', '.join(missing)}")
        self._positions = {one.name: self._positions.get(one.name) for one in found}
        return found

    @property
    def floor(self) -> Epoch | None:
        """The earliest epoch that any replica may still be at; None before any was asked."""
        known = tuple(one for one in self._positions.values() if one is not None)
        return earliest(known) if known else None

    async def ask(self, replica: Replica, question: Question) -> Facts:
        """Raises ``Unreachable``."""
        if self.live is None or self.live.latest is None or not (self._options.direct or self.live.addresses):
            raise Unreachable("the live fence is not written yet")
        latest = self.live.latest
        if self._positions.get(replica.name) is None:
            self._positions[replica.name] = latest
        timeout = min(question.timeout_seconds, TIMEOUT_SECONDS)
        if self._options.direct:
            slots = [await probe(replica.address, timeout_seconds=timeout)]
        else:
            slots = [await _asked(replica, address, question.timeout_seconds) for address in self.live.addresses]
        shown = tuple(epoch_of(question.install, one.slot, latest) for one in slots if one.install == question.install)
        if len(shown) == len(slots):
            self._positions[replica.name] = earliest(shown)
        return Facts(replica.name, "an answer by the live fence", fence=shown if len(shown) == len(slots) else ())


async def _asked(replica: Replica, address: str, timeout_seconds: float) -> Slot:
    """What a prober meets at ``address`` (ip:port of the live fence). Raises ``Unreachable``."""
    host, port = host_and_port(replica.address)
    fence_host, _ = host_and_port(address)
    request = Request("GET", PROBE_PATH, (("address", fence_host),))
    status, _, body = await wire.fetch(wire.Peer(host, port, timeout_seconds=timeout_seconds), request)
    if status == 502:
        raise Unreachable(f"the prober {replica.name} is not answered by the fence at {address}")
    if status != 200:
        raise Unreachable(f"the prober {replica.name} answered {status}")
    return _slot(body, replica.address)


async def probe(address: str, local_host: str = "", timeout_seconds: float = TIMEOUT_SECONDS) -> Slot:
    """Which slot of the fence a new connection to ``address`` (ip:port) reaches now, from a source port of its own.

    Raises ``Unreachable``; what answers and is no fence is that too.
    """
    host, port = host_and_port(address)
    peer = wire.Peer(host, port, local_host, timeout_seconds)
    try:
        status, _, body = await wire.fetch(peer, Request("GET", PATH, headers={"host": HOST}))
    except Unreachable as error:
        raise Unreachable(f"no fence answers at {address}") from error
    if status != 200:
        raise Unreachable(f"no fence answers at {address}")
    return _slot(body, address)


def _slot(body: bytes, where: str) -> Slot:
    try:
        found = msgspec.json.decode(body, type=Slot)
    except msgspec.DecodeError as error:
        raise Unreachable(f"what answers at {where} is no fence") from error
    if not 0 <= found.slot < SLOTS:
        raise Unreachable(f"what answers at {where} is no fence")
    return found
