"""isolate and restore as a user reads them: plans, results, and every refusal, whole."""

from __future__ import annotations

import asyncio
import re

import pytest
from click.testing import CliRunner
from stage import NS, deployment, first, play

from tidegate import vtime
from tidegate.cli import mutate
from tidegate.cli.isolate import cutting, keeping
from tidegate.cli.main import tidegate
from tidegate.cli.restore import giving_back
from tidegate.client import VerbOptions, cut_pod, drain_pod
from tidegate.client.guards import NETWORKPOLICIES
from tidegate.client.isolate import isolate_pod
from tidegate.client.options import Identity
from tidegate.client.targets import Targets
from tidegate.engine.owners import KINDS
from tidegate.kube.api import DEPLOYMENTS, PODS, REPLICASETS, Patch
from tidegate.kube.errors import KubeError
from tidegate.kube.kubeconfig import Cluster
from tidegate.model import pod

CLUSTER = Cluster("http://127.16.0.1:6443", "lab", NS)
GIVEN = {"dry_run": False, "yes": True, "output": "text"}
DRY = GIVEN | {"dry_run": True}
ANN = VerbOptions(timeout_seconds=60, seed=0, identity=Identity("ann@desk", "one"))
BOB = VerbOptions(timeout_seconds=60, seed=1, identity=Identity("bob@sofa", "two"))
UNGATED = deployment(gate=False)
HASH = "pod-template-hash"


def plain(text, names):
    """Without what another lab would call otherwise. Pods are echo-1, echo-2... in the order they were seen."""
    for number, name in enumerate(names, start=1):
        text = text.replace(name, f"echo-{number}")
    text = re.sub(r"\becho-[a-z0-9]{9,10}-[a-z0-9]{5}\b", "echo-NEW", text)
    text = re.sub(r"\bdb-[a-z0-9]{5}\b", "db-NEW", text)
    text = re.sub(r"\becho-[a-f0-9]{9,10}\b", "echo-5d", text)
    text = re.sub(rf"{HASH}=[a-f0-9]{{8,10}}\b", f"{HASH}=5d", text)
    text = re.sub(r"token [0-9a-f]{12}", "token TOKEN", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "INSTANT", text)
    text = re.sub(r"^ *\d+\.\d s  .*\n", "", text, flags=re.M)
    return re.sub(r"on node-\d", "on NODE", re.sub(r"after \d+\.\d s", "after T s", text))


def transcript(capsys, made, *, before=None, given=GIVEN, manifest=UNGATED, name=None):
    """What the command says of one pod, and its exit code."""

    async def story(stage):
        chosen = name or await first(stage)
        names = sorted(one["metadata"]["name"] for one in await stage.pods())
        chosen = (await before(stage, chosen) if before is not None else None) or chosen
        _, codes = await mutate._run(CLUSTER, made(Targets(NS, (chosen,))), given)
        said = capsys.readouterr()
        return plain(said.err + said.out, names) + f"-> {codes[0]}\n\n"

    return play(story, manifest).partition("\n")[2]


async def cut(stage, name):
    await cut_pod(stage.client, NS, name, ANN)
    await stage.ready(4)


async def isolated(stage, name):
    await isolate_pod(stage.client, (NS, name), True, ANN)
    await stage.ready(4)


async def at_work(stage, name):
    stage.fault("proxy-freeze", "node-2", 40)
    stage.running = asyncio.create_task(cut_pod(stage.client, NS, name, ANN))
    await asyncio.sleep(3)


async def bare(stage, name):
    """Nobody's pod: its ReplicaSet is deleted, its pods are left."""
    await stage.api.patch(PODS, name, Patch({"metadata": {"labels": {HASH: "none"}}}), NS)
    await asyncio.sleep(3)


async def within_its_service(stage, name):
    """The pod of a bare ReplicaSet that selects by its Service's label alone."""
    made = {**deployment(replicas=1, gate=False), "kind": "ReplicaSet"}
    made["metadata"] = {"name": "plain", "namespace": NS}
    made["spec"]["selector"] = made["spec"]["template"]["metadata"] = {"labels": {"app": "echo"}}
    made["spec"]["selector"] = {"matchLabels": {"app": "echo"}}
    await stage.api.create(REPLICASETS, made, NS)
    reference = (await stage.api.get(REPLICASETS, "plain", NS))["metadata"]
    owner = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": "plain",
        "uid": reference["uid"],
        "controller": True,
    }
    await stage.api.patch(PODS, name, Patch({"metadata": {"ownerReferences": [owner]}}, "merge"), NS)


