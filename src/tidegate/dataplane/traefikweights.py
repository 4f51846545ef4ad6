"""Traefik's own account of the weights it divides requests by: ``GET /api/http/services`` of a replica (seen: 3.7.15).

The Gateway provider makes a service ``httproute-NAMESPACE-ROUTE-gw-...-wrr`` for each rule of a route, with children
``...-svc-NAMESPACE-SERVICE-INDEX``; the provider of Traefik's own objects makes one ``NAMESPACE-NAME`` for each
TraefikService, with children ``NAMESPACE-SERVICE-PORT``.
"""

from __future__ import annotations

import msgspec

Shares = tuple[dict[str, int], ...]
"""For each way that a route has: child (``NAMESPACE-SERVICE-INDEX``) -> weight."""


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
        prefix = f"{name.removesuffix('-wrr')}-svc-"
        children = [
            (child.name.partition("@")[0].removeprefix(prefix), child.weight) for child in one.weighted.services
        ]
        found.append(dict(children))
    return tuple(found)


def _is_of(name: str, provider: str, key: str) -> bool:
    return name.startswith(f"httproute-{key}-gw-") if provider == "kubernetesgateway" else name == key
