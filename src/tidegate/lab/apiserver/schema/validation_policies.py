"""Validation of NetworkPolicies (pkg/apis/networking/validation)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from tidegate.lab.apiserver.schema import names, validation_selectors
from tidegate.lab.apiserver.schema.causes import Cause, forbidden, invalid, not_supported, required

Json = Mapping[str, Any]

_PROTOCOLS = ("TCP", "UDP", "SCTP")
_TYPES = ("Ingress", "Egress")
_CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"


def network_policy(obj: Json, old: Json | None) -> list[Cause]:
    """A NetworkPolicy of networking.k8s.io/v1, defaulted."""
    return list(_spec(obj.get("spec") or {}))


def _spec(spec: Json) -> Iterator[Cause]:
    yield from validation_selectors.validate(spec.get("podSelector"), "spec.podSelector")
    for direction, side in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or ()):
            path = f"spec.{direction}[{index}]"
            for at, port in enumerate(rule.get("ports") or ()):
                yield from _port(port, f"{path}.ports[{at}]")
            for at, peer in enumerate(rule.get(side) or ()):
                yield from _peer(peer, f"{path}.{side}[{at}]")
    kinds = spec.get("policyTypes") or []
    if len(kinds) > len(_TYPES):
        yield invalid("spec.policyTypes", kinds, "may not specify more than two policyTypes")
        return
    for index, kind in enumerate(kinds):
        if kind not in _TYPES:
            yield not_supported(f"spec.policyTypes[{index}]", kind, _TYPES)


def _port(port: Json, path: str) -> Iterator[Cause]:
    protocol, number, end = port.get("protocol"), port.get("port"), port.get("endPort")
    if protocol is not None and protocol not in _PROTOCOLS:
        yield not_supported(f"{path}.protocol", protocol, _PROTOCOLS)
    if isinstance(number, int):
        for text in names.port_number(number):
            yield invalid(f"{path}.port", number, text)
        if end is not None and end < number:
            yield invalid(f"{path}.endPort", number, "must be greater than or equal to `port`")
        for text in names.port_number(end) if end is not None else ():
            yield invalid(f"{path}.endPort", end, text)
        return
    if end is not None:
        why = "non-numeric" if number is not None else "not specified"
        yield invalid(f"{path}.endPort", end, f"may not be specified when `port` is {why}")
    for text in names.port_name(str(number)) if number is not None else ():
        yield invalid(f"{path}.port", number, text)


def _peer(peer: Json, path: str) -> Iterator[Cause]:
    given = [key for key in ("podSelector", "namespaceSelector", "ipBlock") if peer.get(key) is not None]
    for key in given:
        if key == "ipBlock":
            yield from _block(peer[key], f"{path}.{key}")
        else:
            yield from validation_selectors.validate(peer[key], f"{path}.{key}")
    if not given:
        yield required(path, "must specify a peer")
    elif len(given) > 1 and "ipBlock" in given:
        yield forbidden(path, "may not specify both ipBlock and another peer")


def _block(block: Json, path: str) -> Iterator[Cause]:
    text = str(block.get("cidr") or "")
    if not text:
        yield required(f"{path}.cidr")
        return
    whole = _network(text)
    if whole is None:
        yield invalid(f"{path}.cidr", text, _CIDR)
    for index, excepted in enumerate(block.get("except") or ()):
        part, here = _network(str(excepted)), f"{path}.except[{index}]"
        if part is None:
            yield invalid(here, excepted, _CIDR)
        elif whole is not None and not _is_within(part, whole):
            yield invalid(here, excepted, "must be a strict subset of `cidr`")


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _network(text: str) -> Network | None:
    """A CIDR, host bits and all; a bare address is none."""
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None


def _is_within(part: Network, whole: Network) -> bool:
    return part.version == whole.version and part.prefixlen > whole.prefixlen and part[0] in whole
