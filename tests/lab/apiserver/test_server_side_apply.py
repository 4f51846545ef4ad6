"""Server-side apply over the wire shape: created, conflicting, forced, refused."""

from __future__ import annotations

import json
import random

from tidegate import vtime
from tidegate.kube.exchange import Request
from tidegate.lab.apiserver.server import ApiServer

PATH = "/api/v1/namespaces/default/configmaps"


class Client:
    def __init__(self):
        self.server = ApiServer(random.Random(0))

    async def send(self, method, path, body, kind="application/json", **query):
        headers = {"content-type": kind}
        request = Request(method, path, tuple(query.items()), headers, json.dumps(body).encode())
        response = await self.server.exchange(request)
        return response.status, json.loads(await response.read())

    async def apply(self, manager, data, **query):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s"}, "data": data}
        if manager:
            query["fieldManager"] = manager
        return await self.send("PATCH", f"{PATH}/s", body, "application/apply-patch+yaml", **query)


def story(steps):
    return vtime.run(steps(Client()))


def test_an_apply_of_nothing_creates():
    async def steps(client):
        status, obj = await client.apply("A", {"one": "1"})
        assert status == 201
        assert obj["metadata"]["managedFields"][0]["operation"] == "Apply"
        status, again = await client.apply("A", {"one": "1"})
        assert status == 200
        assert again == obj

    story(steps)


def test_a_conflict_names_the_owner_and_force_overrules_it():
    async def steps(client):
        await client.apply("A", {"one": "1"})
        status, failure = await client.apply("B", {"one": "2"})
        assert (status, failure["reason"]) == (409, "Conflict")
        assert failure["message"] == 'Apply failed with 1 conflict: conflict with "A": .data.one'
        assert failure["details"]["causes"][0]["reason"] == "FieldManagerConflict"
        status, obj = await client.apply("B", {"one": "2"}, force="true")
        assert (status, obj["data"]) == (200, {"one": "2"})
        assert [entry["manager"] for entry in obj["metadata"]["managedFields"]] == ["B"]

    story(steps)


def test_an_apply_needs_a_manager():
    async def steps(client):
        status, failure = await client.apply("", {"one": "1"})
        assert status == 422
        assert "is required for apply patch" in failure["message"]

    story(steps)


def test_a_dry_run_applies_nothing():
    async def steps(client):
        status, obj = await client.apply("A", {"one": "1"}, dryRun="All")
        assert (status, obj["data"]) == (201, {"one": "1"})
        status, _ = await client.send("GET", f"{PATH}/s", None)
        assert status == 404

    story(steps)


def test_writes_of_a_named_manager_are_tracked_and_others_cost_nothing():
    async def steps(client):
        obj = {"metadata": {"name": "s"}, "data": {"one": "1"}}
        _, made = await client.send("POST", PATH, obj, fieldManager="kubectl-create")
        assert made["metadata"]["managedFields"][0]["manager"] == "kubectl-create"
        patch = {"data": {"two": "2"}}
        _, changed = await client.send("PATCH", f"{PATH}/s", patch, "application/merge-patch+json")
        assert changed["metadata"]["managedFields"] == made["metadata"]["managedFields"]
        plain = {"metadata": {"name": "t"}}
        _, made = await client.send("POST", PATH, plain)
        assert "managedFields" not in made["metadata"]

    story(steps)
