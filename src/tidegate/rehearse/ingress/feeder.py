"""The lab's feeder: in the place of an ingress controller, for proxies whose controllers a lab cannot run.

Program ``tidegate/lab-feeder``: watches Ingresses, Services and EndpointSlices, and writes into one HAProxy or Envoy
what they come to. Hosts are looked at, paths are not. A pass begins ``PASS_SECONDS`` after a change, works on one copy
of everything (one watch brings all slices, in order), and writes the fence last.

Environment: ``TIDEGATE_SERVER``, ``INGRESS`` (haproxy or envoy, the class too), ``POD_IP``, ``ADMIN_PORT``, ``FOLDER``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tidegate.kube.api import ENDPOINTSLICES, INGRESSES, SERVICES, JsonObject
from tidegate.kube.connect import open_api
from tidegate.kube.reflector import Reflector
from tidegate.rehearse.ingress.fed_envoy import FedEnvoy
from tidegate.rehearse.ingress.fed_haproxy import FedHAProxy
from tidegate.rehearse.ingress.settings import ANY_HOST, FENCE_SERVICE
from tidegate.rehearse.ingress.sites import Fed, Member, Sites
from tidegate.vtime import Nursery, Program

PASS_SECONDS = 0.1
RETRY_SECONDS = 0.2
SERVICE_LABEL = "kubernetes.io/service-name"


class Feeder:
    """``await run()`` feeds for ever."""

    def __init__(self, class_name: str, fed: Fed, watches: tuple[Reflector, Reflector, Reflector]) -> None:
        self._class = class_name
        self._fed = fed
        self._ingresses, self._services, self._slices = watches
        self._news = asyncio.Event()
        for watch in watches:
            watch.subscribe(lambda old, new: self._news.set())

    async def run(self, log: Callable[[str], None]) -> None:
        for watch in (self._ingresses, self._services, self._slices):
            await watch.synced()
        self._news.set()
        said = ""
        while True:
            await self._news.wait()
            await asyncio.sleep(PASS_SECONDS)
            self._news.clear()
            try:
                await self._fed.apply(self.sites())
            except OSError as error:
                if said != str(error):
                    said = str(error)
                    log(f"the proxy cannot be told: {said}")
                self._news.set()
                await asyncio.sleep(RETRY_SECONDS)

    def sites(self) -> Sites:
        """What everything seen so far comes to."""
        backends: dict[str, str] = {}
        members: dict[str, tuple[Member, ...]] = {}
        for _, ingress in sorted(self._ingresses.objects.items()):
            namespace = ingress["metadata"]["namespace"]
            if ingress["spec"].get("ingressClassName") != self._class:
                continue
            for host, backend in _rules(ingress["spec"]):
                service, port = f"{namespace}/{backend.get('name')}", self._port_name(namespace, backend)
                backends.setdefault(host, f"{service}:{port}")
                members[f"{service}:{port}"] = tuple(self._members(service, port))
        return Sites(backends, members, tuple(self._members(FENCE_SERVICE, "fence")))

    def _port_name(self, namespace: str, backend: JsonObject) -> str:
        """The Service's own name of the port; slices know it by that."""
        wanted: dict[str, Any] = backend.get("port") or {}
        service = self._services.objects.get((namespace, backend.get("name", "")), {})
        for port in (service.get("spec") or {}).get("ports") or ():
            if port.get("port") == wanted.get("number") or ("name" in wanted and port.get("name") == wanted["name"]):
                return str(port.get("name") or "")
        return str(wanted.get("name", ""))

    def _members(self, service: str, port_name: str) -> Iterable[Member]:
        for (namespace, _), slice_ in sorted(self._slices.objects.items()):
            name = (slice_["metadata"].get("labels") or {}).get(SERVICE_LABEL)
            if f"{namespace}/{name}" != service or slice_["addressType"] != "IPv4":
                continue
            ports = [one for one in slice_.get("ports") or () if (one.get("name") or "") == port_name]
            for endpoint in slice_.get("endpoints") or () if ports else ():
                state = endpoint.get("conditions") or {}
                is_ready = state.get("ready") is not False
                is_ending = bool(state.get("terminating")) and bool(state.get("serving"))
                if is_ready or is_ending:
                    yield Member(endpoint["addresses"][0], ports[0]["port"], not is_ready)


def _rules(spec: JsonObject) -> Iterable[tuple[str, JsonObject]]:
    """Host ("any" for all) and Service of each rule; of several paths the first."""
    for rule in spec.get("rules") or ():
        paths = (rule.get("http") or {}).get("paths") or ()
        if paths:
            yield (rule.get("host") or ANY_HOST).lower(), (paths[0].get("backend") or {}).get("service") or {}
    if "service" in (spec.get("defaultBackend") or {}):
        yield ANY_HOST, spec["defaultBackend"]["service"]


async def main(program: Program) -> int:
    env = program.env
    fed: Fed
    if env["INGRESS"] == "haproxy":
        fed = FedHAProxy(env["POD_IP"], int(env["ADMIN_PORT"]))
    else:
        fed = FedEnvoy(Path(env["FOLDER"]))
    async with open_api(env["TIDEGATE_SERVER"]) as api:
        watches = (Reflector(api, INGRESSES), Reflector(api, SERVICES), Reflector(api, ENDPOINTSLICES))
        feeder = Feeder(env["INGRESS"], fed, watches)
        async with Nursery() as nursery:
            for watch in watches:
                nursery.start(watch.run(), name=f"watch {watch.resource.plural}")
            nursery.start(feeder.run(program.log), name="feed")
    return 0
