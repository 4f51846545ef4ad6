"""An EndpointSlice: the endpoints of a Service as every data plane is told them."""

from __future__ import annotations

from typing import Any

import msgspec

from tidegate.model.decode import WireMeta, decode_wire, describe
from tidegate.model.endpoint import Endpoint, canonical

SERVICE_LABEL = "kubernetes.io/service-name"


class _Conditions(msgspec.Struct):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class _Target(msgspec.Struct):
    kind: str = ""
    name: str = ""
    uid: str = ""


class _Endpoint(msgspec.Struct, rename="camel"):
    addresses: list[str]
    conditions: _Conditions = msgspec.field(default_factory=_Conditions)
    target_ref: _Target | None = None
    node_name: str | None = None
    zone: str | None = None


class _Port(msgspec.Struct):
    port: int | None = None
    name: str | None = None
    protocol: str | None = None


class _Slice(msgspec.Struct, rename="camel"):
    metadata: WireMeta
    address_type: str
    endpoints: list[_Endpoint] | None = None
    ports: list[_Port] | None = None


class SlicePort(msgspec.Struct, frozen=True):
    """A port of every endpoint in the slice. ``number`` is 0 for "all ports" (nil in the API)."""

    name: str
    number: int
    protocol: str


class SliceEndpoint(msgspec.Struct, frozen=True):
    """One endpoint. Each condition is True, False or None for "unknown", as written.

    Readers must take None as: ready (that is what "unknown should be interpreted as ready" in the API reference asks
    for), serving as ready, not terminating. The ``is_`` questions do.
    """

    addresses: tuple[str, ...]
    ready: bool | None
    serving: bool | None
    terminating: bool | None
    pod: str
    uid: str
    node: str
    zone: str

    @property
    def is_ready(self) -> bool:
        return self.ready is not False

    @property
    def is_serving(self) -> bool:
        return self.is_ready if self.serving is None else self.serving

    @property
    def is_terminating(self) -> bool:
        return self.terminating is True

    def __str__(self) -> str:
        words = [word for word, holds in (("ready", self.is_ready), ("serving", self.is_serving)) if holds]
        words += ["terminating"] if self.is_terminating else []
        return f"{self.pod or ','.join(self.addresses)} ({', '.join(words) or 'not ready'})"


class EndpointSlice(msgspec.Struct, frozen=True):
    """A slice as the API has it. ``service`` is empty when its label names none."""

    name: str
    namespace: str
    resource_version: str
    service: str
    address_type: str
    endpoints: tuple[SliceEndpoint, ...]
    ports: tuple[SlicePort, ...]

    def endpoints_of(self, endpoint: SliceEndpoint) -> tuple[Endpoint, ...]:
        """Address and port of ``endpoint`` for each port of the slice (all its addresses mean one place: the first)."""
        return tuple(
            Endpoint(address, port.number, port.protocol) for port in self.ports for address in endpoint.addresses[:1]
        )

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def decode(obj: Any) -> EndpointSlice:
    """An EndpointSlice from decoded JSON. Raises ``Malformed``, which names the JSON path."""
    wire = decode_wire(obj, _Slice, describe("EndpointSlice", obj))
    labels = wire.metadata.labels or {}
    return EndpointSlice(
        name=wire.metadata.name,
        namespace=wire.metadata.namespace,
        resource_version=wire.metadata.resource_version,
        service=labels.get(SERVICE_LABEL, ""),
        address_type=wire.address_type,
        endpoints=tuple(_endpoint(endpoint, wire.address_type) for endpoint in wire.endpoints or ()),
        ports=tuple(SlicePort(port.name or "", port.port or 0, port.protocol or "TCP") for port in wire.ports or ()),
    )


def _endpoint(wire: _Endpoint, address_type: str) -> SliceEndpoint:
    target = wire.target_ref or _Target()
    is_pod = target.kind in ("", "Pod")
    addresses = wire.addresses if address_type == "FQDN" else [canonical(address) for address in wire.addresses]
    return SliceEndpoint(
        addresses=tuple(addresses),
        ready=wire.conditions.ready,
        serving=wire.conditions.serving,
        terminating=wire.conditions.terminating,
        pod=target.name if is_pod else "",
        uid=target.uid if is_pod else "",
        node=wire.node_name or "",
        zone=wire.zone or "",
    )