def owned_by(kind):
    async def before(stage, name):
        """Another pod of the same Service: the first of a StatefulSet, or of a DaemonSet."""
        spec = {"selector": {"matchLabels": {"app": "echo", "set": "db"}}}
        template = deployment(gate=False)["spec"]["template"]
        template["metadata"]["labels"]["set"] = "db"
        spec |= {"template": template} | ({"serviceName": "echo", "replicas": 1} if kind == "StatefulSet" else {})
        wanted = {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "db", "namespace": NS}, "spec": spec}
        await stage.api.create(KINDS[kind], wanted, NS)
        await stage.ready(4 if kind == "StatefulSet" else 6)
        return min(one["metadata"]["name"] for one in await stage.pods() if one["metadata"]["name"].startswith("db-"))

    return before


async def policed(stage, name):
    policy = {
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "canary", "namespace": NS},
        "spec": {"podSelector": {"matchExpressions": [{"key": HASH, "operator": "Exists"}]}},
    }  # fmt: skip
    await stage.api.create(NETWORKPOLICIES, policy, NS)


async def being_deleted(stage, name):
    await stage.delete(name)


KEEP, CUT = keeping(ANN), cutting(ANN)
ISOLATE = (
    ("the plan, with its traffic", KEEP, {"given": DRY}),
    ("the plan, without", CUT, {"given": DRY}),
    ("with its traffic", KEEP, {}),
    ("without", CUT, {}),
    ("once more", KEEP, {"before": isolated}),
    ("not in time", keeping(VerbOptions(timeout_seconds=0, seed=0)), {}),
    ("with its traffic, which is cut", KEEP, {"before": cut}),
    ("somebody is at work on it", keeping(BOB), {"before": at_work}),
    ("being deleted", KEEP, {"before": being_deleted}),
    ("nobody's", KEEP, {"before": bare}),
    ("nobody's, without its traffic", CUT, {"before": bare}),
    ("every label of its owner is its Service's", KEEP, {"before": within_its_service}),
    ("of a StatefulSet", KEEP, {"before": owned_by("StatefulSet")}),
    ("of a StatefulSet, without its traffic", CUT, {"before": owned_by("StatefulSet")}),
    ("of a DaemonSet", KEEP, {"before": owned_by("DaemonSet")}),
    ("a NetworkPolicy looks at the label", KEEP, {"before": policed}),
    ("the last one, without its traffic", CUT, {"manifest": deployment(replicas=1, gate=False)}),
)


def test_isolate_as_it_is_read(capsys, golden):
    told = "".join(f"## {title}\n{transcript(capsys, made, **more)}" for title, made, more in ISOLATE)
    golden("cli/isolate.txt", told)


def then(*steps):
    async def before(stage, name):
        for step in steps:
            await step(stage, name)

    return before


async def scaled_away(stage, name):
    await stage.scale(0)
    await asyncio.sleep(2)


async def superseded(stage, name):
    template = {"template": {"metadata": {"labels": {"version": "2"}}}, "minReadySeconds": 60}
    await stage.api.patch(DEPLOYMENTS, "echo", Patch({"spec": template}, "strategic"), NS)
    await asyncio.sleep(10)


async def deployment_gone(stage, name):
    await stage.api.delete(DEPLOYMENTS, "echo", NS)
    await asyncio.sleep(2)


async def not_ready(stage, name):
    body = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    await stage.api.patch(PODS, name, Patch(body, "strategic", "status"), NS)


def labelled(**labels):
    async def before(stage, name):
        wanted = {key.replace("HASH", HASH).replace("HELD", "tidegate.dev/held"): one for key, one in labels.items()}
        await stage.api.patch(PODS, name, Patch({"metadata": {"labels": wanted}}), NS)

    return before


async def room(stage, name):
    """Scaled down by one since: the ReplicaSet has what it wants, and one of them is still the one that goes."""
    await stage.scale(2)
    await asyncio.sleep(40)


async def drained_halfway(stage, name):
    stage.fault("proxy-freeze", "node-2", 100)
    await drain_pod(stage.client, NS, name, VerbOptions(timeout_seconds=5, seed=2, identity=Identity("eve@lap", "x")))
    stage.fault("clear", "node-2")


