"""Lists: selectors, versions, pages, and the shapes an answer takes."""

from __future__ import annotations

import re

import pytest

from tidegate.kube.api import PODS, Selection
from tidegate.lab.apiserver import store
from tidegate.lab.apiserver.selectors import BadSelector, parse_labels

from .api_world import CONFIGMAP, POD, TABLE, World, configmap, pod, story


@pytest.mark.parametrize(
    ("selector", "matching"),
    [
        ("app=web", "a"),
        ("app==web", "a"),
        ("app!=web", "b c"),
        ("app in (web, db)", "a b"),
        ("app notin (web)", "b c"),
        ("app", "a b"),
        ("!app", "c"),
        ("app,tier=front", "a"),
        ("n>1", "b"),
        ("n<2", "a"),
        ("app in (web,db),!tier", "b"),
        ("app=", ""),
    ],
)
def test_label_selectors_choose(selector, matching):
    async def tell(world: World) -> None:
        for name, labels in (
            ("a", {"app": "web", "tier": "front", "n": "1"}),
            ("b", {"app": "db", "n": "2"}),
            ("c", {}),
        ):
            await world.create(POD, pod(name, labels))
        listed = await world.api.list(PODS, Selection("default", selector))
        assert " ".join(item["metadata"]["name"] for item in listed.items) == matching

    story(tell)


@pytest.mark.parametrize(
    ("selector", "complaint"),
    [
        ("app in web", "unable to parse requirement: found 'web' expected: '('"),
        ("app=web,", "found '', expected: identifier after ','"),
        ("=web", "found '=', expected: !, identifier, or 'end of string'"),
        ("app ~ web", "unable to parse requirement: found '~', expected: in, notin, =, ==, !=, gt, lt"),
        ("app=-", "Invalid value"),
    ],
)
def test_a_bad_label_selector_says_where(selector, complaint):
    with pytest.raises(BadSelector, match=re.escape(complaint)):
        parse_labels(selector)


def test_an_unknown_field_label_is_a_bad_request():
    async def tell(world: World) -> None:
        answer = await world.ask("GET", f"{POD}?fieldSelector=spec.foo%3Dx")
        assert (answer.status, answer.message) == (400, "field label not supported: spec.foo")

    story(tell)


def test_field_selectors_choose_by_phase_node_and_name():
    async def tell(world: World) -> None:
        for name in ("a", "b"):
            await world.create(POD, pod(name))
        await world.schedule("a")
        await world.patch(f"{POD}/a/status", {"status": {"phase": "Running"}})

        async def names(fields: str) -> list[str]:
            found = await world.get(f"{POD}?fieldSelector={fields}")
            return [item["metadata"]["name"] for item in found["items"]]

        assert await names("status.phase=Running") == ["a"]
        assert await names("status.phase!=Running") == ["b"]
        assert await names("spec.nodeName=node-1,status.phase!=Failed") == ["a"]
        assert await names("metadata.name=b,") == ["b"]
        assert await names("metadata.name=a,metadata.name=b") == []
        assert await names("spec.hostNetwork=false") == ["a", "b"]

    story(tell)


def test_pages_show_the_state_of_the_first_one():
    async def tell(world: World) -> None:
        for name in "abcde":
            await world.create(CONFIGMAP, configmap(name))
        first = await world.get(f"{CONFIGMAP}?limit=2")
        assert first["metadata"]["remainingItemCount"] == 3
        await world.delete(f"{CONFIGMAP}/c")
        await world.patch(f"{CONFIGMAP}/d", {"data": {"new": "1"}})
        await world.create(CONFIGMAP, configmap("bb"))
        second = await world.get(f"{CONFIGMAP}?limit=2&continue={first['metadata']['continue']}")
        assert [item["metadata"]["name"] for item in second["items"]] == ["c", "d"]
        assert "new" not in second["items"][1].get("data", {})
        assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        last = await world.get(f"{CONFIGMAP}?limit=2&continue={second['metadata']['continue']}")
        assert [item["metadata"]["name"] for item in last["items"]] == ["e"]
        assert "continue" not in last["metadata"]

    story(tell)


def test_a_page_of_a_forgotten_state_is_gone(monkeypatch):
    monkeypatch.setattr(store, "HISTORY_LENGTH", 2)

    async def tell(world: World) -> None:
        for name in "abc":
            await world.create(CONFIGMAP, configmap(name))
        token = (await world.get(f"{CONFIGMAP}?limit=1"))["metadata"]["continue"]
        for number in range(4):
            await world.patch(f"{CONFIGMAP}/a", {"data": {"x": str(number)}})
        answer = await world.ask("GET", f"{CONFIGMAP}?limit=1&continue={token}")
        assert (answer.status, answer.reason) == (410, "Expired")

    story(tell)


def test_a_list_ahead_of_the_server_times_out_with_a_cause():
    async def tell(world: World) -> None:
        answer = await world.ask("GET", f"{CONFIGMAP}?resourceVersion=99999&resourceVersionMatch=NotOlderThan")
        assert (answer.status, answer.reason) == (504, "Timeout")
        assert answer.body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
        assert answer.headers["retry-after"] == "1"

    story(tell)


def test_exactly_that_version_shows_the_past():
    async def tell(world: World) -> None:
        await world.create(CONFIGMAP, configmap("a"))
        version = (await world.get(CONFIGMAP))["metadata"]["resourceVersion"]
        await world.create(CONFIGMAP, configmap("b"))
        past = await world.get(f"{CONFIGMAP}?resourceVersion={version}&resourceVersionMatch=Exact")
        assert [item["metadata"]["name"] for item in past["items"]] == ["a"]
        assert (await world.ask("GET", f"{CONFIGMAP}?resourceVersionMatch=Exact")).status == 422

    story(tell)


def test_lists_of_all_namespaces_are_in_key_order():
    async def tell(world: World) -> None:
        for namespace in ("kube-system", "default"):
            for name in ("b", "a"):
                await world.create(f"/api/v1/namespaces/{namespace}/configmaps", configmap(name))
        found = await world.get("/api/v1/configmaps")
        keys = [(item["metadata"]["namespace"], item["metadata"]["name"]) for item in found["items"]]
        assert keys == sorted(keys)

    story(tell)


def test_a_table_is_printed_for_who_asks():
    async def tell(world: World) -> None:
        await world.create(POD, pod())
        table = await world.get(POD, accept=TABLE)
        assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
        assert table["metadata"]["resourceVersion"]
        assert table["columnDefinitions"][0]["name"] == "Name"
        [row] = table["rows"]
        assert row["cells"][:3] == ["p", "0/1", "Pending"]
        assert row["object"]["kind"] == "PartialObjectMetadata"
        one = await world.get(f"{POD}/p?includeObject=Object", accept=TABLE)
        assert one["rows"][0]["object"]["kind"] == "Pod"

    story(tell)


def test_metadata_alone_is_sent_to_who_asks():
    async def tell(world: World) -> None:
        await world.create(POD, pod())
        accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
        found = await world.get(POD, accept=accept)
        assert found["kind"] == "PartialObjectMetadataList"
        assert found["items"][0].keys() == {"kind", "apiVersion", "metadata"}

    story(tell)


def test_protobuf_offers_are_answered_in_json():
    async def tell(world: World) -> None:
        found = await world.get(POD, accept="application/vnd.kubernetes.protobuf,application/json")
        assert found["kind"] == "PodList"

    story(tell)
