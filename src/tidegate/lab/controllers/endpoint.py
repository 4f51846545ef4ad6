"""A pod as an endpoint of a Service (staging/src/k8s.io/endpointslice: utils.go, util/controller_utils.go)."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from tidegate.kube.api import JsonObject
from tidegate.lab.controllers.labels import labels_of
from tidegate.lab.controllers.pods import is_ready, is_terminal, is_terminating

ZONE = "topology.kubernetes.io/zone"

Identity = tuple[str, ...]


def should_be_listed(pod: JsonObject, *, include_terminating: bool = True) -> bool:
    """ShouldPodBeInEndpoints: it has an address and is not over; a terminating pod stays until it is."""
    status = pod.get("status") or {}
    if is_terminal(pod) or not (status.get("podIP") or status.get("podIPs")):
        return False
    return include_terminating or not is_terminating(pod)


@lru_cache(maxsize=65536)
def _normal(text: str) -> tuple[str, str]:
    """An address as Go prints it, and its type. Cached: parsing was a quarter of a large rollout's CPU."""
    address = ipaddress.ip_address(text)
    return str(address), f"IPv{address.version}"


def addresses(pod: JsonObject, kind: str) -> list[str]:
    """The pod's addresses of one type ("IPv4", "IPv6"), normalised."""
    status = pod.get("status") or {}
    listed = [entry["ip"] for entry in status.get("podIPs") or ()]
    if not listed and status.get("podIP"):
        listed = [status["podIP"]]
    parsed = (_normal(text) for text in listed)
    return [address for address, found in parsed if found == kind]


def endpoint_of(pod: JsonObject, node: JsonObject | None, service: JsonObject, kind: str) -> JsonObject:
    """serving = Ready; terminating = deletionTimestamp; ready = both right, or published regardless."""
    meta, spec = pod["metadata"], pod["spec"]
    serving, terminating = is_ready(pod), is_terminating(pod)
    ready = bool(service["spec"].get("publishNotReadyAddresses")) or (serving and not terminating)
    endpoint: JsonObject = {
        "addresses": addresses(pod, kind),
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": {"kind": "Pod", "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]},
    }
    if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
        endpoint["hostname"] = spec["hostname"]
    if spec.get("nodeName"):
        endpoint["nodeName"] = spec["nodeName"]
    zone = labels_of(node).get(ZONE) if node is not None else None
    if zone:
        endpoint["zone"] = zone
    return endpoint


def identity(endpoint: JsonObject) -> Identity:
    """What makes two entries the same endpoint: addresses, pod uid and hostname (EndpointSet's hash)."""
    target = endpoint.get("targetRef") or {}
    who = (target.get("namespace") or "", target.get("name") or "", target.get("uid") or "")
    return (*who, endpoint.get("hostname") or "", *sorted(endpoint.get("addresses") or ()))


def find_port(pod: JsonObject, port: JsonObject) -> int | None:
    """The number behind a Service port's targetPort; None when no container declares that name."""
    target, protocol = port.get("targetPort", port["port"]), port.get("protocol") or "TCP"
    if isinstance(target, int):
        return target or int(port["port"])
    sidecars = [one for one in pod["spec"].get("initContainers") or () if one.get("restartPolicy") == "Always"]
    for container in [*(pod["spec"].get("containers") or ()), *sidecars]:
        for declared in container.get("ports") or ():
            if declared.get("name") == target and (declared.get("protocol") or "TCP") == protocol:
                return int(declared["containerPort"])
    return None


def ports_of(service: JsonObject, pod: JsonObject) -> list[JsonObject]:
    """The Service's ports as this pod serves them; a name it does not declare is left out."""
    ports: list[JsonObject] = []
    for port in service["spec"].get("ports") or ():
        number = find_port(pod, port)
        if number is None:
            continue
        entry = {"name": port.get("name") or "", "protocol": port.get("protocol") or "TCP", "port": number}
        if port.get("appProtocol"):
            entry["appProtocol"] = port["appProtocol"]
        ports.append(entry)
    return ports
