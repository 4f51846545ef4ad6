"""Kind ``ingress-nginx``: each replica's list of backends, read with ``dataplane.ingress_nginx``. Weak evidence.

What was listed within the last ``LAG_SECONDS`` counts as routed still: so long its workers may go on using it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import msgspec

from tidegate.dataplane import ingress_nginx
from tidegate.dataplane.facts import Facts, Route
from tidegate.kube.exchange import Request
from tidegate.model.endpoint import Endpoint
from tidegate.model.endpointslice import EndpointSlice
from tidegate.observers.admin import fetched
from tidegate.observers.external import Fencing, Question, Replica, Spec, replicas_of
from tidegate.observers.options import decode_options

LAG_SECONDS = 2.0
"""Its workers look once a second (balancer.lua), at clocks that tell whole seconds."""
CONTROLLERS = ("controller/k8s.io/ingress-nginx",)


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """``ignore_names``: ExternalName Services are known to be no pods."""

    ignore_names: bool = False
    covers: tuple[str, ...] = CONTROLLERS


class IngressNginx:
    """Observer of kind ``ingress-nginx``."""

    fencing = Fencing.DOUBLE
    additions = "listed"
    listing_lags = "its workers copy the list later"

    def __init__(self, spec: Spec) -> None:
        self._where = spec.where
        self._options = decode_options(spec, Options)
        self._listed: dict[Replica, dict[Endpoint, float]] = {}
        self.covers = self._options.covers

    def replicas(self, slices: Iterable[EndpointSlice]) -> tuple[Replica, ...]:
        found = replicas_of(self._where, slices)
        self._listed = {one: self._listed.get(one, {}) for one in found}
        return found

    async def ask(self, replica: Replica, question: Question) -> Facts:
        """Raises ``Unreachable``."""
        _, body = await fetched(replica, question, Request("GET", ingress_nginx.PATH), "is that its status server?")
        text = body.decode(errors="replace")
        facts = ingress_nginx.parse(text, source=replica.name, ignore_names=self._options.ignore_names)
        return self._remembering(replica, facts, asyncio.get_running_loop().time())

    def _remembering(self, replica: Replica, facts: Facts, now: float) -> Facts:
        """The facts, with what was listed a moment ago."""
        listed = self._listed.setdefault(replica, {})
        current = [endpoint for route in facts.routes for endpoint in route.endpoints]
        recent = {one: at for one, at in listed.items() if now - at < LAG_SECONDS and one not in current}
        self._listed[replica] = {**recent, **dict.fromkeys(current, now)}
        if not recent:
            return facts
        lagging = Route("ingress-nginx (listed a moment ago)", "", 0, "TCP", tuple(recent))
        return replace(facts, routes=(*facts.routes, lagging))
