"""Validation of services, endpoint slices and ingresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from tidegate.lab.apiserver.schema import causes, metadata, names
from tidegate.lab.apiserver.schema.causes import Cause, invalid, one_of, required
from tidegate.lab.apiserver.schema.validation_pod import PROTOCOLS

Json = Mapping[str, Any]
_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")


def service(obj: Json, old: Json | None) -> list[Cause]:
    """A Service, defaulted; ``old`` fixes its addresses."""
    spec = obj.get("spec") or {}
    kind, ip, ports = spec.get("type"), spec.get("clusterIP") or "", spec.get("ports") or []
    found: list[Cause] = []
    if old is not None:
        found += _addresses_kept(spec, old.get("spec") or {})
    if not ports and ip != "None" and kind != "ExternalName":
        found.append(required("spec.ports"))
    if kind in ("LoadBalancer", "NodePort") and ip == "None":
        text = f"may not be set to 'None' for {kind} services"
        found.append(invalid("spec.clusterIPs[0]", "None", text))
    elif kind == "ExternalName":
        found += _external_name(spec)
    found += _service_ports(ports, is_internal=kind == "ClusterIP")
    found += metadata.label_set(spec.get("selector"), "spec.selector")
    found += one_of("spec.sessionAffinity", spec.get("sessionAffinity"), ("ClientIP", "None"))
    if ip and ip != "None" and kind != "ExternalName" and not _is_address(ip):
        found.append(invalid("spec.clusterIPs[0]", ip, _ADDRESS))
    found += one_of("spec.type", kind, _TYPES)
    return found + _policies(spec, kind)


_ADDRESS = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"


def _is_address(text: Any) -> bool:
    try:
        ipaddress.ip_address(str(text))
    except ValueError:
        return False
    return True


def _addresses_kept(spec: Json, old: Json) -> list[Cause]:
    """``clusterIP`` alone changed means the whole list changed (service strategy, NormalizeClusterIPs)."""
    before = old.get("clusterIPs") or ([old["clusterIP"]] if old.get("clusterIP") else [])
    if "ExternalName" in (spec.get("type"), old.get("type")) or not before:
        return []
    asked = spec.get("clusterIPs") or []
    if spec.get("clusterIP") != old.get("clusterIP") and asked == (old.get("clusterIPs") or []):
        asked = [spec["clusterIP"]] if spec.get("clusterIP") else []
    if not asked:
        return [invalid("spec.clusterIPs[0]", None, "primary clusterIP can not be unset")]
    if asked[0] != before[0]:
        return [invalid("spec.clusterIPs[0]", asked, "may not change once set")]
    return []


def _external_name(spec: Json) -> list[Cause]:
    found = []
    for key in ("clusterIP", "clusterIPs"):
        if spec.get(key):
            found.append(causes.forbidden(f"spec.{key}", "may not be set when `type` is 'ExternalName'"))
    name = str(spec.get("externalName") or "").removesuffix(".")
    if not name:
        return [*found, required("spec.externalName")]
    return found + [invalid("spec.externalName", name, text) for text in names.dns_subdomain(name)]


def _service_ports(ports: list[Json], *, is_internal: bool) -> list[Cause]:
    found: list[Cause] = []
    seen_names: set[str] = set()
    for index, port in enumerate(ports):
        path, name = f"spec.ports[{index}]", str(port.get("name") or "")
        if not name and len(ports) > 1:
            found.append(required(f"{path}.name"))
        elif name:
            found += [invalid(f"{path}.name", name, text) for text in names.dns_label(name)]
            if name in seen_names:
                found.append(causes.duplicate(f"{path}.name", name))
            seen_names.add(name)
        number = port.get("port") or 0
        found += [invalid(f"{path}.port", number, text) for text in names.port_number(number)]
        found += one_of(f"{path}.protocol", port.get("protocol"), PROTOCOLS)
        target = port.get("targetPort")
        texts = names.port_name(target) if isinstance(target, str) else names.port_number(target)
        found += [invalid(f"{path}.targetPort", target or 0, text) for text in texts]
        if is_internal and port.get("nodePort"):
            text = "may not be used when `type` is 'ClusterIP'"
            found.append(causes.forbidden(f"{path}.nodePort", text))
    return found + _repeated_ports(ports)


def _repeated_ports(ports: list[Json]) -> list[Cause]:
    found: list[Cause] = []
    numbers: set[tuple[Any, Any]] = set()
    node_ports: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        path, protocol = f"spec.ports[{index}]", port.get("protocol")
        if port.get("nodePort"):
            if (protocol, port["nodePort"]) in node_ports:
                found.append(causes.duplicate(f"{path}.nodePort", port["nodePort"]))
            node_ports.add((protocol, port["nodePort"]))
        if (protocol, port.get("port")) in numbers:
            # The internal Go struct, marshalled: that is what the real server prints.
            key = {"Name": "", "Protocol": protocol, "AppProtocol": None, "Port": port.get("port")}
            found.append(causes.duplicate(path, {**key, "TargetPort": 0, "NodePort": 0}))
        numbers.add((protocol, port.get("port")))
    return found


def _policies(spec: Json, kind: Any) -> list[Cause]:
    found: list[Cause] = []
    policy = spec.get("externalTrafficPolicy")
    if policy:
        if kind not in ("LoadBalancer", "NodePort") and not spec.get("externalIPs"):
            text = "may only be set for externally-accessible services"
            found.append(invalid("spec.externalTrafficPolicy", policy, text))
        found += one_of("spec.externalTrafficPolicy", policy, ("Cluster", "Local"))
    found += one_of("spec.internalTrafficPolicy", spec.get("internalTrafficPolicy"), ("Cluster", "Local"))
    if spec.get("trafficDistribution") is not None:
        allowed = ("PreferClose", "PreferSameZone", "PreferSameNode")
        found += one_of("spec.trafficDistribution", spec["trafficDistribution"], allowed)
    timeout = ((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds")
    if isinstance(timeout, int) and not 0 < timeout <= 86400:
        path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
        found.append(invalid(path, timeout, "must be greater than 0 and less than 86400"))
    return found


def endpoint_slice(obj: Json, old: Json | None) -> list[Cause]:
    kind = obj.get("addressType") or ""
    found: list[Cause] = []
    if not kind:
        found.append(required("addressType"))
    else:
        found += one_of("addressType", kind, ("FQDN", "IPv4", "IPv6"))
    for index, endpoint in enumerate(obj.get("endpoints") or ()):
        path, addresses = f"endpoints[{index}].addresses", endpoint.get("addresses") or []
        if not addresses:
            found.append(required(path, "must contain at least 1 address"))
        for at, address in enumerate(addresses):
            if kind != "FQDN" and not _is_address(address):
                found.append(invalid(f"{path}[{at}]", address, _ADDRESS))
    seen: set[str] = set()
    for index, port in enumerate(obj.get("ports") or ()):
        name = str(port.get("name") or "")
        if name in seen:
            found.append(causes.duplicate(f"ports[{index}].name", name))
        seen.add(name)
        found += one_of(f"ports[{index}].protocol", port.get("protocol"), PROTOCOLS)
    return found + ([] if old is None else causes.unchanged("addressType", kind, old.get("addressType")))


def ingress(obj: Json, old: Json | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    found: list[Cause] = []
    if not spec.get("rules") and not spec.get("defaultBackend"):
        found.append(invalid("spec", [], "either `defaultBackend` or `rules` must be specified"))
    if spec.get("defaultBackend"):
        found += _backend(spec["defaultBackend"], "spec.defaultBackend")
    for index, rule in enumerate(spec.get("rules") or ()):
        http = rule.get("http")
        if http is None:
            continue
        if not http.get("paths"):
            found.append(required(f"spec.rules[{index}].http.paths"))
        for at, route in enumerate(http.get("paths") or ()):
            path = f"spec.rules[{index}].http.paths[{at}]"
            kind, place = route.get("pathType"), str(route.get("path") or "")
            if not kind:
                found.append(required(f"{path}.pathType", "pathType must be specified"))
            options = ("Exact", "ImplementationSpecific", "Prefix")
            found += one_of(f"{path}.pathType", kind, options)
            if kind in ("Exact", "Prefix") and not place.startswith("/"):
                found.append(invalid(f"{path}.path", place, "must be an absolute path"))
            found += _backend(route.get("backend") or {}, f"{path}.backend")
    return found


def _backend(backend: Json, path: str) -> list[Cause]:
    target = backend.get("service")
    if target is None:
        text = "resource or service backend is required"
        return [] if backend.get("resource") else [required(path, text)]
    found = [] if target.get("name") else [required(f"{path}.service.name")]
    port = target.get("port") or {}
    if not port.get("name") and not port.get("number"):
        found.append(required(path, "port name or number is required"))
    return found
