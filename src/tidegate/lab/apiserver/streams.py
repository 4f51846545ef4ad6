"""Subresources that reach into pods: logs and the reverse proxies. They await; nothing here writes the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

from tidegate.kube import wire
from tidegate.kube.api import JsonObject
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request, Response, whole
from tidegate.lab.apiserver import failures, portforward, terminals, websocket
from tidegate.lab.apiserver.bodies import is_true
from tidegate.lab.apiserver.routes import Route
from tidegate.lab.apiserver.terminals import Execute
from tidegate.lab.apiserver.verbs import Verbs
from tidegate.lab.runtime.logs import LogOptions, LogSource, NoLog, since_seconds

Dial = Callable[[str, int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""Open a connection to (host, port) from the API server's address; raises OSError."""


@dataclass(slots=True)
class Backends:
    """How the server reaches what runs on nodes. May be filled in after the server was made."""

    dial: Dial = field(default=asyncio.open_connection)
    logs: LogSource | None = None
    forward: Dial | None = None
    """How a port-forward reaches a pod's port; None: by ``dial``."""
    execute: Execute | None = None
    """Runs ``kubectl exec``; without it the answer is 503."""


class Streams:
    """Answers for pods/log, pods/proxy, services/proxy and nodes/proxy."""

    def __init__(self, verbs: Verbs, backends: Backends) -> None:
        self._verbs = verbs
        self._backends = backends

    async def answer(self, route: Route, request: Request) -> Response | None:
        """The response, or None when the subresource is not one of these."""
        if route.subresource == "log":
            return self._log(route, request)
        if route.subresource == "proxy":
            return await self._proxy(route, request)
        if route.subresource == "portforward":
            return self._port_forward(route, request)
        if route.subresource in ("exec", "attach"):
            return self._exec(route, request)
        return None

    # -- upgrades

    def _port_forward(self, route: Route, request: Request) -> Response:
        pod = self._verbs.get(route.row, *route.place).object
        if not websocket.is_upgrade(request):
            raise failures.bad_request("unable to upgrade: Upgrade request required")
        if (pod.get("status") or {}).get("phase") != "Running":
            phase = (pod.get("status") or {}).get("phase", "Unknown")
            raise failures.bad_request(f"unable to forward port because pod is not running. Current status={phase}")
        address = str((pod.get("status") or {}).get("podIP") or "")

        async def dial(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await (self._backends.forward or self._backends.dial)(address, port)

        return portforward.answer(request, route.name, dial)

    def _exec(self, route: Route, request: Request) -> Response:
        pod = self._verbs.get(route.row, *route.place).object
        container = _container(pod, request.param("container"))
        if not pod["spec"].get("nodeName"):
            raise failures.bad_request(f"pod {route.name} does not have a host assigned")
        if route.subresource == "attach":
            source = self._backends.logs
            if source is None:
                raise failures.unavailable("no kubelet serves containers")
            try:
                return terminals.attach(request, source(*route.place, container, LogOptions(follow=True, tail_lines=0)))
            except NoLog as error:
                raise failures.bad_request(str(error)) from None
        return terminals.answer(request, pod, container, self._backends.execute)

    # -- logs

    def _log(self, route: Route, request: Request) -> Response:
        namespace, name = route.place
        pod = self._verbs.get(route.row, namespace, name).object
        container = _container(pod, request.param("container"))
        options = _log_options(request)
        if not pod["spec"].get("nodeName"):
            return whole(200, b"", "text/plain")  # pod/strategy.go LogLocation: nowhere to ask, nothing said
        source = self._backends.logs
        if source is None:
            raise failures.unavailable("no kubelet serves logs")
        state = _container_state(pod, container)
        if options.previous is False and "waiting" in state and not _has_run(pod, container):
            reason = state["waiting"].get("reason") or "ContainerCreating"
            message = f'container "{container}" in pod "{name}" is waiting to start: {reason}'
            raise failures.bad_request(message)
        try:
            chunks = source(namespace, name, container, options)
        except NoLog as error:
            raise failures.bad_request(str(error)) from None
        return Response(200, {"content-type": "text/plain"}, chunks)

    # -- proxies

    async def _proxy(self, route: Route, request: Request) -> Response:
        kind = route.row.kind
        _, name, port = _proxy_target(route.name)
        named = Route(route.row, route.namespace, name)
        obj = self._verbs.get(route.row, *named.place).object
        if kind == "Pod":
            address = (obj.get("status") or {}).get("podIP")
            number = _pod_port(obj, port)
        elif kind == "Node":
            address = _node_address(obj)
            number = int(port) if port.isdigit() else 10250
        else:
            address, number = self._service_target(named, obj, port)
        if not address:
            raise failures.unavailable(f'address not allowed or not known for {route.row.qualified} "{name}"')
        return await self._forward(request, route.tail or "/", str(address), number)

    def _service_target(self, route: Route, service: JsonObject, port: str) -> tuple[str, int]:
        """Any ready endpoint of a service's port, by name or number (service/storage ResourceLocation)."""
        ports = service["spec"].get("ports") or []
        chosen = next((held for held in ports if port in (str(held["port"]), held.get("name"))), None)
        if chosen is None and not port and len(ports) == 1:
            chosen = ports[0]
        if chosen is None:
            raise failures.unavailable(f'no service port "{port}" found for service "{route.name}"')
        row = self._verbs.registry.named("discovery.k8s.io", "endpointslices")
        for version in self._verbs.store.collection(row).versions(route.namespace):
            labels = version.object["metadata"].get("labels") or {}
            if labels.get("kubernetes.io/service-name") != route.name:
                continue
            numbers = [
                held["port"]
                for held in version.object.get("ports") or []
                if (held.get("name") or "") == (chosen.get("name") or "")
            ]
            for endpoint in version.object.get("endpoints") or []:
                if numbers and (endpoint.get("conditions") or {}).get("ready", True):
                    return endpoint["addresses"][0], numbers[0]
        raise failures.unavailable(f'no endpoints available for service "{route.name}"')

    async def _forward(self, request: Request, path: str, host: str, port: int) -> Response:
        """Ask a pod the same question; hop-by-hop headers stay behind."""
        dropped = ("host", "connection", "content-length", "transfer-encoding", "accept-encoding", "authorization")
        headers = {name: value for name, value in request.headers.items() if name not in dropped}
        asked = Request(request.method, path, request.query, headers, request.body)
        writer = None
        try:
            reader, writer = await self._backends.dial(host, port)
            status, answered, body = await wire.converse(reader, writer, asked, f"{host}:{port}")
        except (OSError, Unreachable) as error:
            message = f"error trying to reach service: dial tcp {host}:{port}: {error}"
            raise failures.unavailable(message) from error
        finally:
            if writer is not None:
                writer.close()
        response = whole(status, body, answered.get("content-type", "text/plain"))
        return response


def _container(pod: JsonObject, asked: str) -> str:
    """The container a log request means; 400 with the choices when it does not say."""
    spec, name = pod["spec"], pod["metadata"]["name"]
    names = [container["name"] for container in spec.get("containers") or []]
    initial = [container["name"] for container in spec.get("initContainers") or []]
    if not asked and len(names) == 1:
        return str(names[0])
    if not asked:
        choices = f"choose one of: [{' '.join(names)}]"
        if initial:
            choices += f" or one of the init containers: [{' '.join(initial)}]"
        raise failures.bad_request(f"a container name must be specified for pod {name}, {choices}")
    if asked not in names and asked not in initial:
        raise failures.bad_request(f"container {asked} is not valid for pod {name}")
    return asked


def _statuses(pod: JsonObject) -> list[JsonObject]:
    status = pod.get("status") or {}
    return [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]


def _container_state(pod: JsonObject, container: str) -> JsonObject:
    held = next((status for status in _statuses(pod) if status.get("name") == container), None)
    return {"waiting": {}} if held is None else held.get("state") or {}


def _has_run(pod: JsonObject, container: str) -> bool:
    held = next((status for status in _statuses(pod) if status.get("name") == container), {})
    return bool(held.get("restartCount") or (held.get("lastState") or {}).get("terminated"))


def _log_options(request: Request) -> LogOptions:
    since: datetime | None = None
    try:
        if request.param("sinceSeconds"):
            since = since_seconds(float(request.param("sinceSeconds")))
        elif request.param("sinceTime"):
            since = datetime.fromisoformat(request.param("sinceTime").replace("Z", "+00:00"))
    except ValueError as error:
        raise failures.bad_request(f"invalid log options: {error}") from None
    tail, limit = request.param("tailLines"), request.param("limitBytes")
    return LogOptions(
        follow=is_true(request.param("follow")),
        previous=is_true(request.param("previous")),
        timestamps=is_true(request.param("timestamps")),
        tail_lines=int(tail) if tail.isdigit() else None,
        since=since,
        limit_bytes=int(limit) if limit.isdigit() else None,
    )


def _proxy_target(name: str) -> tuple[str, str, str]:
    """``name``, ``name:port`` or ``scheme:name:port`` (apimachinery util/net SplitSchemeNamePort)."""
    parts = name.split(":")
    if len(parts) == 1:
        return "", parts[0], ""
    if len(parts) == 2:
        return "", parts[0], parts[1]
    return parts[0], parts[1], parts[2]


def _pod_port(pod: JsonObject, port: str) -> int:
    if port.isdigit():
        return int(port)
    for container in pod["spec"].get("containers") or []:
        for held in container.get("ports") or []:
            if not port or held.get("name") == port:
                return int(held["containerPort"])
    return 80


def _node_address(node: JsonObject) -> str:
    addresses = (node.get("status") or {}).get("addresses") or []
    return next((held["address"] for held in addresses if held.get("type") == "InternalIP"), "")
