"""healthCheckNodePort: how a load balancer learns which nodes have endpoints of their own.

After pkg/proxy/healthcheck/service_health.go: the proxy itself answers on the node's address, so a frozen one lets
its caller wait and a killed one is refused, while the kernel goes on forwarding.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from tidegate.kube import wire
from tidegate.kube.exchange import Exchange, Request, Response, whole
from tidegate.lab.faults import Faults

Name = tuple[str, str]
"""(namespace, name) of a Service."""

Serve = Callable[[Exchange, str, int], Awaitable[wire.Server]]
"""Serves on (address, port) of the node. Raises ``OSError``."""


@dataclass(frozen=True, slots=True)
class Check:
    """What is asked for one Service: the port, and how many ready endpoints this node has."""

    port: int
    local_endpoints: int


@dataclass(frozen=True, slots=True)
class Proxying:
    """The proxy behind the ports. ``is_healthy``: no sync has been due for too long (proxy_health.go)."""

    node_name: str
    address: str
    faults: Faults
    is_healthy: Callable[[], bool]
    serve: Serve = wire.serve


class HealthPorts:
    """The ports one proxy answers on. ``complain`` is told of a Service whose port is somebody else's, and why."""

    def __init__(self, proxying: Proxying, complain: Callable[[Name, str], None]) -> None:
        self._proxying = proxying
        self._complain = complain
        self._checks: dict[Name, Check] = {}
        self._servers: dict[Name, tuple[int, wire.Server]] = {}

    async def sync(self, checks: Mapping[Name, Check]) -> None:
        """Answer for these and no others; a port that stays is never closed."""
        self._checks = dict(checks)
        for name, (port, server) in list(self._servers.items()):
            if name not in checks or checks[name].port != port:
                del self._servers[name]
                await server.close()
        for name, check in checks.items():
            if name not in self._servers:
                await self._listen(name, check.port)

    async def close(self) -> None:
        """Answer no more: the proxy has ended."""
        await self.sync({})

    async def _listen(self, name: Name, port: int) -> None:
        try:
            self._servers[name] = port, await self._proxying.serve(self._answering(name), self._proxying.address, port)
        except OSError as error:
            where = f'node {self._proxying.node_name} failed to start healthcheck "{name[0]}/{name[1]}" on port {port}'
            self._complain(name, f"{where}: {error.strerror or error}")

    def _answering(self, name: Name) -> Exchange:
        async def answer(request: Request) -> Response:
            del request  # any method and path: a load balancer's probe is its own
            await self._proxying.faults.thawed(self._proxying.node_name)
            return self._response(name)

        return answer

    def _response(self, name: Name) -> Response:
        count = self._checks[name].local_endpoints if name in self._checks else 0
        is_healthy = self._proxying.is_healthy()
        namespace, service = map(json.dumps, name)
        body = (
            f'{{\n\t"service": {{\n\t\t"namespace": {namespace},\n\t\t"name": {service}\n\t}},\n'
            f'\t"localEndpoints": {count},\n\t"serviceProxyHealthy": {json.dumps(is_healthy)}\n}}'
        )
        headers = {"x_content_type_options": "nosniff", "x_load_balancing_endpoint_weight": str(count)}
        return whole(200 if count and is_healthy else 503, body.encode(), **headers)
