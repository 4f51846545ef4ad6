"""canary by weights, in real time: the real Traefik of this machine, its Gateway provider and its own objects."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json

import pytest
from gateway_kinds import GATEWAYCLASSES, GATEWAYS, HTTPROUTES, INGRESSROUTES, TRAEFIKSERVICES, definitions
from stage import NS, SERVICE, deployment
from troupe import V2, ask_for, at_work, doing

from tidegate.client.release.book import ConfigMapBook
from tidegate.kube.api import CUSTOMRESOURCEDEFINITIONS, DEPLOYMENTS, NAMESPACES, PODS, SERVICES, Patch, Selection
from tidegate.kube.connect import open_api
from tidegate.kube.errors import ApiError
from tidegate.lab import boot
from tidegate.lab.folder import LabFolder
from tidegate.rehearse.ingress import KINDS, NODE_PORT
from tidegate.release.spec import Canary, CanaryStep, Spec

pytestmark = [pytest.mark.realtime, pytest.mark.skipif(KINDS["traefik"].path() is None, reason="no traefik here")]
HOST = "shop.demo"


def kind(resource, name, spec, namespace=NS):
    metadata = {"name": name, **({"namespace": namespace} if resource.namespaced else {})}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, "spec": spec}


ROUTE = {
    "parentRefs": [{"name": "gate"}],
    "hostnames": [HOST],
    "rules": [
        {
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
            "backendRefs": [{"name": "echo", "port": 8080}],
        }
    ],
}
LISTENER = {"name": "web", "port": 8000, "protocol": "HTTP"}
WEIGHTED = {"weighted": {"services": [{"name": "echo", "port": 8080}]}}
RULE = {"kind": "Rule", "match": f"Host(`{HOST}`)", "services": [{"kind": "TraefikService", "name": "echo"}]}
OBJECTS = {
    "httproute": [
        (GATEWAYCLASSES, "traefik", {"controllerName": "traefik.io/gateway-controller"}),
        (GATEWAYS, "gate", {"gatewayClassName": "traefik", "listeners": [LISTENER]}),
        (HTTPROUTES, "echo", ROUTE),
    ],
    "traefik": [
        (TRAEFIKSERVICES, "echo", WEIGHTED),
        (INGRESSROUTES, "echo", {"entryPoints": ["web"], "routes": [RULE]}),
    ],
}
STICKY = {"weighted": {**WEIGHTED["weighted"], "sticky": {"cookie": {"name": "lb"}}}}


class Shop:
    """Clients of the ingress: who answered them, and what was lost."""

    def __init__(self, host):
        self.host, self.lost, self.versions = host, [], collections.Counter()

    async def request(self, header=""):
        """Status and version."""
        status, version, _ = await self.session(header)
        return status, version

    async def session(self, header=""):
        """Status, version, and the cookie that was given, as a header to send ("" for none)."""
        reader, writer = await asyncio.open_connection(self.host, NODE_PORT)
        try:
            writer.write(f"GET / HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n{header}\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            status = head.split(b" ", 2)[1].decode() if b" " in head else "nothing"
            given = [
                line.split(";")[0] for line in head.decode().split("\r\n") if line.lower().startswith("set-cookie:")
            ]
            cookie = f"cookie:{given[0].partition(':')[2]}\r\n" if given else ""
            return status, json.loads(body)["version"] if status == "200" else "", cookie
        finally:
            writer.close()

    async def _client(self):
        while True:
            try:
                async with asyncio.timeout(20):
                    status, version = await self.request()
            except (OSError, TimeoutError, ValueError, IndexError) as error:
                status, version = repr(error), ""
            if status == "200":
                self.versions[version] += 1
            else:
                self.lost.append(status)
            await asyncio.sleep(0.02)

    async def shares(self, seconds=3.0):
        """Who answers from now on."""
        self.versions.clear()
        await asyncio.sleep(seconds)
        return dict(self.versions)

    @contextlib.asynccontextmanager
    async def open(self):
        async with doing(self._client() for _ in range(4)):
            yield self


async def until(holds, seconds=60.0):
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def site(user, router):
    """A lab with Traefik and both its providers, the echo Deployment behind a route; (client, clients of it)."""
    user.run("lab", "up", "--detach", "--lab", router, "--nodes", "2", "--ingress", "traefik").expect(0)
    record = LabFolder(router).record()
    async with open_api(record.server) as api:
        for one in definitions():
            await api.create(CUSTOMRESOURCEDEFINITIONS, one)
        traefik = await api.get(DEPLOYMENTS, "traefik", "ingress-traefik")
        command = traefik["spec"]["template"]["spec"]["containers"][0]["command"]
        command = [
            *command,
            f"--providers.kubernetesgateway.endpoint={record.server}",
            f"--providers.kubernetescrd.endpoint={record.server}",
        ]
        path = "/spec/template/spec/containers/0/command"
        change = Patch([{"op": "replace", "path": path, "value": command}], "json")
        await api.patch(DEPLOYMENTS, "traefik", change, "ingress-traefik")
        await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS}})
        await api.create(SERVICES, SERVICE)
        await api.create(DEPLOYMENTS, deployment(replicas=2))
        for resource, name, spec in OBJECTS[router]:
            await api.create(resource, kind(resource, name, spec))
        shop = Shop(f"127.{record.block}.0.11")

        async def answers():
            with contextlib.suppress(OSError, ValueError, IndexError):
                return (await shop.request())[0] == "200"

        await until(answers)
        await asyncio.sleep(2.0)  # realtime: both pods are in it, and the Traefik of before is gone
        yield api, shop


async def rests(made, book, phase):
    for _ in range(200):
        status = await made.run(60.0)
        if status.phase == phase:
            return (await book.read()).status
        await asyncio.sleep(0.1)
    raise AssertionError(f"{status.phase}: {status.reason} {made.failures}")


class Ours:
    """What ``troupe.at_work`` wants of a stage."""

    def __init__(self, client):
        self.client = client


@pytest.fixture
def user(tmp_path, monkeypatch):
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
    from e2e_world import User

    state = tmp_path / "state"
    monkeypatch.setenv("TIDEGATE_STATE", str(state))
    made = User(state)
    yield made
    for name in OBJECTS:
        with contextlib.suppress(Exception):
            boot.stop(name)
    made.leave()


@pytest.mark.parametrize(("router", "weights"), [("httproute", (25, 60)), ("traefik", (40,))])
def test_weights_are_in_effect_when_a_step_is_done_and_nobody_is_lost(user, router, weights):
    steps = tuple(CanaryStep(one, None) for one in weights)
    spec = Spec("echo", "canary", images=V2, canary=Canary(service="echo", steps=steps, router=router, route="echo"))
    resource = HTTPROUTES if router == "httproute" else TRAEFIKSERVICES

    async def story():
        async with site(user, router) as (api, shop), shop.open():
            before = (await api.get(resource, "echo", NS))["spec"]
            book = ConfigMapBook(api, NS, "echo")
            await book.begin(spec)
            async with at_work(Ours(api), "echo") as made:
                for number, weight in enumerate(weights, 1):
                    status = await rests(made, book, "paused")
                    said = {key.partition("/")[0]: one.verdict for key, one in status.asked.items()}
                    assert said[f"weighed-{weight}"] == "yes", status.asked
                    found = await shop.shares()
                    assert abs(100 * found["v2"] / sum(found.values()) - weight) <= 5, found
                    await ask_for(book, promoted=number)
                status = await rests(made, book, "done")
                assert set(await shop.shares(2.0)) == {"v2"}
            assert shop.lost == []
            after = await api.get(resource, "echo", NS)
            assert after["spec"] == before and not after["metadata"].get("annotations")
            names = {one["metadata"]["name"] for one in (await api.list(SERVICES, Selection(NS))).items}
            assert names == {"echo"}
            pods = (await api.list(PODS, Selection(NS))).items
            assert {one["spec"]["containers"][0]["image"] for one in pods} == {"tidegate/echo:v2"}
            return [note.text for note in status.notes]

    print("\n".join(asyncio.run(story())))


def test_a_header_leads_to_the_canary_alone_and_an_abort_puts_the_route_back(user):
    steps = (CanaryStep(0, None, "x-canary=yes"), CanaryStep(50, None))
    spec = Spec("echo", "canary", images=V2, canary=Canary("echo", steps, "httproute", "echo"))

    async def story():
        async with site(user, "httproute") as (api, shop), shop.open():
            before = (await api.get(HTTPROUTES, "echo", NS))["spec"]
            book = ConfigMapBook(api, NS, "echo")
            await book.begin(spec)
            async with at_work(Ours(api), "echo") as made:
                await rests(made, book, "paused")
                assert {(await shop.request("x-canary: yes\r\n"))[1] for _ in range(20)} == {"v2"}
                assert set(await shop.shares(2.0)) == {"v1"}
                await ask_for(book, promoted=1)
                await rests(made, book, "paused")
                assert set(await shop.shares(2.0)) == {"v1", "v2"}
                await ask_for(book, wish="abort")
                await rests(made, book, "aborted")
                assert set(await shop.shares(2.0)) == {"v1"}
            assert shop.lost == []
            assert (await api.get(HTTPROUTES, "echo", NS))["spec"] == before
            with pytest.raises(ApiError):
                await api.get(DEPLOYMENTS, "echo-r2", NS)

    asyncio.run(story())


async def kept_by(shop, cookie):
    """Who answers a client that comes with this cookie, twenty times."""
    return {(await shop.request(cookie))[1] for _ in range(20)}


@pytest.mark.parametrize("end", ["done", "aborted"])
def test_a_cookie_keeps_a_client_as_long_as_its_revision_has_a_share_and_no_longer(user, monkeypatch, end):
    """Session affinity over changing weights (peers S40). Of Traefik 3.7.15: a weight of 0 is no way for a cookie."""
    monkeypatch.setitem(OBJECTS, "traefik", [(TRAEFIKSERVICES, "echo", STICKY), OBJECTS["traefik"][1]])
    steps = (CanaryStep(25, None), CanaryStep(75, None))
    spec = Spec("echo", "canary", images=V2, canary=Canary("echo", steps, "traefik", "echo"))

    async def story():
        async with site(user, "traefik") as (api, shop), shop.open():
            _, _, old = await shop.session()
            book = ConfigMapBook(api, NS, "echo")
            await book.begin(spec)
            async with at_work(Ours(api), "echo") as made:
                await rests(made, book, "paused")
                given = {version: cookie for _, version, cookie in [await shop.session() for _ in range(20)]}
                assert old and given["v1"] == old != given["v2"]
                assert (await kept_by(shop, old), await kept_by(shop, given["v2"])) == ({"v1"}, {"v2"}), "25 %"
                await ask_for(book, promoted=1)
                await rests(made, book, "paused")
                assert (await kept_by(shop, old), await kept_by(shop, given["v2"])) == ({"v1"}, {"v2"}), "75 %"
                await ask_for(book, **({"promoted": 2} if end == "done" else {"wish": "abort"}))
                await rests(made, book, end)
                left = {"v2"} if end == "done" else {"v1"}
                assert (await kept_by(shop, old), await kept_by(shop, given["v2"])) == (left, left)
                await asyncio.sleep(1.0)  # realtime: the clients go on a while without the pods that have ended
            assert shop.lost == []
            assert (await api.get(TRAEFIKSERVICES, "echo", NS))["spec"] == STICKY

    asyncio.run(story())
