"""Kind ``envoy``: each replica's admin interface (plain HTTP), read with ``dataplane.envoy``.

For anything that is an Envoy and is fed endpoints: Envoy Gateway, Contour, an Istio gateway, one of your own.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tidegate.dataplane import envoy
from tidegate.dataplane.facts import Facts
from tidegate.kube.exchange import Request, parse_target
from tidegate.model.endpointslice import EndpointSlice
from tidegate.observers.admin import fetched
from tidegate.observers.external import Fencing, Question, Replica, Spec, replicas_of
from tidegate.observers.options import decode_options

CONTROLLERS = ("controller/gateway.envoyproxy.io/gatewayclass-controller",)


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """``ignore_names``: clusters whose hosts DNS finds are known to be no pods. ``ignore_clusters``: so are these."""

    ignore_names: bool = False
    ignore_clusters: tuple[str, ...] = ()
    covers: tuple[str, ...] = CONTROLLERS


class Envoy:
    """Observer of kind ``envoy``. Clusters are applied one after another, and by the main thread before the workers:
    hence a double fence. The process before a hot restart is not asked: the pod's sockets show what it still serves."""

    fencing = Fencing.DOUBLE
    additions = "listed"

    def __init__(self, spec: Spec) -> None:
        self._where = spec.where
        self._options = decode_options(spec, Options)
        self.covers = self._options.covers

    def replicas(self, slices: Iterable[EndpointSlice]) -> tuple[Replica, ...]:
        return replicas_of(self._where, slices)

    async def ask(self, replica: Replica, question: Question) -> Facts:
        """Raises ``Unreachable``."""
        bodies: dict[str, str] = {}
        for path in envoy.PATHS:
            request = Request("GET", *parse_target(path))
            _, body = await fetched(replica, question, request, "is that its admin interface?")
            bodies[path] = body.decode(errors="replace")
        return envoy.parse(
            bodies,
            question.install,
            source=replica.name,
            ignore_names=self._options.ignore_names,
            ignore_clusters=self._options.ignore_clusters,
        )
