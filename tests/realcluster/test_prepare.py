"""``prepare`` against kube-controller-manager: what a Deployment that is labelled in place does then, and later."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from tests.realcluster.fake_kubelet import fake_kubelet
from tests.realcluster.objects import service
from tests.realcluster.stories_controllers import image, web

from tidegate.client.prepare.plan import PrepareOptions
from tidegate.client.prepare.run import prepare_service
from tidegate.client.prepare.scene import About
from tidegate.kube.api import DEPLOYMENTS, ENDPOINTSLICES, NAMESPACES, PODS, REPLICASETS, SERVICES, Patch, Selection
from tidegate.kube.connect import open_api

pytestmark = pytest.mark.realcluster

KEY = "traffic.tidegate.dev/web"
OF_WEB = "kubernetes.io/service-name=web"
REVISION = "deployment.kubernetes.io/revision"
IN_PLACE = PrepareOptions(in_place=True, timeout_seconds=60, settle_seconds=1, seed=1)
ABORT = PrepareOptions(is_abort=True, timeout_seconds=60, settle_seconds=1, seed=2)
PASSING = ("resourceVersion", "managedFields", "generation")


class Side:
    """A Deployment and its Service in a namespace of their own on the real API server."""

    def __init__(self, api, namespace):
        self.api, self.namespace = api, namespace
        self.about = About(namespace, "web", ("web",))
        self.lost = []

    async def list(self, resource):
        return (await self.api.list(resource, Selection(self.namespace))).items

    async def deployment(self):
        return await self.api.get(DEPLOYMENTS, "web", self.namespace)

    async def patch(self, resource, name, body, style="merge"):
        return await self.api.patch(resource, name, Patch(body, style), self.namespace)

    async def prepare(self, options):
        return await prepare_service(self.api, self.about, options)

    async def complete(self, replicas):
        async with asyncio.timeout(20):
            while True:
                found = await self.deployment()
                status = found.get("status") or {}
                counts = {status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")}
                is_seen = status.get("observedGeneration") == found["metadata"]["generation"]
                pods = await self.list(PODS)
                if is_seen and counts == {replicas} and len(pods) == replicas:
                    return
                await asyncio.sleep(0.1)

    async def ready(self):
        """Names in the slices of the Service, as ready."""
        return {
            endpoint["targetRef"]["name"]
            for one in (await self.api.list(ENDPOINTSLICES, Selection(self.namespace, OF_WEB))).items
            for endpoint in one.get("endpoints") or ()
            if endpoint["conditions"].get("ready")
        }

    async def film(self):
        """Every moment at which a pod that was ready, and still is, was not listed any more."""
        known, slices = set(), {}
        async for event in self.api.watch(ENDPOINTSLICES, Selection(self.namespace, OF_WEB)):
            listed = event.object.get("endpoints") or () if event.type != "DELETED" else ()
            slices[event.object["metadata"]["name"]] = listed
            names = {e["targetRef"]["name"] for one in slices.values() for e in one if e["conditions"]["ready"]}
            for name in known - names:
                with contextlib.suppress(Exception):
                    pod = await self.api.get(PODS, name, self.namespace)
                    if "deletionTimestamp" not in pod["metadata"]:
                        self.lost.append(name)
            known |= names

    async def everything(self):
        """All that stands, without what every write changes."""
        found = {}
        for resource in (DEPLOYMENTS, REPLICASETS, PODS, SERVICES):
            for obj in await self.list(resource):
                meta = {key: value for key, value in obj["metadata"].items() if key not in PASSING}
                found[f"{obj['kind']} {meta['name']}"] = {"metadata": meta, "spec": obj["spec"]}
        return found


@contextlib.asynccontextmanager
async def staged(plane, name, **spec):
    namespace = f"prepare-{name}"
    async with open_api(kubeconfig=str(plane.kubeconfig)) as api:
        await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        async with fake_kubelet(api, namespace):
            side = Side(api, namespace)
            await api.create(SERVICES, service("web"), namespace)
            await api.create(DEPLOYMENTS, web(replicas=3, **spec), namespace)
            await side.complete(3)
            async with asyncio.timeout(20):
                while len(await side.ready()) != 3:
                    await asyncio.sleep(0.1)
            filming = asyncio.create_task(side.film())
            try:
                yield side
                assert side.lost == []
            finally:
                filming.cancel()


def play(plane, name, story, **spec):
    async def whole():
        async with staged(plane, name, **spec) as side:
            await story(side)

    asyncio.run(whole())


def template_labels(obj):
    return obj["spec"]["template"]["metadata"]["labels"]


def test_in_place_nothing_is_rolled_out_and_nothing_is_left_behind(real_cluster):
    async def story(side):
        before = await side.everything()
        result = await side.prepare(IN_PLACE)
        assert result.result == "prepared", result
        await asyncio.sleep(2)
        after = await side.everything()
        assert after.keys() == before.keys()
        changed = json.loads(json.dumps(before))
        for name, obj in changed.items():
            if name.startswith("Service"):
                obj["spec"]["selector"][KEY] = "on"
                obj["metadata"]["annotations"] = after[name]["metadata"]["annotations"]
            elif name.startswith("Pod"):
                obj["metadata"]["labels"][KEY] = "on"
            else:
                template_labels(obj)[KEY] = "on"
        assert after == changed
        status = {one["type"]: one["reason"] for one in (await side.deployment())["status"]["conditions"]}
        assert status["Progressing"] == "NewReplicaSetAvailable"
        # And back, byte for byte.
        assert (await side.prepare(ABORT)).result == "aborted"
        await asyncio.sleep(2)
        assert await side.everything() == before

    play(real_cluster, "in-place", story)


def test_in_place_what_comes_later_is_as_ever(real_cluster):
    """Pods of a scale-up have the label, a rollout rolls out, a rollback comes back, the same manifest changes
    nothing."""

    async def story(side):
        await side.prepare(IN_PLACE)
        await side.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 5}})
        await side.complete(5)
        assert all(pod["metadata"]["labels"][KEY] == "on" for pod in await side.list(PODS))
        await side.patch(DEPLOYMENTS, "web", image(2), "strategic")
        await side.complete(5)
        assert (await side.deployment())["metadata"]["annotations"][REVISION] == "2"
        assert {template_labels(one).get(KEY) for one in await side.list(REPLICASETS)} == {"on"}
        first = next(o for o in await side.list(REPLICASETS) if o["metadata"]["annotations"][REVISION] == "1")
        await undo(side, first)
        await side.complete(5)
        found = await side.list(REPLICASETS)
        assert {one["metadata"]["name"]: one["spec"]["replicas"] for one in found}[first["metadata"]["name"]] == 5
        assert len(found) == 2
        async with asyncio.timeout(10):
            while len(await side.ready()) != 5:
                await asyncio.sleep(0.1)

    play(real_cluster, "later", story)


async def undo(side, replicaset):
    """As `kubectl rollout undo` does it: the template without its hash, and the annotations of the ReplicaSet."""
    template = json.loads(json.dumps(replicaset["spec"]["template"]))
    template["metadata"]["labels"].pop("pod-template-hash")
    body = [{"op": "replace", "path": "/spec/template", "value": template}]
    await side.patch(DEPLOYMENTS, "web", body, "json")


@pytest.mark.parametrize("in_place", [True, False], ids=["in-place", "rollout"])
def test_a_rollback_to_any_older_revision_stays_in_the_service(real_cluster, in_place):
    async def story(side):
        for tag in (2, 3):
            await side.patch(DEPLOYMENTS, "web", image(tag), "strategic")
            await side.complete(3)
        before = {one["metadata"]["name"] for one in await side.list(REPLICASETS)}
        assert len(before) == 3
        await side.prepare(PrepareOptions(in_place=in_place, timeout_seconds=60, settle_seconds=1, seed=1))
        assert {one["metadata"]["name"] for one in await side.list(REPLICASETS)} >= before
        for name in sorted(before):
            old = next(one for one in await side.list(REPLICASETS) if one["metadata"]["name"] == name)
            await undo(side, old)
            await side.complete(3)
            live = [one for one in await side.list(REPLICASETS) if one["spec"]["replicas"]]
            assert [one["metadata"]["name"] for one in live] == [name]
            async with asyncio.timeout(10):
                while len(await side.ready()) != 3:
                    await asyncio.sleep(0.1)

    play(real_cluster, f"undo-{'in-place' if in_place else 'rollout'}", story)


def test_while_it_is_paused_no_older_revision_is_cleaned_up(real_cluster):
    """A ReplicaSet that differs from a paused Deployment counts as old, and the oldest beyond the limit goes."""

    async def story(side):
        for tag in (2, 3):
            await side.patch(DEPLOYMENTS, "web", image(tag), "strategic")
            await side.complete(3)
        before = {one["metadata"]["name"] for one in await side.list(REPLICASETS)}
        assert len(before) == 3
        assert (await side.prepare(IN_PLACE)).result == "prepared"
        await asyncio.sleep(1)
        assert {one["metadata"]["name"] for one in await side.list(REPLICASETS)} == before
        assert (await side.deployment())["spec"]["revisionHistoryLimit"] == 2

    play(real_cluster, "history", story, revisionHistoryLimit=2)


def test_by_rollout_and_back_no_ready_pod_leaves_the_slices(real_cluster):
    async def story(side):
        before = (await side.deployment())["spec"]
        result = await side.prepare(PrepareOptions(timeout_seconds=60, settle_seconds=1, seed=1))
        assert result.result == "prepared", result
        assert len(await side.ready()) == 3
        assert (await side.prepare(ABORT)).result == "aborted"
        assert (await side.deployment())["spec"] == before
        assert len(await side.ready()) >= 3

    play(real_cluster, "rollout", story)


def test_scaled_to_zero_it_is_labelled_all_the_same_and_scales_up_in_the_service(real_cluster):
    async def story(side):
        await side.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 0}})
        await side.complete(0)
        assert (await side.prepare(IN_PLACE)).result == "prepared"
        await side.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 2}})
        await side.complete(2)
        async with asyncio.timeout(10):
            while len(await side.ready()) != 2:
                await asyncio.sleep(0.1)
        assert len(await side.list(REPLICASETS)) == 1

    play(real_cluster, "zero", story)
