"""Kind ``gcp-neg``: the endpoints of every network endpoint group that has a Service's pods.

Which groups: the NEG controller (ingress-gce) writes them on the Service, ``cloud.google.com/neg-status``. A token by
google-auth's own chain (the extra ``gcp``), requests by our own client, which runs in virtual time too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tidegate.dataplane import gcpneg
from tidegate.dataplane.facts import Facts, Unreadable
from tidegate.dataplane.gcpneg import Page
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request
from tidegate.model.endpointslice import EndpointSlice
from tidegate.observers import cloud
from tidegate.observers.addition import Joining
from tidegate.observers.discovery import NEG, has_groups
from tidegate.observers.external import Question, Replica, Services, Spec
from tidegate.observers.options import decode_options

PAGES_MAX = 100
_SCOPE = "https://www.googleapis.com/auth/compute.readonly"
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_PROJECT = re.compile(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_BROKEN = "service "


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """``project``: whose groups they are. ``linger_seconds``: how long load balancers may go on sending to what was
    detached; the drainingTimeoutSec of the BackendConfig is a good measure. ``endpoint``: in the place of
    ``https://compute.googleapis.com``."""

    project: str
    linger_seconds: float = 30.0
    endpoint: str = "https://compute.googleapis.com"
    covers: tuple[str, ...] = ("loadbalancer/gcp",)


class GcpGroups(cloud.Groups):
    """Observer of kind ``gcp-neg``."""

    def __init__(self, spec: Spec) -> None:
        self._options = decode_options(spec, Options)
        self.covers = self._options.covers
        if not _PROJECT.fullmatch(self._options.project):
            raise ValueError(f"{spec.path}.project: {self._options.project!r} is no project's id")

    def see(self, objects: Mapping[str, list[dict[str, Any]] | None]) -> None:
        services = objects.get("services")
        if services is None:
            self._services = None
            return
        found: dict[str, frozenset[str]] = {}
        for service in services:
            notes = service["metadata"].get("annotations") or {}
            name = f"{service['metadata'].get('namespace')}/{service['metadata']['name']}"
            for address in _addresses(name, notes):
                found[address] = found.get(address, frozenset()) | {name}
        self._services = found

    def replicas(self, slices: Iterable[EndpointSlice]) -> tuple[Replica, ...]:
        del slices
        if self._services is None:
            raise ValueError("Services were not listed, so which endpoint groups there are is not known")
        return tuple(Replica(address.replace(" ", "-"), address) for address in sorted(self._services))

    def expected(
        self, replica: Replica, service: str, services: Services, pods: tuple[Joining, ...]
    ) -> tuple[Joining, ...] | None:
        """A group has the pods of its own zone. One whose zone the slices do not tell, or has no group yet, is looked
        for in each: until the NEG controller has named its group nobody else would be asked for it."""
        del services
        found = {_zone(address) for address, names in (self._services or {}).items() if service in names}
        known, zone = self._services_of(replica), _zone(replica.address)
        if known is None or service not in known:
            return None
        return tuple(one for one in pods if one.zone == zone or one.zone not in found)

    async def ask(self, replica: Replica, question: Question) -> Facts:
        """Raises ``Unreachable``."""
        del question
        group, _, zone = replica.address.partition("@")
        if group.startswith(_BROKEN) or not (_NAME.fullmatch(group) and _NAME.fullmatch(zone)):
            why = Unreadable(f"{gcpneg.STATUS_NOTE} does not say which groups and zones have its pods", replica.address)
            return Facts(replica.name, "network endpoints", unreadable=(why,))
        try:
            pages = await self._pages(group, zone)
        except ValueError as error:
            return Facts(replica.name, "network endpoints", unreadable=(Unreadable(str(error), replica.address),))
        return gcpneg.facts_of(pages, replica.address, linger_seconds=self._options.linger_seconds)

    async def _pages(self, group: str, zone: str) -> list[Page]:
        """All of them. Raises ``Unreachable``, and ``ValueError`` for what is no list."""
        options = self._options
        path = f"/compute/v1/projects/{options.project}/zones/{zone}/networkEndpointGroups/{group}/listNetworkEndpoints"
        headers = {"authorization": f"Bearer {await token()}", "content-type": "application/json"}
        pages: list[Page] = []
        query: tuple[tuple[str, str], ...] = ()
        while len(pages) < PAGES_MAX:
            request = Request("POST", path, query, headers, b'{"healthStatus":"SHOW"}')
            answer = await cloud.fetch(options.endpoint, request)
            if answer.status != 200:
                code = gcpneg.parse_error(answer.body) or f"status {answer.status}"
                raise Unreachable(f"{options.endpoint}: {group} in {zone}: {code}")
            pages.append(gcpneg.parse_page(answer.body))
            if not pages[-1].next_page_token:
                return pages
            query = (("pageToken", pages[-1].next_page_token),)
        raise ValueError(f"more than {PAGES_MAX} pages")


def _addresses(service: str, notes: Mapping[str, str]) -> Iterable[str]:
    """``group@zone`` of each of its groups; one that asks for groups and names none stands for itself."""
    status = notes.get(gcpneg.STATUS_NOTE)
    if status is None and not (NEG in notes and has_groups(notes[NEG])):
        return ()
    try:
        return tuple(f"{group}@{zone}" for group, zone in gcpneg.parse_status(status or ""))
    except ValueError:
        return (f"{_BROKEN}{service}",)


def _zone(address: str) -> str:
    return address.partition("@")[2]


async def token() -> str:
    """As google-auth finds it: environment, gcloud, workload identity, metadata server. Raises ``Unreachable``."""

    def load() -> str:
        import google.auth
        import google.auth.transport.urllib3
        import urllib3

        if not _CHAIN:
            _CHAIN.append(google.auth.default(scopes=[_SCOPE])[0])
        if not _CHAIN[0].valid:
            transport: Any = google.auth.transport.urllib3
            _CHAIN[0].refresh(transport.Request(urllib3.PoolManager()))
        return str(_CHAIN[0].token)

    return await cloud.loaded("Google Cloud credentials (the extra `gcp`)", load)


_CHAIN: list[Any] = []
"""Kept: it knows when its token runs out."""
