"""What a drain says it will do, and every sentence it is refused with, as printed."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

from stage import NS, deployment, first, play

from tidegate.cli import drain_node, mutate
from tidegate.client import VerbOptions
from tidegate.client.options import Identity
from tidegate.client.targets import Targets, TooFewPods
from tidegate.engine.owners import KINDS
from tidegate.kube.api import NODES, PODDISRUPTIONBUDGETS, PODS, SERVICES, Patch, Resource
from tidegate.kube.kubeconfig import Cluster
from tidegate.model.names import DrainRecord, encode_drain

CLUSTER = Cluster("http://127.16.0.1:6443", "lab", NS)
GIVEN = {"dry_run": True, "yes": True, "output": "text", "keep_going": False, "parallel": 4}
POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
OPTIONS = VerbOptions(seed=0, identity=Identity("ann@desk", "one"))


def scrubbed(text):
    text = re.sub(r"\b(echo|solo)-[a-z0-9]{8,10}-[a-z0-9]{5}\b", r"\1-HASH", text)
    return re.sub(r"(?<=\becho-)[a-z0-9]{8,10}\b|(?<=hash=)[a-z0-9]{8,10}\b(?!-)", "HASH", text)


class Page:
    """Plans one after the other, each under its heading."""

    def __init__(self, capsys):
        self.capsys, self.text = capsys, ""

    async def plan(self, heading, targets, options=OPTIONS):
        self.capsys.readouterr()
        try:
            _, codes = await mutate._run(CLUSTER, mutate.deed("drain", targets, options), GIVEN)
        except TooFewPods as error:
            codes = [3]
            print(f"error: {error}; nothing was changed", file=sys.stderr)
        self._add(heading, codes)

    async def node(self, heading, name, options=OPTIONS):
        self.capsys.readouterr()
        _, code = await drain_node.drained(CLUSTER, name, options, GIVEN)
        self._add(heading, [code])

    def _add(self, heading, codes):
        self.text += f"# {heading}\n{scrubbed(self.capsys.readouterr().err)}-> {' '.join(map(str, codes))}\n\n"


async def put(stage, name, labels, **spec):
    template = deployment(gate=False)["spec"]["template"]["spec"]
    metadata = {"name": name, "namespace": NS, "labels": labels}
    await stage.api.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template | spec})


async def changed(stage, name, **metadata):
    await stage.api.patch(PODS, name, Patch({"metadata": metadata}), NS)


def test_plans(capsys, golden):
    page = Page(capsys)

    async def story(stage):
        name = await first(stage)
        one = Targets(NS, (name,))
        await page.plan("replacement first", one)
        await page.plan("--no-replace", one, VerbOptions(replace=False))
        await page.plan("count of a workload", Targets(NS, workload=("deploy", "echo"), count=2))
        await put(stage, "alone", {"app": "echo", "role": "spare"})
        await put(stage, "bare", {"app": "bare"}, volumes=[{"name": "tmp", "emptyDir": {}}], nodeName="node-2")
        await asyncio.sleep(3)
        await page.plan("nothing owns it", Targets(NS, ("alone",)))
        made = deployment(gate=False)
        spec = {key: made["spec"][key] for key in ("selector", "template")} | {"serviceName": "echo", "replicas": 1}
        stateful = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": made["metadata"], "spec": spec}
        await stage.api.create(KINDS["StatefulSet"], stateful)
        await stage.ready(6)
        await page.plan("a pod of a StatefulSet", Targets(NS, workload=("sts", "echo")))
        await page.node("a node with a pod that nothing owns", "node-2")
        await page.node("the same by force", "node-2", VerbOptions(seed=0, force=True))
        await stage.api.patch(NODES, "node-1", Patch({"spec": {"unschedulable": True}}))
        await page.node("a node that somebody cordoned", "node-1")
        hashed = (await stage.api.get(PODS, name, NS))["metadata"]["labels"]["pod-template-hash"]
        await stage.api.patch(SERVICES, "echo", Patch({"spec": {"selector": {"pod-template-hash": hashed}}}), NS)
        await asyncio.sleep(2)
        await page.plan("its Service looks at every label that its owner selects by", one)

    play(story, deployment(gate=False))
    golden(Path("cli/drain-plans.txt"), page.text)


def test_refusals(capsys, golden):
    page = Page(capsys)

    async def story(stage):
        name, other = sorted(pod["metadata"]["name"] for pod in await stage.pods())[:2]
        one = Targets(NS, (name,))
        await page.plan("a floor that a replacement does not mend", one, VerbOptions(floor=4))
        await page.plan("the same, forced", one, VerbOptions(floor=4, force=True))
        await page.plan("a floor, without a replacement", one, VerbOptions(floor=3, replace=False))
        await page.plan("fewer than asked for", Targets(NS, selector="app=echo", count=99))
        await page.plan("none at all", Targets(NS, selector="app=nope"))
        budget = {"minAvailable": 3, "selector": {"matchLabels": {"app": "echo"}}}
        await stage.api.create(
            PODDISRUPTIONBUDGETS, {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
                                   "metadata": {"name": "all", "namespace": NS}, "spec": budget})  # fmt: skip
        await asyncio.sleep(1)
        await page.plan("a budget, without a replacement", one, VerbOptions(replace=False))
        rules = {"podSelector": {"matchLabels": {"app": "echo"}}, "ingress": [{}], "policyTypes": ["Ingress"]}
        await stage.api.create(
            POLICIES, {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                       "metadata": {"name": "echo", "namespace": NS}, "spec": rules})  # fmt: skip
        await page.plan("a policy that looks at the label", one)
        await stage.api.delete(POLICIES, "echo", NS)
        held = DrainRecord(
            token="c0ffee", state="CUT", mode="label", at="2026-01-01T00:00:09Z", labels={"app": "echo"},
            by="bob@sofa", holder="bob/1", lease_until="2126-01-01T00:00:00Z",
        )  # fmt: skip
        await changed(stage, other, annotations=encode_drain(held))
        await page.plan("somebody else is at work on it", Targets(NS, (other,)))
        await put(stage, "nowhere", {"app": "echo"}, nodeSelector={"no": "such"})
        await put(
            stage,
            "shared",
            {"app": "shared"},
            hostNetwork=True,
            containers=[{"name": "a", "image": "tidegate/echo:v1"}],
        )
        await asyncio.sleep(3)
        await page.plan("no address", Targets(NS, ("nowhere",)))
        await page.plan("no port on its node's network", Targets(NS, ("shared",)))
        await stage.delete("shared", grace=30)
        await page.plan("it is being deleted", Targets(NS, ("shared",)))

    play(story, deployment(gate=False))
    golden(Path("cli/drain-refusals.txt"), page.text)
