"""Delete: grace, finalizers, preconditions, namespaces."""

from __future__ import annotations

import asyncio

from .api_world import CONFIGMAP, DEPLOYMENT, POD, World, configmap, deployment, pod, story


def test_a_running_pod_is_given_its_grace_period():
    async def tell(world: World) -> None:
        await world.create(POD, pod(terminationGracePeriodSeconds=12))
        await world.schedule("p")
        watch = await world.watch(POD)
        await watch.next()
        going = (await world.delete(f"{POD}/p"))["metadata"]
        assert going["deletionTimestamp"] == "2026-01-01T00:00:12Z"
        assert (going["deletionGracePeriodSeconds"], going["generation"]) == (12, 2)
        await asyncio.sleep(3)
        gone = await world.delete(f"{POD}/p", {"gracePeriodSeconds": 0})
        assert gone["metadata"]["deletionGracePeriodSeconds"] == 0
        assert gone["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:03Z"
        assert await watch.names(3) == [("MODIFIED", "p"), ("MODIFIED", "p"), ("DELETED", "p")]
        assert (await world.ask("GET", f"{POD}/p")).status == 404

    story(tell)


def test_grace_can_only_be_shortened():
    async def tell(world: World) -> None:
        await world.create(POD, pod())
        await world.schedule("p")
        first = await world.delete(f"{POD}/p", {"gracePeriodSeconds": 20})
        assert await world.delete(f"{POD}/p", {"gracePeriodSeconds": 60}) == first
        assert await world.delete(f"{POD}/p") == first
        shorter = await world.delete(f"{POD}/p", {"gracePeriodSeconds": 5})
        assert shorter["metadata"]["deletionGracePeriodSeconds"] == 5
        assert shorter["metadata"]["generation"] == 2

    story(tell)


def test_a_pod_nobody_runs_goes_at_once():
    async def tell(world: World) -> None:
        await world.create(POD, pod("unscheduled"))
        await world.delete(f"{POD}/unscheduled")
        await world.create(POD, pod("ended"))
        await world.schedule("ended")
        await world.patch(f"{POD}/ended/status", {"status": {"phase": "Succeeded"}})
        await world.delete(f"{POD}/ended")
        assert (await world.get(POD))["items"] == []

    story(tell)


def test_a_negative_period_means_one_second():
    async def tell(world: World) -> None:
        await world.create(POD, pod())
        await world.schedule("p")
        assert (await world.delete(f"{POD}/p", {"gracePeriodSeconds": -1}))["metadata"][
            "deletionGracePeriodSeconds"
        ] == 1

    story(tell)


def test_preconditions_protect_a_successor():
    async def tell(world: World) -> None:
        made = await world.create(CONFIGMAP, configmap())
        wrong = await world.ask("DELETE", f"{CONFIGMAP}/m", {"preconditions": {"uid": "another"}})
        assert (wrong.status, wrong.reason) == (409, "Conflict")
        await world.patch(f"{CONFIGMAP}/m", {"data": {"a": "1"}})
        stale = {"preconditions": {"resourceVersion": made["metadata"]["resourceVersion"]}}
        assert (await world.ask("DELETE", f"{CONFIGMAP}/m", stale)).status == 409
        uid = {"preconditions": {"uid": made["metadata"]["uid"]}}
        assert (await world.delete(f"{CONFIGMAP}/m", uid))["status"] == "Success"

    story(tell)


def test_the_answer_is_a_status_or_the_object_as_the_real_server_has_it():
    async def tell(world: World) -> None:
        made = await world.create(DEPLOYMENT, deployment())
        gone = await world.delete(f"{DEPLOYMENT}/d")
        assert gone["kind"] == "Status"
        details = {"name": "d", "group": "apps", "kind": "deployments", "uid": made["metadata"]["uid"]}
        assert gone["details"] == details
        await world.create(POD, pod())
        assert (await world.delete(f"{POD}/p"))["kind"] == "Pod"

    story(tell)


def test_finalizers_hold_an_object_until_the_last_is_gone():
    async def tell(world: World) -> None:
        held = configmap()
        held["metadata"]["finalizers"] = ["a.io/b"]
        await world.create(CONFIGMAP, held)
        going = await world.delete(f"{CONFIGMAP}/m")
        assert going["metadata"]["deletionTimestamp"]
        more = {"metadata": {"finalizers": ["a.io/b", "c.io/d"]}}
        answer = await world.ask("PATCH", f"{CONFIGMAP}/m", more, content_type="application/merge-patch+json")
        assert answer.status == 422
        watch = await world.watch(CONFIGMAP)
        await watch.next()
        await world.patch(f"{CONFIGMAP}/m", {"metadata": {"finalizers": None}})
        assert await watch.names(1) == [("DELETED", "m")]

    story(tell)


def test_a_pod_with_finalizers_outlives_its_kubelets_last_word():
    async def tell(world: World) -> None:
        held = pod()
        held["metadata"]["finalizers"] = ["a.io/b"]
        await world.create(POD, held)
        await world.schedule("p")
        await world.delete(f"{POD}/p")
        await world.delete(f"{POD}/p", {"gracePeriodSeconds": 0})
        assert (await world.get(f"{POD}/p"))["metadata"]["deletionGracePeriodSeconds"] == 0
        await world.patch(f"{POD}/p", {"metadata": {"finalizers": []}})
        assert (await world.ask("GET", f"{POD}/p")).status == 404

    story(tell)


def test_propagation_leaves_word_for_the_garbage_collector():
    async def tell(world: World) -> None:
        for name, policy, finalizer in (("o", "Orphan", "orphan"), ("f", "Foreground", "foregroundDeletion")):
            await world.create(DEPLOYMENT, deployment(name))
            going = await world.delete(f"{DEPLOYMENT}/{name}", {"propagationPolicy": policy})
            assert going["metadata"]["finalizers"] == [finalizer]
            assert going["metadata"]["generation"] == 2
        await world.create(DEPLOYMENT, deployment("b"))
        assert (await world.delete(f"{DEPLOYMENT}/b", {"propagationPolicy": "Background"}))["kind"] == "Status"

    story(tell)


def test_a_collection_is_deleted_by_selector():
    async def tell(world: World) -> None:
        for name, app in (("a", "web"), ("b", "web"), ("c", "db")):
            await world.create(POD, pod(name, {"app": app}))
        await world.delete(f"{POD}?labelSelector=app%3Dweb")
        assert [item["metadata"]["name"] for item in (await world.get(POD))["items"]] == ["c"]

    story(tell)


def test_a_namespace_terminates_takes_no_more_content_and_goes_when_finalized():
    async def tell(world: World) -> None:
        made = await world.create("/api/v1/namespaces", {"metadata": {"name": "x"}})
        assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": "x"}
        going = await world.delete("/api/v1/namespaces/x")
        assert going["status"]["phase"] == "Terminating"
        answer = await world.ask("POST", "/api/v1/namespaces/x/configmaps", configmap())
        assert answer.status == 403
        assert answer.message == (
            'configmaps "m" is forbidden: unable to create new content in namespace x because it is being terminated'
        )
        assert answer.body["details"]["causes"][0]["reason"] == "NamespaceTerminating"
        going["spec"] = {}
        await world.ask("PUT", "/api/v1/namespaces/x/finalize", going)
        assert (await world.ask("GET", "/api/v1/namespaces/x")).status == 404

    story(tell)


def test_the_first_namespaces_may_not_be_deleted():
    async def tell(world: World) -> None:
        answer = await world.ask("DELETE", "/api/v1/namespaces/default")
        assert (answer.status, answer.reason) == (403, "Forbidden")

    story(tell)
