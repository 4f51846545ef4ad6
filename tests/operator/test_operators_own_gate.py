"""The operator as it is installed, in a virtual lab: rolled while pods are created, its own pods end verified."""

from __future__ import annotations

import asyncio
import copy
import json

from operator_stage import served
from stage import NS, deployment
from stage import play as play_on_stage

from tidegate.agent.manifests import Installation
from tidegate.cli.parts import objects_of
from tidegate.client.install import RESOURCES, offered
from tidegate.kube.api import DEPLOYMENTS, NAMESPACES, PODS, Patch, Selection
from tidegate.model import pod as pod_noun
from tidegate.model.names import DRAIN_RESULT, OPERATOR, SYSTEM_NAMESPACE
from tidegate.rehearse.addons import OFFER, TIDEGATE


async def rolled(stage):
    for _ in range(3000):
        await asyncio.sleep(0.1)
        found = await stage.api.get(DEPLOYMENTS, OPERATOR, SYSTEM_NAMESPACE)
        status = found.get("status") or {}
        counts = {status.get(key) for key in ("replicas", "updatedReplicas", "availableReplicas")}
        if status.get("observedGeneration", 0) >= found["metadata"]["generation"] and counts == {2}:
            pods = (await stage.api.list(PODS, OPERATORS)).items
            if len(pods) == 2:
                return [one["metadata"]["name"] for one in pods]
    raise AssertionError(f"the operator is not ready: {json.dumps(status)[:500]}")


OPERATORS = Selection(SYSTEM_NAMESPACE, "app.kubernetes.io/component=operator")


def test_rolled_while_pods_are_created_every_pod_is_gated_and_the_operators_own_end_verified():
    async def story(stage):
        await served(stage)
        for one in objects_of(Installation(""), ("operator", "webhook"), await offered(stage.client)):
            await stage.client.apply(RESOURCES[one["kind"]], one)
        before = await rolled(stage)
        await stage.api.patch(NAMESPACES, NS, Patch({"metadata": {"labels": {"tidegate.dev/gate": "enabled"}}}))
        made, done, ends = [], asyncio.Event(), {}

        async def creating():
            spec = deployment(gate=False)["spec"]["template"]["spec"]
            while not done.is_set():
                metadata = {"name": f"p{len(made)}", "namespace": NS}
                one = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": copy.deepcopy(spec)}
                one["spec"]["nodeName"] = "nowhere"
                made.append(pod_noun.decode(await stage.api.create(PODS, one)))
                await asyncio.sleep(0.1)

        async def filming():
            version = (await stage.api.list(PODS)).resource_version
            async for event in stage.api.watch(PODS, OPERATORS, version):
                metadata = event.object["metadata"]
                ends[metadata["name"]] = (metadata.get("annotations") or {}).get(DRAIN_RESULT, "{}")

        tasks = [asyncio.create_task(one()) for one in (creating, filming)]
        change = {"spec": {"template": {"metadata": {"annotations": {"restarted": "1"}}}}}
        await stage.api.patch(DEPLOYMENTS, OPERATOR, Patch(change), SYSTEM_NAMESPACE)
        after = await rolled(stage)
        await asyncio.sleep(5)
        done.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not set(before) & set(after)
        assert {json.loads(ends[name])["result"] for name in before} == {"verified"}, ends
        bare = [one.name for one in made if not one.is_gated]
        assert len(made) > 50 and bare == [], (len(made), bare)

    play_on_stage(story, addons=(TIDEGATE, OFFER), limit=900)
