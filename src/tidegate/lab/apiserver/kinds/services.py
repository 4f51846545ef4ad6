"""Services: ClusterIP and port allocation (pkg/registry/core/service/storage/alloc.go).

Addresses and ports are handed out in order and a freed one is used again only after the range wrapped: a data
plane that lags must not meet a recycled ClusterIP. What is taken is read from the stored services themselves.
"""

from __future__ import annotations

from collections.abc import Iterator

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver import failures
from tidegate.lab.apiserver.kinds import families
from tidegate.lab.apiserver.schema import validation
from tidegate.lab.apiserver.strategy import Strategy, World

NODE_PORTS = range(30000, 32768)
FIRST_OFFSET = 10
"""The lowest addresses of the range are left for services that ask for a fixed one (KEP-3070's lower band)."""

EXTERNAL = ("NodePort", "LoadBalancer")


class ServiceStrategy(Strategy):
    """Allocation for ClusterIP, NodePort and LoadBalancer services; headless and ExternalName ones draw nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._next_offset = FIRST_OFFSET
        self._next_offset6 = FIRST_OFFSET
        self._next_port = 0

    def prepare_create(self, obj: JsonObject, world: World) -> None:
        obj["status"] = {"loadBalancer": {}}

    def prepare_update(self, obj: JsonObject, old: JsonObject, world: World) -> None:
        super().prepare_update(obj, old, world)
        spec, before = obj.setdefault("spec", {}), old.get("spec") or {}
        if spec.get("type") == "ExternalName":
            for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                spec.pop(key, None)
        elif before.get("type") != "ExternalName":
            for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "healthCheckNodePort"):
                if not spec.get(key) and before.get(key) and (key != "healthCheckNodePort" or _wants_health_port(spec)):
                    spec[key] = before[key]
        if spec.get("type") in EXTERNAL and before.get("type") in EXTERNAL:
            _keep_node_ports(spec, before)
        _drop_of_the_former_type(spec, before)

    def allocate(self, obj: JsonObject, old: JsonObject | None, world: World) -> None:
        spec = obj["spec"]
        if spec.get("type") == "ExternalName":
            return
        taken = _taken(world, obj["metadata"].get("uid", ""))
        wrong = families.settle(obj, old)
        if wrong:
            row = world.registry.named("", "services")
            raise validation.invalid(row.resource, obj["metadata"]["name"], wrong)
        self._allocate_addresses(obj, taken[0], world)
        if spec.get("type") in EXTERNAL:
            for index, port in enumerate(spec.get("ports") or []):
                self._allocate_node_port(obj, index, port, (taken[1], world))
        else:
            for port in spec.get("ports") or []:
                port.pop("nodePort", None)
        if _wants_health_port(spec):
            if not spec.get("healthCheckNodePort"):
                spec["healthCheckNodePort"] = self._free_port(taken[1])
        else:
            spec.pop("healthCheckNodePort", None)

    def _allocate_addresses(self, obj: JsonObject, taken: set[str], world: World) -> None:
        """One address of each family; those that are there stay. Headless Services draw none."""
        spec = obj["spec"]
        addresses = spec["clusterIPs"]
        if addresses[:1] != ["None"]:
            for index, family in enumerate(spec["ipFamilies"]):
                if index == len(addresses):
                    addresses.append("")
                addresses[index] = self._address(obj, family, index, (taken, world))
                taken.add(addresses[index])
        spec["clusterIP"] = addresses[0]

    def _address(self, obj: JsonObject, family: str, index: int, ground: tuple[set[str], World]) -> str:
        """The address asked for, or the next free one."""
        taken, world = ground
        asked = obj["spec"]["clusterIPs"]
        address = str(asked[index])
        if not address:
            return self._free_address(taken, world) if family == "IPv4" else self._free_address6(taken, world)
        addressing = world.addressing
        prefix = f"{addressing.service_prefix}." if family == "IPv4" else f"{addressing.service_prefix6}:"
        if address in taken:
            raise _refused(world, obj, "spec.clusterIPs", asked,
                           f"failed to allocate IP {address}: provided IP is already allocated")  # fmt: skip
        if not address.startswith(prefix):
            raise _refused(world, obj, "spec.clusterIPs", asked, "failed to allocate IP "
                           f"{address}: the provided network does not match the current range")  # fmt: skip
        return address

    def _free_address6(self, taken: set[str], world: World) -> str:
        for _ in range(1 << 16):
            address = f"{world.addressing.service_prefix6}:{self._next_offset6:x}"
            self._next_offset6 = FIRST_OFFSET if self._next_offset6 >= 0xFFFD else self._next_offset6 + 1
            if address not in taken:
                return address
        raise failures.internal("failed to allocate a serviceIP: range is full")

    def _free_address(self, taken: set[str], world: World) -> str:
        for _ in range(1 << 16):
            high, low = divmod(self._next_offset, 256)
            self._next_offset = FIRST_OFFSET if self._next_offset >= 0xFFFD else self._next_offset + 1
            address = f"{world.addressing.service_prefix}.{high}.{low}"
            if low not in (0, 255) and address not in taken:
                return address
        raise failures.internal("failed to allocate a serviceIP: range is full")

    def _allocate_node_port(
        self, obj: JsonObject, index: int, port: JsonObject, ground: tuple[set[int], World]
    ) -> None:
        taken, world = ground
        number = port.get("nodePort")
        field = f"spec.ports[{index}].nodePort"
        if not number:
            port["nodePort"] = self._free_port(taken)
        elif number in taken:
            raise _refused(world, obj, field, number, "provided port is already allocated")
        elif number not in NODE_PORTS:
            why = "provided port is not in the valid range. The range of valid ports is 30000-32767"
            raise _refused(world, obj, field, number, why)
        else:
            taken.add(number)

    def _free_port(self, taken: set[int]) -> int:
        for _ in NODE_PORTS:
            number = NODE_PORTS[self._next_port]
            self._next_port = (self._next_port + 1) % len(NODE_PORTS)
            if number not in taken:
                taken.add(number)
                return number
        raise failures.internal("failed to allocate a nodePort: range is full")


def _drop_of_the_former_type(spec: JsonObject, before: JsonObject) -> None:
    """What the old type needed and the new one may not have goes, unless the writer changed it himself.

    (dropTypeDependentFields in service/strategy.go: ``kubectl patch`` of the type alone must not be invalid.)
    """
    if before.get("type") in EXTERNAL and spec.get("type") not in EXTERNAL:
        numbers = [port.get("nodePort") for port in before.get("ports") or []]
        if [port.get("nodePort") for port in spec.get("ports") or []] == numbers:
            for port in spec.get("ports") or []:
                port.pop("nodePort", None)
        for key in ("externalTrafficPolicy", "allocateLoadBalancerNodePorts", "loadBalancerClass"):
            if spec.get(key) == before.get(key):
                spec.pop(key, None)
    if spec.get("type") == "ExternalName" and spec.get("internalTrafficPolicy") == before.get("internalTrafficPolicy"):
        spec.pop("internalTrafficPolicy", None)
    unchanged = spec.get("healthCheckNodePort") == before.get("healthCheckNodePort")
    if unchanged and _wants_health_port(before) and not _wants_health_port(spec):
        spec.pop("healthCheckNodePort", None)


def _wants_health_port(spec: JsonObject) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _keep_node_ports(spec: JsonObject, before: JsonObject) -> None:
    """A port that did not say its nodePort keeps the one it had (patchAllocatedValues in service/strategy.go)."""
    held = {(port.get("port"), port.get("protocol")): port.get("nodePort") for port in before.get("ports") or []}
    used = {port.get("nodePort") for port in spec.get("ports") or []}
    for port in spec.get("ports") or []:
        number = held.get((port.get("port"), port.get("protocol")))
        if not port.get("nodePort") and number and number not in used:
            port["nodePort"] = number


def _services(world: World) -> Iterator[JsonObject]:
    for version in world.store.collection(world.registry.named("", "services")).versions():
        yield version.object


def _taken(world: World, uid: str) -> tuple[set[str], set[int]]:
    """Addresses and ports that services other than ``uid`` hold."""
    addresses: set[str] = set()
    ports: set[int] = set()
    for service in _services(world):
        if service["metadata"]["uid"] == uid:
            continue
        spec = service["spec"]
        addresses.update(spec.get("clusterIPs") or [])
        ports.update(port["nodePort"] for port in spec.get("ports") or [] if port.get("nodePort"))
        if spec.get("healthCheckNodePort"):
            ports.add(spec["healthCheckNodePort"])
    addresses.discard("None")
    return addresses, ports


def _refused(world: World, obj: JsonObject, field: str, value: object, why: str) -> Exception:
    row = world.registry.named("", "services")
    shown = f'"{value}"' if isinstance(value, str) else str(value).replace("'", '"')
    cause = validation.Cause(field, "FieldValueInvalid", f"Invalid value: {shown}: {why}")
    return validation.invalid(row.resource, obj["metadata"]["name"], [cause])
