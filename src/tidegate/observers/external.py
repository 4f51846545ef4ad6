"""The seam for observers other than nodes: whoever holds a copy of the endpoints and can be asked about it.

An ``Observer`` knows its replicas and puts one question to one of them: "which of these endpoints do you still route
to?" It answers with ``Facts`` and judges nothing: ``observers.standing`` weighs them against the epoch, for every
kind alike. Third parties register kinds under the entry point group ``tidegate.observers``: a name, and a callable
``(Spec) -> Observer`` that raises ``ValueError`` for options it does not take.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Protocol, runtime_checkable

from tidegate.dataplane.facts import Facts
from tidegate.kube.client import KubeClient
from tidegate.model.endpoint import Endpoint
from tidegate.model.endpointslice import EndpointSlice
from tidegate.model.epoch import Epoch
from tidegate.observers.addition import Joining

ENTRY_POINTS = "tidegate.observers"
Services = Mapping[str, dict[str, Any] | None]
"""Raw Services by namespace/name; None for one whose object is not there."""


class Fencing(Enum):
    """What the epoch an observer shows proves.

    ``single``: it applies everything in order and at once, as kube-proxy does. ``double``: one pass of its may be torn
    (it reads its caches while they change), but passes follow one another: an epoch that was written after another one
    was seen is the work of a later pass, which had everything before it.
    """

    SINGLE = "single"
    DOUBLE = "double"


@dataclass(frozen=True, slots=True)
class Replica:
    """One process that holds endpoints. ``address`` is where it answers: ``ip:port``, or ``unix:/path``."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Question:
    """Which of ``endpoints`` are still routed to. ``epoch`` is the latest written, None before any; an observer that
    shows epochs of ``install`` reports them, whatever they are. ``services`` (namespace/name): in whose slices the
    endpoints are, or were. ``kind`` is ``routed`` where they were added and the answer has to be a yes: which of them
    are sent to, for sure (``observers.addition``)."""

    endpoints: tuple[Endpoint, ...]
    install: str
    epoch: Epoch | None
    timeout_seconds: float
    services: tuple[str, ...] = ()
    kind: Literal["unrouted", "routed"] = "unrouted"


@dataclass(frozen=True, slots=True)
class Where:
    """Where replicas are: every endpoint of ``service`` (namespace/name) at ``port``, or ``addresses`` as given."""

    service: str = ""
    port: int = 0
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Spec:
    """What a kind is built from. ``options`` are the kind's own, ``path`` is where they stand in the file."""

    name: str
    where: Where
    options: dict[str, Any]
    path: str


class Observer(Protocol):
    """One observer, of whatever kind. It may have ``poll_seconds``: the least time from an answer to the next question,
    where twice a second is too much for it. ``additions``: how it tells of pods that were added. ``listed``: its answer
    has all that it routes to, and says what is withheld. ``asked``: by a question of its own (kind ``routed``). Without
    it: as of removals, by its epoch alone, or a settle time. ``listing_lags``: ``Terms``. ``registers_late``: pods are
    registered with it one by one, and it checks each before it sends there."""

    fencing: Fencing
    covers: tuple[str, ...]
    """What it answers for, as ``observers.discovery`` names it (``controller/traefik.io/ingress-controller``)."""

    def replicas(self, slices: Iterable[EndpointSlice]) -> tuple[Replica, ...]:
        """Everybody to be asked, by the slices of its own Service. Raises ``ValueError`` when that cannot be told."""
        ...

    async def ask(self, replica: Replica, question: Question) -> Facts:
        """What the replica routes to now, read after this call began. Raises ``Unreachable``; what was answered but not
        understood is ``unreadable``. Facts may leave out what was not asked about."""
        ...


@runtime_checkable
class Selective(Protocol):
    """An observer that has nothing to do with some pods: it is not asked about those, nor named where they drain."""

    def concerns(self, replica: Replica, services: Services) -> bool:
        """Whether ``replica`` may route to the pods of these Services. What is not known concerns it."""
        ...


@runtime_checkable
class Expecting(Protocol):
    """An observer of which objects, or its options, say whose pods it is to list: those it lacks are still to come."""

    def expected(
        self, replica: Replica, service: str, services: Services, pods: tuple[Joining, ...]
    ) -> tuple[Joining, ...] | None:
        """Those of ``pods`` of ``service`` that ``replica`` is to send to; None where nobody says."""
        ...


@runtime_checkable
class Bound(Protocol):
    """An observer that needs the API server to ask with (``pods/exec``)."""

    def bind(self, client: KubeClient) -> None:
        """Called once, before anything is asked."""
        ...


@runtime_checkable
class Listed(Protocol):
    """An observer whose replicas stand in objects of the cluster (``discovery.SOURCES``, and ``services``)."""

    def see(self, objects: Mapping[str, list[dict[str, Any]] | None]) -> None:
        """The objects as last listed, by plural and group; None for a kind that could not be listed."""
        ...


def replicas_of(where: Where, slices: Iterable[EndpointSlice]) -> tuple[Replica, ...]:
    """Not ready and terminating ones too: a proxy that is on its way out still serves the connections it has.

    Raises ``ValueError`` when the Service has no slice at all: a misspelt name must not read as "nobody".
    """
    if where.addresses:
        return tuple(Replica(address, address) for address in where.addresses)
    own = [one for one in slices if f"{one.namespace}/{one.service}" == where.service]
    if not own:
        raise ValueError(f"Service {where.service} has no EndpointSlice: is that its name?")
    found: dict[str, Replica] = {}
    for slice_ in sorted(own, key=lambda one: (one.address_type, one.name)):
        for endpoint in slice_.endpoints:
            address = endpoint.addresses[0]
            host = f"[{address}]" if ":" in address else address
            name = endpoint.pod or host
            found.setdefault(name, Replica(name, f"{host}:{where.port}"))  # of two families the first will do
    return tuple(found[name] for name in sorted(found))


def host_and_port(address: str) -> tuple[str, int]:
    """Of ``ip:port``, ``[ip]:port`` or ``name:port``. Raises ``ValueError``."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"not an address and port: {address!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)
