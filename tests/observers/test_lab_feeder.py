"""The lab's feeder: what it makes of Ingresses, Services and slices, and how an Envoy's files come to be."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import pytest
import yaml
from stage import NS, first, play

from tidegate.kube.api import ENDPOINTSLICES, INGRESSES, SERVICES
from tidegate.kube.reflector import Reflector
from tidegate.observers.config import ConfigError, parse
from tidegate.rehearse.ingress import KINDS, composed, manifests
from tidegate.rehearse.ingress.fed_envoy import FedEnvoy
from tidegate.rehearse.ingress.feeder import Feeder
from tidegate.rehearse.ingress.sites import Member, Sites


def rule(host, service, port):
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": service, "port": port}}}
    return {"http": {"paths": [path]}, **({"host": host} if host else {})}


def an_ingress(name, class_name, *rules):
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": NS},
        "spec": {"ingressClassName": class_name, "rules": list(rules)},
    }


class Recorded:
    """A proxy that remembers what it was told, and is away for its first two passes."""

    def __init__(self, away=0):
        self.told, self.away = [], away

    async def apply(self, sites):
        if self.away:
            self.away -= 1
            raise OSError("not yet")
        self.told.append(sites)


@contextlib.asynccontextmanager
async def feeding(stage, fed):
    watches = [Reflector(stage.api, one) for one in (INGRESSES, SERVICES, ENDPOINTSLICES)]
    said = []
    tasks = [asyncio.ensure_future(one.run()) for one in watches]
    tasks.append(asyncio.ensure_future(Feeder("envoy", fed, tuple(watches)).run(said.append)))
    await asyncio.sleep(1.0)
    try:
        yield said
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def fed(story, away=0):
    async def whole(stage):
        rules = (rule("a.example", "echo", {"number": 8080}), rule("", "echo", {"name": "http"}))
        await stage.api.create(INGRESSES, an_ingress("ours", "envoy", *rules))
        await stage.api.create(INGRESSES, an_ingress("theirs", "nginx", rule("b.example", "echo", {"number": 8080})))
        proxy = Recorded(away)
        async with feeding(stage, proxy) as said:
            return await story(stage, proxy, said)

    return play(whole)


def test_ingresses_of_its_class_become_hosts_and_ports_are_found_by_number_and_by_name():
    async def story(stage, proxy, said):
        return proxy.told[-1]

    sites = fed(story)
    assert dict(sites.backends) == {"a.example": "demo/echo:http", "any": "demo/echo:http"}
    [members] = sites.members.values()
    assert len(members) == 3 and {one.port for one in members} == {8080} and not any(one.is_ending for one in members)
    assert len(sites.fence) <= 1


def test_a_pod_that_terminates_and_serves_is_told_apart_and_every_pass_has_the_fence_of_its_moment():
    async def story(stage, proxy, said):
        await stage.delete(await first(stage))
        await asyncio.sleep(0.6)
        during = proxy.told[-1]
        await asyncio.sleep(6.0)
        return during, proxy.told

    during, told = fed(story)
    [members] = during.members.values()
    assert [one.is_ending for one in members].count(True) == 1
    fences = [one.fence[0].port for one in told if one.fence]
    assert fences == sorted(fences) and len(set(fences)) > 1
    assert not any(member.is_ending for member in told[-1].members["demo/echo:http"])


def test_while_the_proxy_is_away_it_tries_again_and_says_so_once():
    async def story(stage, proxy, said):
        await asyncio.sleep(1.0)
        return proxy.told, said

    told, said = fed(story, away=3)
    assert told and said == ["the proxy cannot be told: not yet"]


async def test_envoys_files_are_replaced_whole_and_the_fences_last(tmp_path, monkeypatch):
    renamed = []
    real = Path.rename

    def rename(self, target):
        json.loads(self.read_text())
        renamed.append(target.name)
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    envoy = FedEnvoy(tmp_path)
    pods = (Member("10.0.0.1", 8080), Member("10.0.0.2", 8080, is_ending=True))
    fence = (Member("198.18.0.1", 7),)
    await envoy.apply(Sites({"any": "demo/echo:http"}, {"demo/echo:http": pods}, fence))
    assert renamed[-1] == "eds-tidegate-system_tidegate-fence-main_fence.json"
    assert renamed.index("eds-demo_echo_http.json") < renamed.index("cds.json") < renamed.index("rds.json")
    [assignment] = json.loads((tmp_path / "eds-demo_echo_http.json").read_text())["resources"]
    health = [one["health_status"] for one in assignment["endpoints"][0]["lb_endpoints"]]
    assert health == ["HEALTHY", "DRAINING"]
    renamed.clear()
    await envoy.apply(Sites({"any": "demo/echo:http"}, {"demo/echo:http": pods}, (Member("198.18.0.1", 8),)))
    assert renamed == ["eds-tidegate-system_tidegate-fence-main_fence.json"], "what is the same is not written again"


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_brings_its_observer_beside_those_of_the_user(kind):
    own = "observers: [{name: mine, kind: http, where: {addresses: ['10.0.0.1:1']}, options: {path: /}}]"
    mine, added = parse(composed(own, kind))
    assert (mine.name, added.kind, added.service) == ("mine", kind.name, f"{kind.namespace}/{kind.workload}")
    assert f"ingressclass/{kind.name}" in added.observer.covers
    with pytest.raises(ConfigError, match="two observers"):
        parse(composed(yaml.safe_dump({"observers": [kind.observer()]}), kind))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_is_fed_by_us_says_so_wherever_it_is_listed(kind, monkeypatch):
    monkeypatch.setattr(type(kind), "path", lambda self: f"/bin/{self.program}")
    made = manifests(kind, "http://127.16.0.1:6443", "/state", {})
    [deployment] = [one for one in made if one["kind"] == "Deployment"]
    names = [one["name"] for one in deployment["spec"]["template"]["spec"]["containers"]]
    if kind.name == "traefik":
        assert names == ["traefik"] and deployment["metadata"]["name"] == "traefik"
        assert any(one["kind"] == "Ingress" and one["metadata"]["name"] == "tidegate-fence" for one in made)
    else:
        assert names == [kind.name, "lab-feeder"] and "lab-feeder" in deployment["metadata"]["name"]
        assert "no ingress controller" in kind.label
