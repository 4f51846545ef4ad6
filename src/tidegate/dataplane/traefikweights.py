"""Traefik's own account of the weights it divides requests by: ``GET /api/http/services`` of one replica (seen: 3.7).

The Gateway provider makes a service ``NAMESPACE-ROUTE-...-wrr`` for each rule of a route, the provider of Traefik's own
objects one named ``NAMESPACE-NAME`` for each TraefikService; both list their children with weights, by name.
"""

from __future__ import annotations

import msgspec

Shares = tuple[dict[str, int], ...]
"""For each way that a route has: child -> weight, without the provider's name."""


class _Child(msgspec.Struct, frozen=True):
    name: str
    weight: int = 1


class _Weighted(msgspec.Struct, frozen=True):
    services: tuple[_Child, ...] = ()


class _Service(msgspec.Struct, frozen=True):
    name: str
    provider: str = ""
    weighted: _Weighted | None = None


def shares(body: bytes, namespace: str, route: str) -> Shares:
    """Of the HTTPRoute, or the TraefikService, ``namespace``/``route``. Raises ``ValueError``: not Traefik's answer."""
    try:
        services = msgspec.json.decode(body, type=list[_Service])
    except msgspec.DecodeError as error:
        raise ValueError(f"not a list of services: {error}") from error
    found = []
    for one in services:
        name = one.name.partition("@")[0]
        if one.weighted is None or not _is_of(name, one.provider, f"{namespace}-{route}"):
            continue
        found.append({child.name.partition("@")[0]: child.weight for child in one.weighted.services})
    return tuple(found)


def _is_of(name: str, provider: str, key: str) -> bool:
    if provider == "kubernetesgateway":
        return key in name
    return name == key