BACK = giving_back(BOB)
RESTORE = (
    ("the plan", BACK, {"before": cut, "given": DRY}),
    ("the plan of an isolated one", BACK, {"before": isolated, "given": DRY}),
    ("cut", BACK, {"before": cut}),
    ("isolated", BACK, {"before": isolated}),
    ("its ReplicaSet wants one less now", BACK, {"before": then(cut, room)}),
    ("a drain that was left halfway", BACK, {"before": drained_halfway}),
    ("a label that nobody looks at was changed by hand", BACK, {
        "before": then(labelled(owner="ann"), cut, labelled(owner="bob")),
    }),
    ("not held", BACK, {}),
    ("held, and no record", BACK, {"before": labelled(HELD="cut")}),
    ("somebody is at work on it", BACK, {"before": at_work}),
    ("being deleted", BACK, {"before": then(cut, being_deleted)}),
    ("not Ready", BACK, {"before": then(cut, not_ready)}),
    ("the label we set was changed by hand", BACK, {"before": then(cut, labelled(app="mine"))}),
    ("a label that its owner looks at was changed by hand", BACK, {"before": then(cut, labelled(HASH="mine"))}),
    ("scaled away", BACK, {"before": then(cut, scaled_away)}),
    ("superseded", BACK, {"before": then(cut, superseded)}),
    ("its Deployment is gone", BACK, {"before": then(cut, deployment_gone)}),
    ("another than it has is to go", giving_back(BOB, "nosuch"), {"before": cut}),
)  # fmt: skip


def test_restore_as_it_is_read(capsys, golden):
    told = "".join(f"## {title}\n{transcript(capsys, made, **more)}" for title, made, more in RESTORE)
    golden("cli/restore.txt", told)


LOOK = ("get,list,watch:pods,services,nodes,endpointslices.discovery.k8s.io,replicasets.apps,deployments.apps",)
GUARDS = ("list:poddisruptionbudgets.policy,networkpolicies.networking.k8s.io",)
MAY_CUT = (*LOOK, *GUARDS, "patch:pods,services")
ANN_LOOKS = VerbOptions(floor=9, seed=0)
ASK = ("get:leases.coordination.k8s.io", "get,create:pods/proxy", "create:serviceaccounts/token")


def test_a_permission_that_is_missing_is_named_and_nothing_is_changed(capsys, golden):
    async def story(stage):
        name = await first(stage)
        names = sorted(one["metadata"]["name"] for one in await stage.pods())
        await cut(stage, name)
        told = ""
        for title, made, subject, rules in (
            ("isolate, not patch", keeping(ANN), names[1], (*LOOK, *GUARDS)),
            ("isolate, not list NetworkPolicies", keeping(ANN), names[1], (*LOOK, "patch:pods")),
            ("isolate, not get pods", keeping(ANN), names[1], ("list:services",)),
            ("drain, not delete", lambda about: mutate.deed("drain", about, ANN), names[1], MAY_CUT),
            ("cut, not patch", lambda about: mutate.deed("cut", about, ANN), names[1], (*LOOK, *GUARDS)),
            (
                "cut without delete: not asked for",
                lambda about: mutate.deed("cut", about, ANN_LOOKS),
                names[1],
                MAY_CUT,
            ),
            ("restore, not delete", BACK, name, (*LOOK, *GUARDS, "patch:pods,services")),
            ("restore, not get ReplicaSets", BACK, name, ("get,list,watch:pods,services", *GUARDS)),
        ):
            token = stage.lab.lab.register_token("ann", (*ASK, *rules))
            vtime.hosted()["http://ann"] = stage.lab.lab.exchange_as(token)
            before = await stage.api.get(PODS, subject, NS)
            try:
                _, codes = await mutate._run(Cluster("http://ann", "lab", NS), made(Targets(NS, (subject,))), GIVEN)
                said = f"-> {codes[0]}"
            except KubeError as error:
                said = f"error: {error}"
            read = capsys.readouterr()
            assert await stage.api.get(PODS, subject, NS) == before
            told += f"## {title}\n{plain(read.err + read.out, names).partition(chr(10))[2]}{plain(said, names)}\n\n"
        return told

    golden("cli/held-permissions.txt", play(story, UNGATED))


@pytest.mark.parametrize("words", [
    ["isolate", "pod/x"],
    ["isolate", "pod/x", "--keep-traffic", "--cut-traffic"],
    ["isolate", "--keep-traffic"],
    ["isolate", "svc/x", "--keep-traffic"],
    ["restore"],
    ["restore", "pod/x", "-l", "app=x"],
    ["restore", "pod/x", "pod/y", "--drain", "z"],
])  # fmt: skip
def test_wrong_usage_is_exit_code_2(words):
    assert CliRunner().invoke(tidegate, words).exit_code == 2


def test_what_a_restore_plans_can_be_read_by_a_program(capsys):
    async def story(stage):
        name = await first(stage)
        await cut(stage, name)
        documents, _ = await mutate._run(CLUSTER, BACK(Targets(NS, (name,))), DRY)
        held = pod.decode(await stage.api.get(PODS, name, NS))
        return documents[0], held

    document, held = play(story, UNGATED)
    assert document["verb"] == "restore" and document["victim"].startswith("echo-")
    assert document["labels"] == {"app": "echo", "tidegate.dev/held": None}
    assert held.labels["app"] == "tidegate-cut", "a dry run changes nothing"
