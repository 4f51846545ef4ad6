"""An API server in trouble: whom it hits, with which answers, and for how long."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import msgspec
import pytest

from tidegate import vtime
from tidegate.kube.api import CONFIGMAPS, DEPLOYMENTS, NODES
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError
from tidegate.kube.exchange import Request
from tidegate.lab.config import LabConfig
from tidegate.lab.control import apply_fault, status_of
from tidegate.lab.faults import Fault
from tidegate.lab.virtual import VirtualLab

MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one", "namespace": "default"}}
PATH = "/api/v1/namespaces/default/configmaps"
PATCH = {"content-type": "application/merge-patch+json"}


def told(story, share=1.0, seconds=20.0):
    """What ``story(lab, client)`` comes to in a lab whose server is in trouble."""

    async def whole():
        async with VirtualLab(LabConfig(nodes=1)) as lab:
            client = KubeClient(lab.lab.exchange, "lab")
            await lab.api.create(CONFIGMAPS, MAP)
            await apply_fault(client, Fault("api-errors", "", seconds, share))
            return await story(lab, client)

    return vtime.run(whole())


async def answers(lab, count, method, path=PATH, body=b"", headers=None):
    found = []
    for _ in range(count):
        response = await lab.lab.exchange(Request(method, path, (), headers or {}, body))
        found.append((response.status, dict(response.headers), await response.read()))
    return found


def test_a_read_is_answered_429_500_or_503_as_a_real_server_words_them():
    async def story(lab, client):
        return await answers(lab, 60, "GET")

    seen = {}
    for status, headers, body in told(story):
        seen[status] = headers, body
    assert sorted(seen) == [429, 500, 503]
    headers, body = seen[429]
    assert (headers["retry-after"], headers["content-type"]) == ("1", "text/plain; charset=utf-8")
    assert body == b"Too many requests, please try again later.\n"
    headers, body = seen[500]
    assert "retry-after" not in headers
    assert json.loads(body)["message"] == "etcdserver: leader changed" and "reason" not in json.loads(body)
    headers, body = seen[503]
    assert headers["retry-after"] == "1" and json.loads(body)["reason"] == "ServiceUnavailable"


def test_a_change_is_answered_with_a_conflict_too_and_a_creation_is_not():
    async def story(lab, client):
        changed = await answers(lab, 60, "PATCH", f"{PATH}/one", b'{"data":{"a":"1"}}', PATCH)
        made = await answers(lab, 60, "POST", PATH, msgspec.json.encode({**MAP, "metadata": {"generateName": "x"}}))
        return changed, made

    changed, made = told(story)
    assert {status for status, _, _ in changed} == {409, 429, 500, 503}
    assert {status for status, _, _ in made} == {429, 500, 503}
    conflict = next(json.loads(body) for status, _, body in changed if status == 409)
    assert conflict["reason"] == "Conflict"
    assert conflict["message"] == (
        'Operation cannot be fulfilled on configmaps "one": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )


def test_a_write_that_timed_out_was_carried_out_and_no_other_was():
    async def story(lab, client):
        found = []
        for number in range(60):
            body = msgspec.json.encode({"data": {"at": str(number)}})
            [(_, _, text)] = await answers(lab, 1, "PATCH", f"{PATH}/one", body, PATCH)
            stands = ((await lab.api.get(CONFIGMAPS, "one", "default")).get("data") or {}).get("at") == str(number)
            found.append((b"request timed out" in text, stands))
        return found

    found = told(story)
    assert any(said for said, _ in found) and all(said == stands for said, stands in found)


def test_its_share_is_of_all_requests_and_the_same_seed_hits_the_same():
    async def story(lab, client):
        return [status for status, _, _ in await answers(lab, 400, "GET")]

    first, second = told(story, 0.3), told(story, 0.3)
    assert first == second
    assert 90 < sum(status != 200 for status in first) < 150
    assert min(Counter(first).values()) > 20


def test_it_ends_by_itself_and_when_it_is_cleared():
    async def story(lab, client):
        await asyncio.sleep(19)
        [fault] = (await status_of(client))["faults"]
        with pytest.raises(ApiError):
            await client.get(NODES, "node-1")
        await asyncio.sleep(1.1)
        await client.get(NODES, "node-1")
        await apply_fault(client, Fault("api-errors", "", 3600, 1.0))
        await apply_fault(client, Fault("clear", ""))
        await client.get(NODES, "node-1")
        return fault, (await status_of(client))["faults"]

    fault, left = told(story)
    assert fault == {"kind": "api-errors", "node": "", "seconds": pytest.approx(1.0, abs=0.1), "share": 1.0}
    assert left == []


def test_probes_long_requests_and_the_labs_own_parts_are_not_hit():
    async def story(lab, client):
        probes = await answers(lab, 10, "GET", "/readyz")
        logs = await answers(lab, 10, "GET", "/api/v1/namespaces/default/pods/none/log")
        await lab.api.create(DEPLOYMENTS, DEPLOYMENT)
        for _ in range(200):
            await asyncio.sleep(0.1)
            found = await lab.api.get(DEPLOYMENTS, "web", "default")
            if (found.get("status") or {}).get("readyReplicas") == 2:
                return probes, logs
        raise AssertionError(found)

    probes, logs = told(story, seconds=600)
    assert {status for status, _, _ in probes} == {200}
    assert {status for status, _, _ in logs} == {404}


def test_a_watch_that_is_open_goes_on_and_no_other_begins():
    async def story(lab, client):
        await apply_fault(client, Fault("clear", ""))
        watching = client.watch(CONFIGMAPS)
        seen = asyncio.ensure_future(anext(watching))
        await asyncio.sleep(0.1)
        await apply_fault(client, Fault("api-errors", "", 20, 1.0))
        await seen
        with pytest.raises(ApiError):
            await anext(client.watch(CONFIGMAPS))

    told(story)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("api-errors", "node-1", 20, 0.3), "names no node"),
        (Fault("api-errors", "", 20, 0.0), "share must be more than 0"),
        (Fault("api-errors", "", 20, 1.5), "share must be more than 0"),
        (Fault("api-errors", "", -1, 0.5), "seconds must be"),
        (Fault("proxy-freeze", "node-1", 20, 0.5), "has no share"),
        (Fault("proxy-freeze", "", 20), "no node ''"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_changes_nothing(fault, words):
    async def story(lab, client):
        before = (await status_of(client))["faults"][0]["share"]
        with pytest.raises(ApiError, match=words):
            await apply_fault(client, fault)
        assert [one["share"] for one in (await status_of(client))["faults"]] == [before]

    told(story)


DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "echo", "image": "tidegate/echo:v1"}]},
        },
    },
}
