"""What a kubelet is built on: the API, a runtime, the journal, the events, and a way out through its node."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tidegate.kube import wire
from tidegate.kube.api import Api, JsonObject
from tidegate.lab.config import Addressing
from tidegate.lab.events import Event, Severity
from tidegate.lab.images import Images
from tidegate.lab.journal import Journal
from tidegate.lab.kubelet.addresses import PodAddresses
from tidegate.lab.kubelet.credentials import Credentials
from tidegate.lab.kubelet.environment import Environment, Place
from tidegate.lab.runtime.logs import LogBook
from tidegate.lab.runtime.spec import Namespace, Runtime

HookDialer = Callable[[str, int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""Dials (ip, port) from the node itself, through its kernel and its redirects. Raises ``OSError``."""


class PodNetwork(Protocol):
    """Where the pods of one node have their addresses, and how the kubelet reaches them."""

    async def join(self, address: str) -> Namespace | None:
        """Make a pod's network. None: it is everybody's. Raises ``OSError``."""
        ...

    async def leave(self, address: str) -> None:
        """Its pod has ended. Never raises."""
        ...

    @property
    def node(self) -> Namespace | None:
        """The node's own network, for hostNetwork pods."""
        ...

    async def dial(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection from the node, as probes do. Raises ``OSError``."""
        ...


class SharedNetwork:
    """All pods of a lab are in this machine's network; who dials from a node binds its address."""

    node: Namespace | None = None

    def __init__(self, node_address: str) -> None:
        self.node_address = node_address

    async def join(self, address: str) -> Namespace | None:
        del address
        return None

    async def leave(self, address: str) -> None:
        del address

    async def dial(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await wire.connect(wire.Peer(host, port, self.node_address))


class Sayer(Protocol):
    """Where events go; ``events.Recorder`` is one."""

    def event(self, involved: JsonObject, event: Event) -> None: ...


@dataclass(frozen=True, slots=True)
class Seams:
    """What the lab hands a kubelet. ``dial_hook`` is only used for lifecycle httpGet hooks."""

    api: Api
    runtime: Runtime
    journal: Journal
    recorder: Sayer
    dial_hook: HookDialer
    book: LogBook
    log_folder: str = ""
    """Where containers' logs go; "" keeps them in memory."""
    pods: PodNetwork | None = None
    """None: ``SharedNetwork``."""
    credentials: Credentials | None = None
    """Where pods get their service account's token from; None: nowhere."""


@dataclass(frozen=True, slots=True)
class Ground:
    """The seams and what the kubelet adds to them, shared by all pods of the node."""

    lab: str
    node_name: str
    node_address: str
    seams: Seams
    images: Images
    addresses: PodAddresses
    environment: Environment
    pods: PodNetwork
    addressing: Addressing | None = None
    """Of a dual-stack lab: where second addresses come from."""

    def second_ip(self, pod_ip: str) -> str:
        """What a pod lists beside its address; nothing for one that has the node's (hostNetwork)."""
        if self.addressing is None or not pod_ip or pod_ip == self.node_address:
            return ""
        return self.addressing.pod6(pod_ip)

    def place(self, pod_ip: str) -> Place:
        return Place(pod_ip, self.node_name, self.node_address)


@dataclass(frozen=True, slots=True)
class Voice:
    """Says and journals things about one pod."""

    ground: Ground
    pod: Callable[[], dict[str, Any]]

    def say(self, severity: Severity, reason: str, message: str, container: str = "", init: bool = False) -> None:
        """An Event about the pod, or about one of its containers."""
        field_path = f"spec.{'initContainers' if init else 'containers'}{{{container}}}" if container else ""
        self.ground.seams.recorder.event(
            {"apiVersion": "v1", "kind": "Pod", **self.pod()}, Event(severity, reason, message, field_path)
        )

    def journal(self, event: str, container: str, **fields: Any) -> None:
        """A journal entry about one container."""
        metadata = self.pod()["metadata"]
        self.ground.seams.journal.record(
            event, pod=metadata["name"], uid=metadata["uid"], container=container, **fields
        )
