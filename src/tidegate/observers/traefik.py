"""Kind ``traefik``: each replica's API (``--api``, plain HTTP), read with ``dataplane.traefik``."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tidegate.dataplane import traefik
from tidegate.dataplane.facts import Facts, Unreadable
from tidegate.kube.exchange import Request
from tidegate.model.endpointslice import EndpointSlice
from tidegate.observers.admin import fetched
from tidegate.observers.external import Fencing, Question, Replica, Spec, replicas_of
from tidegate.observers.options import decode_options

CONTROLLERS = ("controller/traefik.io/ingress-controller", "controller/traefik.io/gateway-controller", "crd/traefik.io")
PER_PAGE = 100_000
"""Its API answers in pages of 100 unless told otherwise."""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """``ignore_names``: servers given by host name (ExternalName Services) are known to be no pods."""

    ignore_names: bool = False
    covers: tuple[str, ...] = CONTROLLERS


class Traefik:
    """Observer of kind ``traefik``. A configuration may be built while its caches change: hence a double fence."""

    fencing = Fencing.DOUBLE
    additions = "listed"

    def __init__(self, spec: Spec) -> None:
        self._where = spec.where
        self._options = decode_options(spec, Options)
        self.covers = self._options.covers

    def replicas(self, slices: Iterable[EndpointSlice]) -> tuple[Replica, ...]:
        return replicas_of(self._where, slices)

    async def ask(self, replica: Replica, question: Question) -> Facts:
        """Raises ``Unreachable``. HTTP is read first: the fence is there, and what is read later is no older."""
        bodies: dict[str, str] = {}
        for protocol in traefik.PROTOCOLS:
            request = Request("GET", f"/api/{protocol}/services", (("per_page", str(PER_PAGE)),))
            headers, body = await fetched(replica, question, request, "is its API on (--api)?")
            bodies[protocol] = body.decode(errors="replace")
            if headers.get("x-next-page", "1") != "1":
                why = Unreadable(f"more than {PER_PAGE} services", request.path)
                return Facts(replica.name, "traefik services", unreadable=(why,))
        return traefik.parse(bodies, question.install, source=replica.name, ignore_names=self._options.ignore_names)
