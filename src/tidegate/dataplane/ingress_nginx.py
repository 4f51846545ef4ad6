"""ingress-nginx's list of backends: ``GET /configuration/backends`` on its status server, 127.0.0.1:10246 of each pod.

Written from its source (pkg/apis/ingress/types.go, rootfs/etc/nginx/lua/balancer.lua; it is retired): none ran here.
Traps this file knows of:

- The list is what the controller last posted, not what workers use: each copies it once a second, and compares seconds,
  so of two posts within one second a worker may keep the first until a third comes. Hence **no fence is read from it**:
  its evidence is weak, whatever it shows.
- Services of type ExternalName lead wherever DNS says: unreadable, unless told to ignore them.
- TCP and UDP services (``--tcp-services-configmap``) are not in it, nor is TLS passthrough's own proxy.
"""

from __future__ import annotations

import msgspec

from tidegate.dataplane.facts import Facts, Route, Unreadable
from tidegate.model.endpoint import Endpoint, canonical

PATH = "/configuration/backends"


class _Server(msgspec.Struct):
    address: str
    port: str


class _ServiceSpec(msgspec.Struct):
    type: str = ""


class _Service(msgspec.Struct):
    spec: _ServiceSpec = msgspec.field(default_factory=_ServiceSpec)


class _Backend(msgspec.Struct):
    name: str
    endpoints: list[_Server] | None = None
    service: _Service | None = None


def parse(body: str, *, source: str = "", ignore_names: bool = False) -> Facts:
    """Facts of one replica. Every backend counts, those that only share another's server too."""
    try:
        backends = msgspec.json.decode(body.encode(), type=list[_Backend])
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        return Facts(source, PATH, unreadable=(Unreadable(f"not a list of backends: {error}", PATH),))
    routes: list[Route] = []
    problems: list[Unreadable] = []
    if not backends:
        # upstream-default-backend is always there: without it there is no configuration yet.
        problems.append(Unreadable("not even the default backend is listed", PATH))
    for backend in backends:
        endpoints: list[Endpoint] = []
        for server in backend.endpoints or ():
            try:
                endpoints.append(_endpoint(server))
            except ValueError as error:
                is_by_name = backend.service is not None and backend.service.spec.type == "ExternalName"
                if not (is_by_name and ignore_names):
                    problems.append(Unreadable(str(error), f"{PATH} {backend.name}"))
        if endpoints:
            routes.append(Route(f"ingress-nginx {backend.name}", "", 0, "TCP", tuple(endpoints)))
    return Facts(source, PATH, routes=tuple(routes), unreadable=tuple(problems))


def _endpoint(server: _Server) -> Endpoint:
    if not server.port.isascii() or not server.port.isdigit() or not 0 < int(server.port) < 65536:
        raise ValueError(f"{server.address}:{server.port} is no address and port")
    return Endpoint(canonical(server.address.removeprefix("[").removesuffix("]")), int(server.port))
