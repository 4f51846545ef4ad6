"""A node: an observer's place. Whether it is Ready says nothing about what its kernel still forwards."""

from __future__ import annotations

from typing import Any

import msgspec

from tidegate.model.decode import WireCondition, WireMeta, decode_wire, describe
from tidegate.model.pod import Condition, conditions

OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"


class _Taint(msgspec.Struct):
    key: str
    effect: str = ""
    value: str = ""


class _Spec(msgspec.Struct):
    unschedulable: bool = False
    taints: list[_Taint] | None = None


class _Address(msgspec.Struct):
    type: str
    address: str


class _Status(msgspec.Struct):
    addresses: list[_Address] | None = None
    conditions: list[WireCondition] | None = None


class _Node(msgspec.Struct):
    metadata: WireMeta
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


class Node(msgspec.Struct, frozen=True):
    """A node as the API has it. ``addresses`` are its InternalIPs; ``taints`` the keys of its taints."""

    name: str
    uid: str
    labels: dict[str, str]
    addresses: tuple[str, ...]
    unschedulable: bool
    taints: tuple[str, ...]
    conditions: tuple[Condition, ...]
    annotations: dict[str, str] = {}

    @property
    def is_ready(self) -> bool:
        return any(condition.type == "Ready" and condition.status == "True" for condition in self.conditions)

    @property
    def is_out_of_service(self) -> bool:
        """Somebody vouches that it is shut down (KEP-2268): the only taint that says so."""
        return OUT_OF_SERVICE in self.taints

    def __str__(self) -> str:
        return self.name


def decode(obj: Any) -> Node:
    """A node from decoded JSON. Raises ``Malformed``, which names the JSON path."""
    wire = decode_wire(obj, _Node, describe("Node", obj))
    return Node(
        name=wire.metadata.name,
        uid=wire.metadata.uid,
        labels=wire.metadata.labels or {},
        addresses=tuple(at.address for at in wire.status.addresses or () if at.type == "InternalIP"),
        unschedulable=wire.spec.unschedulable,
        taints=tuple(taint.key for taint in wire.spec.taints or ()),
        conditions=conditions(wire.status.conditions),
        annotations=wire.metadata.annotations or {},
    )
