"""A pod: who it is, where it can be reached, whether it is ready, leaving, gated."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from tidegate.model.decode import WireCondition, WireMeta, WireOwner, decode_wire, describe
from tidegate.model.endpoint import canonical
from tidegate.model.names import GATE_PATH, GATE_PORT


class _HttpGet(msgspec.Struct, rename="camel"):
    port: int | str
    path: str = ""
    host: str = ""


class _Hook(msgspec.Struct, rename="camel"):
    http_get: _HttpGet | None = None


class _Lifecycle(msgspec.Struct, rename="camel"):
    pre_stop: _Hook | None = None


class _Port(msgspec.Struct, rename="camel"):
    container_port: int
    name: str = ""
    protocol: str = "TCP"


class _Container(msgspec.Struct, rename="camel"):
    name: str
    image: str = ""
    ports: list[_Port] | None = None
    lifecycle: _Lifecycle | None = None
    liveness_probe: dict[str, Any] | None = None
    restart_policy: str = ""


class _Spec(msgspec.Struct, rename="camel"):
    containers: list[_Container]
    init_containers: list[_Container] | None = None
    node_name: str = ""
    host_network: bool = False
    termination_grace_period_seconds: int | None = None


class _Ip(msgspec.Struct):
    ip: str = ""


class _Status(msgspec.Struct, rename="camel"):
    phase: str = ""
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: list[_Ip] | None = msgspec.field(name="podIPs", default=None)
    conditions: list[WireCondition] | None = None


class _Pod(msgspec.Struct):
    metadata: WireMeta
    spec: _Spec
    status: _Status = msgspec.field(default_factory=_Status)


class Port(msgspec.Struct, frozen=True):
    """A port a container declares. Declaring is a hint: a Service may target a port that no container declares."""

    number: int
    name: str = ""
    protocol: str = "TCP"


class Condition(msgspec.Struct, frozen=True):
    """One condition of a pod or node. ``status`` is True, False or Unknown, as text."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    since: datetime | None = None


class Owner(msgspec.Struct, frozen=True):
    """The controlling owner."""

    kind: str
    name: str
    uid: str


class Pod(msgspec.Struct, frozen=True):
    """A pod as the API has it. ``ips`` are canonical; ``gated`` names the containers whose preStop is the gate,
    ``liveness_probed`` those that are restarted when a probe fails."""

    name: str
    namespace: str
    uid: str
    resource_version: str
    labels: dict[str, str]
    annotations: dict[str, str]
    created_at: datetime | None
    deletion_timestamp: datetime | None
    deletion_grace_seconds: int | None
    owner: Owner | None
    node: str
    phase: str
    ips: tuple[str, ...]
    ports: tuple[Port, ...]
    host_network: bool
    grace_seconds: int
    containers: tuple[str, ...]
    image: str
    gated: tuple[str, ...]
    conditions: tuple[Condition, ...]
    liveness_probed: tuple[str, ...] = ()
    sidecars: tuple[str, ...] = ()

    @property
    def is_ready(self) -> bool:
        """The Ready condition. Stays true for a leaving pod as long as its probe passes."""
        return any(condition.type == "Ready" and condition.status == "True" for condition in self.conditions)

    @property
    def is_terminating(self) -> bool:
        return self.deletion_timestamp is not None

    @property
    def is_finished(self) -> bool:
        """Its containers have ended for good: no EndpointSlice lists it any more."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def is_gated(self) -> bool:
        """Whether EVERY container is gated: one without a hook gets SIGTERM at once, beside the held ones."""
        return bool(self.containers) and len(self.gated) == len(self.containers)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def decode(obj: Any) -> Pod:
    """A pod from decoded JSON. Raises ``Malformed``, which names the JSON path."""
    wire = decode_wire(obj, _Pod, describe("Pod", obj))
    meta, spec, status = wire.metadata, wire.spec, wire.status
    grace = spec.termination_grace_period_seconds
    ips = [status.pod_ip, *(ip.ip for ip in status.pod_ips or ())]
    return Pod(
        name=meta.name,
        namespace=meta.namespace,
        uid=meta.uid,
        resource_version=meta.resource_version,
        labels=meta.labels or {},
        annotations=meta.annotations or {},
        created_at=meta.creation_timestamp,
        deletion_timestamp=meta.deletion_timestamp,
        deletion_grace_seconds=meta.deletion_grace_period_seconds,
        owner=controlling_owner(meta.owner_references),
        node=spec.node_name,
        phase=status.phase,
        ips=tuple(dict.fromkeys(canonical(ip) for ip in ips if ip)),
        ports=tuple(
            Port(port.container_port, port.name, port.protocol)
            for container in spec.containers
            for port in container.ports or ()
        ),
        host_network=spec.host_network,
        grace_seconds=30 if grace is None else grace,
        containers=tuple(container.name for container in spec.containers),
        image=spec.containers[0].image if spec.containers else "",
        gated=tuple(container.name for container in spec.containers if _is_gated(container)),
        conditions=conditions(status.conditions),
        liveness_probed=tuple(container.name for container in spec.containers if container.liveness_probe),
        sidecars=tuple(one.name for one in spec.init_containers or () if one.restart_policy == "Always"),
    )


def conditions(wire: list[WireCondition] | None) -> tuple[Condition, ...]:
    """Conditions as nouns."""
    return tuple(Condition(c.type, c.status, c.reason, c.message, c.last_transition_time) for c in wire or ())


def controlling_owner(wire: list[WireOwner] | None) -> Owner | None:
    """The one owner marked ``controller``."""
    return next((Owner(owner.kind, owner.name, owner.uid) for owner in wire or () if owner.controller), None)


def _is_gated(container: _Container) -> bool:
    hook = container.lifecycle.pre_stop if container.lifecycle else None
    call = hook.http_get if hook else None
    return call is not None and str(call.port) == str(GATE_PORT) and call.path == GATE_PATH + container.name
