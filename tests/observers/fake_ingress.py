"""A small ingress controller as a program of the lab: it copies endpoints late, proxies requests, and can be asked.

Environment: POD_IP, TIDEGATE_SERVER, SERVICE (namespace/name), LAG_SECONDS (of its copy), TELLS_EPOCH ("1": its admin
port tells the fence's epoch, which it applies in order with everything else). Port 8000 proxies, 9000 is the admin's.
"""

from __future__ import annotations

import asyncio
import json

from tidegate.kube import wire
from tidegate.kube.api import ENDPOINTSLICES
from tidegate.kube.connect import open_api
from tidegate.kube.errors import KubeError
from tidegate.kube.exchange import whole
from tidegate.kube.reflector import Reflector
from tidegate.vtime import Nursery

PROXY_PORT, ADMIN_PORT = 8000, 9000


class Ingress:
    """Its copy of the slices is always ``lag`` seconds old."""

    def __init__(self, env, api):
        self.env, self.lag = env, float(env.get("LAG_SECONDS", "6"))
        self.slices, self.turn = {}, 0
        self.queue = asyncio.Queue()
        self.watch = Reflector(api, ENDPOINTSLICES)
        self.watch.subscribe(self.seen)

    def seen(self, old, new):
        due = asyncio.get_running_loop().time() + self.lag
        key = ((new or old)["metadata"]["namespace"], (new or old)["metadata"]["name"])
        self.queue.put_nowait((due, key, new))

    async def copy(self):
        while True:
            due, key, new = await self.queue.get()
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            self.slices[key] = new

    def backends(self):
        namespace, _, service = self.env["SERVICE"].partition("/")
        return [
            (endpoint["addresses"][0], slice_["ports"][0]["port"])
            for (space, _), slice_ in sorted(self.slices.items())
            if slice_ is not None and space == namespace
            and slice_["metadata"]["labels"].get("kubernetes.io/service-name") == service
            for endpoint in slice_.get("endpoints") or ()
            if endpoint["conditions"].get("ready")
        ]  # fmt: skip

    def epoch(self):
        for slice_ in self.slices.values():
            text = (slice_ or {"metadata": {}})["metadata"].get("annotations", {}).get("tidegate.dev/epoch")
            if text:
                return int(text.rpartition("/")[2])
        return None

    async def proxy(self, request):
        backends = self.backends()
        if not backends:
            return whole(503, b"no backend")
        self.turn += 1
        host, port = backends[self.turn % len(backends)]
        try:
            status, _, body = await wire.fetch(wire.Peer(host, port, self.env["POD_IP"], 5.0), request)
        except KubeError as error:
            return whole(502, str(error).encode())
        return whole(status, body)

    def as_traefik(self, protocol):
        """What a Traefik's API would answer, the fence among its services."""
        internal = {"name": "api@internal", "provider": "internal", "status": "enabled"}
        if protocol != "http":
            return []

        def service(name, servers):
            balancer = {"servers": [{"url": f"http://{host}:{port}"} for host, port in servers]}
            return {
                "name": f"{name}@kubernetes",
                "provider": "kubernetes",
                "type": "loadbalancer",
                "loadBalancer": balancer,
            }

        fenced = service("tidegate-system-tidegate-fence-main-fence", self.fence())
        return [internal, service("demo-echo-8080", self.backends()), fenced]

    def fence(self):
        return [
            (slice_["endpoints"][0]["addresses"][0], slice_["ports"][0]["port"])
            for (_, name), slice_ in self.slices.items()
            if slice_ is not None and name == "tidegate-fence-main-ipv4"
        ]

    def as_envoy(self, path):
        """What an Envoy's admin interface would answer: two clusters of one source."""
        hosts = {"demo/echo:http": self.backends(), "tidegate-system/tidegate-fence-main:fence": self.fence()}
        if path == "/runtime":
            return {"entries": {}}
        if path == "/clusters":
            return {
                "cluster_statuses": [
                    {
                        "name": name,
                        "host_statuses": [
                            {
                                "address": {"socket_address": {"address": host, "port_value": port}},
                                "health_status": {"eds_health_status": "HEALTHY"},
                            }
                            for host, port in ones
                        ],
                    }
                    for name, ones in hosts.items()
                ]
            }
        clusters = [
            {"cluster": {"name": name, "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}}}
            for name in hosts
        ]
        kinds = {"ClustersConfigDump": {"dynamic_active_clusters": clusters}, "EndpointsConfigDump": {}}
        return {
            "configs": [{"@type": f"type.googleapis.com/envoy.admin.v3.{one}", **body} for one, body in kinds.items()]
        }

    async def admin(self, request):
        if request.path in ("/runtime", "/clusters", "/config_dump"):
            return whole(200, json.dumps(self.as_envoy(request.path)).encode())
        if request.path.startswith("/api/"):
            return whole(200, json.dumps(self.as_traefik(request.path.split("/")[2])).encode(), x_next_page="1")
        address = request.param("address")
        answer = {"routed": any(host == address for host, _ in self.backends())}
        if self.env.get("TELLS_EPOCH") == "1":
            answer["epoch"] = self.epoch() or 0
        return whole(200, json.dumps(answer).encode())


async def main(program):
    env = program.env
    async with open_api(env["TIDEGATE_SERVER"]) as api:
        ingress = Ingress(env, api)
        await wire.serve(ingress.proxy, env["POD_IP"], PROXY_PORT)
        await wire.serve(ingress.admin, env["POD_IP"], ADMIN_PORT)
        async with Nursery() as nursery:
            nursery.start(ingress.watch.run(), name="watch")
            nursery.start(ingress.copy(), name="copy")
    return 0
