"""Watch: where a stream starts, what selectors turn a change into, when it ends."""

from __future__ import annotations

import asyncio

from tidegate.kube.api import PODS, Patch, Selection
from tidegate.lab.apiserver import store

from .api_world import CONFIGMAP, POD, World, configmap, pod, story


def test_a_watch_without_a_version_tells_what_is_and_then_what_happens():
    async def tell(world: World) -> None:
        await world.create(CONFIGMAP, configmap("a"))
        watch = await world.watch(CONFIGMAP)
        assert await watch.names(1) == [("ADDED", "a")]
        await world.patch(f"{CONFIGMAP}/a", {"data": {"x": "1"}})
        await world.delete(f"{CONFIGMAP}/a")
        assert await watch.names(2) == [("MODIFIED", "a"), ("DELETED", "a")]

    story(tell)


def test_a_watch_from_a_version_misses_and_repeats_nothing():
    async def tell(world: World) -> None:
        await world.create(CONFIGMAP, configmap("a"))
        version = (await world.get(CONFIGMAP))["metadata"]["resourceVersion"]
        await world.create(CONFIGMAP, configmap("b"))
        watch = await world.watch(f"{CONFIGMAP}?resourceVersion={version}")
        await world.create(CONFIGMAP, configmap("c"))
        assert await watch.names(2) == [("ADDED", "b"), ("ADDED", "c")]

    story(tell)


def test_leaving_a_selector_is_a_deletion_that_shows_the_labels_before_and_the_version_after():
    async def tell(world: World) -> None:
        await world.create(POD, pod())
        watch = await world.watch(f"{POD}?labelSelector=app%3Dweb")
        await watch.next()
        cut = await world.patch(f"{POD}/p", {"metadata": {"labels": {"app": "cut"}}})
        kind, obj = await watch.next()
        assert kind == "DELETED"
        assert obj["metadata"]["labels"] == {"app": "web"}
        assert obj["metadata"]["resourceVersion"] == cut["metadata"]["resourceVersion"]
        await world.patch(f"{POD}/p", {"metadata": {"labels": {"app": "web"}}})
        assert await watch.names(1) == [("ADDED", "p")]

    story(tell)


def test_a_field_selector_follows_one_nodes_pods():
    async def tell(world: World) -> None:
        watch = await world.watch("/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1")
        for name, node in (("a", "node-2"), ("b", "node-1")):
            await world.create(POD, pod(name))
            await world.schedule(name, node)
        kind, obj = await watch.next()
        assert (kind, obj["metadata"]["name"], obj["spec"]["nodeName"]) == ("ADDED", "b", "node-1")

    story(tell)


def test_a_version_older_than_the_history_is_gone(monkeypatch):
    monkeypatch.setattr(store, "HISTORY_LENGTH", 3)

    async def tell(world: World) -> None:
        made = await world.create(CONFIGMAP, configmap("a"))
        for number in range(5):
            await world.patch(f"{CONFIGMAP}/a", {"data": {"x": str(number)}})
        version = made["metadata"]["resourceVersion"]
        watch = await world.watch(f"{CONFIGMAP}?resourceVersion={version}")
        [(kind, status)] = await watch.rest()
        assert (kind, status["code"], status["reason"]) == ("ERROR", 410, "Expired")
        assert status["message"].startswith(f"too old resource version: {version} (")

    story(tell)


def test_a_version_from_a_former_life_of_the_lab_is_gone_too():
    async def tell(world: World) -> None:
        watch = await world.watch(f"{CONFIGMAP}?resourceVersion=999999")
        [(kind, status)] = await watch.rest()
        assert (kind, status["code"]) == ("ERROR", 410)

    story(tell)


