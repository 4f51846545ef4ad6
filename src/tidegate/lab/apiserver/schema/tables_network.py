"""Tables of services, endpoints, endpoint slices, ingresses, network policies."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tidegate.lab.apiserver.schema.human import age
from tidegate.lab.apiserver.schema.tables_columns import (
    NONE,
    UNSET,
    Json,
    Printer,
    dig,
    labels,
    selector,
    some,
)


def _balancers(obj: Json) -> str:
    found = dig(obj, "status", "loadBalancer", "ingress") or ()
    return ",".join(sorted({str(item.get("ip") or item.get("hostname") or "") for item in found} - {""}))


def _external(obj: Json) -> str:
    spec = obj.get("spec") or {}
    kind, extra = spec.get("type"), spec.get("externalIPs") or []
    if kind == "ExternalName":
        return str(spec.get("externalName") or "")
    if kind == "LoadBalancer":
        given = [text for text in [_balancers(obj)] if text]
        return ",".join([*given, *extra]) or "<pending>"
    if kind in ("ClusterIP", "NodePort"):
        return ",".join(extra) or NONE
    return "<unknown>"


def _ports(ports: list[Json]) -> str:
    listed = []
    for port in ports:
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        listed.append(f"{port.get('port')}{node}/{port.get('protocol')}")
    return ",".join(listed) or NONE


def _service(obj: Json, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    return [
        obj["metadata"]["name"],
        spec.get("type") or "",
        spec.get("clusterIP") or NONE,
        _external(obj),
        _ports(spec.get("ports") or []),
        age(obj, now),
        labels(spec.get("selector")),
    ]


def _endpoints(obj: Json, now: datetime) -> list[Any]:
    listed = [
        f"[{address['ip']}]:{port['port']}" if ":" in address["ip"] else f"{address['ip']}:{port['port']}"
        for subset in obj.get("subsets") or ()
        for port in subset.get("ports") or ()
        for address in subset.get("addresses") or ()
    ]
    return [obj["metadata"]["name"], some(listed) if listed else NONE, age(obj, now)]


def _endpoint_slice(obj: Json, now: datetime) -> list[Any]:
    ports = ["*" if port.get("port") is None else str(port["port"]) for port in obj.get("ports") or ()]
    addresses = [str(address) for endpoint in obj.get("endpoints") or () for address in endpoint.get("addresses") or ()]
    return [
        obj["metadata"]["name"],
        obj.get("addressType") or "",
        some(ports) or UNSET,
        some(addresses) or UNSET,
        age(obj, now),
    ]


def _ingress(obj: Json, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    rules = spec.get("rules") or []
    hosts = [rule["host"] for rule in rules if rule.get("host")]
    return [
        obj["metadata"]["name"],
        spec.get("ingressClassName") or NONE,
        some(hosts) or "*",
        _balancers(obj),
        "80, 443" if spec.get("tls") else "80",
        age(obj, now),
    ]


def _ingress_class(obj: Json, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    parameters, text = spec.get("parameters"), NONE
    if parameters:
        group = f".{parameters['apiGroup']}" if parameters.get("apiGroup") else ""
        text = f"{parameters.get('kind')}{group}/{parameters.get('name')}"
    return [obj["metadata"]["name"], spec.get("controller") or "", text, age(obj, now)]


def _network_policy(obj: Json, now: datetime) -> list[Any]:
    return [obj["metadata"]["name"], selector(dig(obj, "spec", "podSelector")), age(obj, now)]


PRINTERS = {
    "Service": Printer("Name|Type|Cluster-IP|External-IP|Port(s)|Age|*Selector", _service),
    "Endpoints": Printer("Name|Endpoints|Age", _endpoints),
    "EndpointSlice": Printer("Name|AddressType|Ports|Endpoints|Age", _endpoint_slice),
    "Ingress": Printer("Name|Class|Hosts|Address|Ports|Age", _ingress),
    "IngressClass": Printer("Name|Controller|Parameters|Age", _ingress_class),
    "NetworkPolicy": Printer("Name|Pod-Selector|Age", _network_policy),
}
