"""Google Cloud's own account of a network endpoint group: ``networkEndpointGroups.listNetworkEndpoints`` (v1, JSON).

Whatever is listed is a route, healthy or not: the health that load balancers see is theirs, and all unhealthy is all.
Absence says that the detach was accepted, not that every proxy knows of it, and there is no epoch: weak evidence. An
answer with a warning (UNREACHABLE and its like) lists a part, and says nothing about who is missing.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tidegate.dataplane.facts import Facts, Route, Unreadable
from tidegate.model.endpoint import Endpoint, canonical

STATUS_NOTE = "cloud.google.com/neg-status"
_HARMLESS = frozenset({"", "NO_RESULTS_ON_PAGE"})


class _Warning(msgspec.Struct, frozen=True):
    code: str = ""


class _At(msgspec.Struct, rename="camel"):
    ip_address: str = ""
    ipv6_address: str = msgspec.field(default="", name="ipv6Address")
    port: int = 0


class _Health(msgspec.Struct, rename="camel"):
    health_state: str = ""


class _Item(msgspec.Struct, rename="camel"):
    network_endpoint: _At
    healths: tuple[_Health, ...] = ()


class Page(msgspec.Struct, rename="camel"):
    """One page. ``kind`` tells it from an answer to something else."""

    kind: str
    items: tuple[_Item, ...] = ()
    next_page_token: str = ""
    warning: _Warning = _Warning()


class Status(msgspec.Struct):
    """What the NEG controller writes on a Service: group names by port, and the zones that have them."""

    network_endpoint_groups: dict[str, str]
    zones: tuple[str, ...]


class _ErrorItem(msgspec.Struct):
    reason: str = ""


class _Error(msgspec.Struct):
    status: str = ""
    errors: tuple[_ErrorItem, ...] = ()


class _ErrorBody(msgspec.Struct):
    error: _Error


def parse_status(note: str) -> tuple[tuple[str, str], ...]:
    """(group, zone) of everything a ``neg-status`` annotation names. Raises ``ValueError``."""
    try:
        status = msgspec.json.decode(note.encode(), type=Status)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise ValueError(f"{STATUS_NOTE} is not understood: {error}") from error
    groups = dict.fromkeys(status.network_endpoint_groups.values())
    if groups and not status.zones:
        raise ValueError(f"{STATUS_NOTE} names groups and no zone")
    return tuple((group, zone) for group in groups for zone in dict.fromkeys(status.zones))


def parse_page(body: bytes) -> Page:
    """Raises ``ValueError`` for what is no whole page."""
    try:
        page = msgspec.json.decode(body, type=Page)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"no list of endpoints: {error}") from error
    if page.kind != "compute#networkEndpointGroupsListNetworkEndpoints":
        raise ValueError(f"no list of endpoints: {page.kind!r}")
    if page.warning.code not in _HARMLESS:
        raise ValueError(f"a part of the list, with the warning {page.warning.code}")
    return page


def facts_of(pages: Iterable[Page], name: str, *, linger_seconds: float = 0.0) -> Facts:
    """Facts of one group from all of its pages."""
    routes: list[Route] = []
    problems: list[Unreadable] = []
    items = [one for page in pages for one in page.items]
    is_health_told = any(health.health_state for item in items for health in item.healths)
    for item in items:
        at, states = item.network_endpoint, ", ".join(one.health_state for one in item.healths if one.health_state)
        via = f"endpoint group {name} ({states or 'no health told'})"
        try:
            to = tuple(Endpoint(canonical(one), at.port) for one in (at.ip_address, at.ipv6_address) if one)
        except ValueError as error:
            problems.append(Unreadable(str(error), name))
            continue
        if not to or not 0 <= at.port < 65536:
            problems.append(Unreadable("an endpoint without an address", name))
        else:
            routes.append(Route(via, "", 0, "TCP", to, withheld=_withheld(item, is_health_told)))
    return Facts(
        name, "network endpoints", routes=tuple(routes), unreadable=tuple(problems), linger_seconds=linger_seconds
    )


def _withheld(item: _Item, is_health_told: bool) -> str:
    """Every load balancer that tells its health has to find it healthy. One of whom none is told while it is of others
    was just attached; where it is told of nobody, no load balancer checks (ingress-gce#1718): then listed is all."""
    states = [health.health_state for health in item.healths if health.health_state]
    if not states:
        return "no health told yet" if is_health_told else ""
    return next((state for state in states if state != "HEALTHY"), "")


def parse_error(body: bytes) -> str:
    """The reason of an error answer, as ``rateLimitExceeded``; "" where there is none."""
    try:
        error = msgspec.json.decode(body, type=_ErrorBody).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    return next((one.reason for one in error.errors if one.reason), error.status)