def test_a_watch_list_ends_its_initial_events_with_a_bookmark():
    async def tell(world: World) -> None:
        await world.create(CONFIGMAP, configmap("a"))
        query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        watch = await world.watch(f"{CONFIGMAP}?{query}")
        assert await watch.names(1) == [("ADDED", "a")]
        kind, obj = await watch.next()
        assert (kind, obj["kind"], obj["apiVersion"]) == ("BOOKMARK", "ConfigMap", "v1")
        assert obj["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        await world.create(CONFIGMAP, configmap("b"))
        assert await watch.names(1) == [("ADDED", "b")]

    story(tell)


def test_a_watch_list_without_its_match_is_invalid():
    async def tell(world: World) -> None:
        answer = await world.ask("GET", f"{CONFIGMAP}?watch=true&sendInitialEvents=true")
        assert (answer.status, answer.reason) == (422, "Invalid")
        assert (await world.ask("GET", f"{CONFIGMAP}?sendInitialEvents=true")).status == 422

    story(tell)


def test_bookmarks_come_each_minute_and_before_the_end():
    async def tell(world: World) -> None:
        loop = asyncio.get_running_loop()
        watch = await world.watch(f"{CONFIGMAP}?allowWatchBookmarks=true&timeoutSeconds=130&resourceVersion=2")
        begun = loop.time()
        assert [kind for kind, _ in await watch.rest()] == ["BOOKMARK"] * 3
        assert 128 <= loop.time() - begun <= 130

    story(tell)


def test_without_bookmarks_a_watch_ends_silently_at_its_timeout():
    async def tell(world: World) -> None:
        loop = asyncio.get_running_loop()
        watch = await world.watch(f"{CONFIGMAP}?timeoutSeconds=10&resourceVersion=2")
        begun = loop.time()
        assert await watch.rest() == []
        assert loop.time() - begun == 10

    story(tell)


def test_a_closed_watch_is_forgotten():
    async def tell(world: World) -> None:
        watch = await world.watch(CONFIGMAP)
        await world.create(CONFIGMAP, configmap("a"))
        await watch.next()
        row = world.server.registry.named("", "configmaps")
        assert len(world.server.verbs.store.collection(row).watchers) == 1
        await watch.close()
        assert not world.server.verbs.store.collection(row).watchers

    story(tell)


def test_a_reader_that_never_reads_is_ended_not_waited_for(monkeypatch):
    from tidegate.lab.apiserver import watchers

    monkeypatch.setattr(watchers, "QUEUE_LENGTH_MAX", 5)

    async def tell(world: World) -> None:
        watch = await world.watch(CONFIGMAP)
        for number in range(8):
            await world.create(CONFIGMAP, configmap(f"m{number}"))
        assert len(await watch.rest()) <= 5

    story(tell)


def test_a_watch_in_the_process_sees_the_same_transitions():
    async def tell(world: World) -> None:
        await world.create(POD, pod())
        events = world.api.watch(PODS, Selection("default", "app=web"))
        assert (await anext(events)).type == "ADDED"
        await world.api.patch(PODS, "p", Patch({"metadata": {"labels": {"app": "cut"}}}), "default")
        gone = await anext(events)
        assert (gone.type, gone.object["metadata"]["labels"]) == ("DELETED", {"app": "web"})
        await events.aclose()

    story(tell)


def test_a_pod_that_changes_nodes_leaves_one_watch_and_enters_the_other():
    async def tell(world: World) -> None:
        await world.create(POD, pod())
        unplaced = await world.watch("/api/v1/pods?fieldSelector=spec.nodeName%3D")
        assert await unplaced.names(1) == [("ADDED", "p")]
        placed = await world.watch("/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1")
        named = await world.watch(f"{POD}?fieldSelector=metadata.name%3Dp&resourceVersion=2")
        await world.schedule("p")
        await world.delete(f"{POD}/p", {"gracePeriodSeconds": 0})
        assert await unplaced.names(1) == [("DELETED", "p")]
        assert await placed.names(3) == [("ADDED", "p"), ("MODIFIED", "p"), ("DELETED", "p")]
        assert await named.names(4) == [("ADDED", "p"), ("MODIFIED", "p"), ("MODIFIED", "p"), ("DELETED", "p")]
        row = world.server.registry.named("", "pods")
        for watch in (unplaced, placed, named):
            await watch.close()
        assert len(world.server.verbs.store.collection(row).watchers) == 0

    story(tell)
