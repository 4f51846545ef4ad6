"""The command status: what it prints about Services, pods, workloads, namespaces and held pods."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
import yaml
from click.testing import CliRunner
from stage import NS, deployment, first, other_node, play

from tidegate.cli import status as command
from tidegate.cli.main import tidegate
from tidegate.client import VerbOptions, cut_pod
from tidegate.client.options import Identity
from tidegate.client.status import Subject, follow_status, status_of
from tidegate.kube.api import DEPLOYMENTS, PODS, SERVICES, Patch
from tidegate.kube.kubeconfig import Cluster
from tidegate.model.names import HELD, DrainRecord, encode_drain

CLUSTER = Cluster("http://127.16.0.1:6443", "lab", NS)
GIVEN = {"all_namespaces": False, "selector": "", "orphans": False, "why": False, "watch": False, "output": "table"}


def scrubbed(text):
    """Names that a seed draws, numbered in the order they come."""
    found = {}

    def numbered(match):
        return found.setdefault(match[0], f"{match[1]}-{len(found) + 1}")

    text = re.sub(r"\b((?:echo|biz1-4\d)-[a-z0-9]{8,10})-[a-z0-9]{5}\b", numbered, text)
    text = re.sub(r"\b(echo|biz1-4\d)-[a-z0-9]{8,10}\b(?!-[a-z])", r"\1-HASH", text)
    return "\n".join(re.sub(r"(?<=\S) {2,}", "  ", line) for line in text.splitlines())


async def shown(subject=None, **given):
    await command._show(CLUSTER, NS, subject, {**GIVEN, **given})


def biz(version):
    made = deployment(replicas=2)
    labels = {"app": "biz1", "zone": "prod", "version": version}
    made["metadata"]["name"] = f"biz1-{version.replace('.', '')}"
    made["spec"]["selector"] = {"matchLabels": labels}
    made["spec"]["template"]["metadata"]["labels"] = labels
    return made


async def two_versions(stage):
    """Story 3: one Service, two versions behind it."""
    spec = {"selector": {"app": "biz1", "zone": "prod"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    meta = {"name": "biz1", "namespace": NS}
    await stage.api.create(SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
    for version in ("4.1", "4.2"):
        await stage.api.create(DEPLOYMENTS, biz(version))
    await stage.ready(7)


async def select(stage, version):
    await stage.api.patch(SERVICES, "biz1", Patch({"spec": {"selector": {"version": version}}}), NS)


def test_blue_green_by_hand_is_told_node_by_node(capsys, golden):
    async def story(stage):
        await two_versions(stage)
        for version, frozen in (("4.1", ""), ("4.2", "node-2"), ("4.1", "")):
            if frozen:
                stage.fault("proxy-freeze", frozen, 6)
            await select(stage, version)
            await asyncio.sleep(4)
            print(f"# the Service selects {version}{f', the proxy of {frozen} stands still' if frozen else ''}")
            await shown(("svc", "biz1"))
            await asyncio.sleep(8)

    play(story)
    golden("cli/status-blue-green.txt", scrubbed(capsys.readouterr().out) + "\n")


def test_which_version_each_node_routes_to_is_in_the_document():
    async def story(stage):
        await two_versions(stage)
        await select(stage, "4.1")
        await asyncio.sleep(4)
        stage.fault("proxy-freeze", "node-2", 6)
        await select(stage, "4.2")
        await asyncio.sleep(3)
        late = (await status_of(stage.client, "svc", NS, "biz1")).document
        await asyncio.sleep(9)
        return late, (await status_of(stage.client, "svc", NS, "biz1")).document

    def versions(document):
        nodes = document["services"][0]["nodes"]
        return {node["node"]: [one["version"] for one in node["revisions"]] for node in nodes}

    late, settled = play(story)
    assert versions(late) == {"node-1": ["4.2"], "node-2": ["4.1"], "node-3": ["4.2"]}
    assert versions(settled) == {f"node-{number}": ["4.2"] for number in (1, 2, 3)}


def test_a_workload_a_namespace_and_every_namespace_are_told(capsys, golden):
    async def story(stage):
        await two_versions(stage)
        await select(stage, "4.2")
        await asyncio.sleep(4)
        for subject, given in (
            (("deploy", "biz1-41"), {}),
            (None, {}),
            (None, {"all_namespaces": True}),
            (None, {"selector": "version=4.1"}),
            (None, {"output": "name"}),
        ):
            print(f"# {subject} {given}")
            await shown(subject, **given)

    play(story)
    golden("cli/status-subjects.txt", scrubbed(capsys.readouterr().out) + "\n")


def test_a_pod_that_was_cut_by_hand_says_which_label_is_missing_and_who_still_routes_to_it(capsys, golden):
    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", "node-1", 60)
        await stage.api.patch(PODS, name, Patch({"metadata": {"labels": {"app": "echo-offline"}}}), NS)
        await asyncio.sleep(3)
        await shown(("pod", name))
        await shown(("pod", name), why=True)
        return (await status_of(stage.client, "pod", NS, name)).document

    document = play(story)
    golden("cli/status-pod.txt", scrubbed(capsys.readouterr().out) + "\n")
    assert document["pod"]["routed_by"] == ["node-1"]
    assert document["pod"]["services"][0]["missing"] == ["app=echo is asked for, it has app=echo-offline"]


RECORD = DrainRecord(
    token="t", state="CUT", mode="label", verb="cut", by="ann@desk", at="2020-01-01T10:00:00Z", reason="leaks",
    labels={"app": "echo"}, changed={"app": "tidegate-cut"}, until="2020-01-01T11:00:00Z",
)  # fmt: skip


async def hold(stage, name, record, **labels):
    annotations = encode_drain(record) if record else {}
    await stage.api.patch(PODS, name, Patch({"metadata": {"labels": labels, "annotations": annotations}}), NS)


def test_orphans_name_who_held_them_why_and_what_to_do(capsys, golden):
    import msgspec

    async def story(stage):
        one, two, three = sorted(pod["metadata"]["name"] for pod in await stage.pods())
        await hold(stage, one, RECORD, app="tidegate-cut", **{HELD: "cut"})
        await hold(stage, two, None, **{HELD: "isolated"})
        at_work = msgspec.structs.replace(RECORD, holder="h", lease_until="2099-01-01T00:00:00Z")
        await hold(stage, three, at_work, app="tidegate-cut")
        await asyncio.sleep(1)
        await shown(orphans=True)
        await shown(orphans=True, all_namespaces=True, output="name")
        await shown(("pod", one))

    play(story, deployment(gate=False))
    golden("cli/status-orphans.txt", scrubbed(capsys.readouterr().out) + "\n")


def test_a_drain_in_flight_names_its_straggler(capsys):
    async def story(stage):
        name = await first(stage)
        straggler = await other_node(stage, name)
        stage.fault("proxy-freeze", straggler, 6)
        await stage.delete(name)
        await asyncio.sleep(2.5)
        await shown(("svc", "echo"))
        await stage.gone(name)
        return name, straggler

    name, straggler = play(story)
    told = capsys.readouterr().out
    assert name in told and "terminating, and the Service has ready endpoints" in told
    assert f"straggler {straggler}: pending, shows fence" in told


def test_live_connections_are_counted_per_endpoint_and_named_by_client():
    async def story(stage):
        address = (await stage.pods())[0]["status"]["podIP"]
        opened = [await asyncio.open_connection(address, 8080, local_addr=("127.16.0.11", 0)) for _ in range(3)]
        document = (await status_of(stage.client, "svc", NS, "echo")).document
        for _, writer in opened:
            writer.close()
        return address, {one["address"]: (one["live"], one["clients"]) for one in document["connections"]}

    address, live = play(story)
    assert live.pop(f"{address}:8080") == (3, ["127.16.0.11"])
    assert set(map(str, live.values())) == {"(0, [])"}


def test_json_and_yaml_are_the_same_document(capsys):
    async def story(stage):
        await shown(("svc", "echo"), output="json")
        await shown(("svc", "echo"), output="yaml")

    play(story)
    first_document, _, second = capsys.readouterr().out.partition("---\n")
    assert json.loads(first_document) == yaml.safe_load(second)
    assert sorted(json.loads(first_document)) == [
        "connections", "drains", "held", "kind", "name", "namespace", "nodes", "observers", "pods", "problems",
            "routers", "services", "workloads",
    ]  # fmt: skip


def test_a_watch_shows_each_change_once_and_asks_the_agents_once_a_second():
    async def story(stage):
        asked, lists = [], []
        real = stage.client._exchange

        async def counting(request):
            if "question" in request.path:
                asked.append(stage.now)
            if request.method == "GET" and request.path.endswith("/pods") and not request.param("watch"):
                lists.append(stage.now)
            return await real(request)

        stage.client._exchange = counting
        documents = []

        async def watch():
            async for found in follow_status(stage.client, Subject("svc", NS, "echo")):
                documents.append(found.document)

        watching = asyncio.create_task(watch())
        await asyncio.sleep(5)
        quiet = len(documents)
        await stage.scale(4)
        await asyncio.sleep(8)
        watching.cancel()
        return quiet, documents, asked, lists

    quiet, documents, asked, lists = play(story)
    assert quiet == 1
    assert len(documents[-1]["services"][0]["endpoints"]) == 4
    assert len(asked) <= 3 * 14, "one question per node and second"
    assert len([at for at in lists if at > lists[0] + 2]) <= 14 + 4, "pods are watched; only agents are listed"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status", "ingress/x"], "is not svc/NAME, pod/NAME, deploy/NAME"),
        (["status", "pod/"], "cannot be the name"),
        (["status", "svc/x", "-A"], "--all-namespaces takes no svc/x"),
        (["status", "svc/x", "-l", "a=b"], "--selector takes no svc/x"),
        (["status", "-A", "-l", "a=b"], "--selector is about the pods of one namespace"),
        (["status", "-o", "xml"], "'xml' is not one of"),
    ],
)
def test_wrong_usage_says_what_is_wrong(words, said):
    answer = CliRunner().invoke(tidegate, words)
    assert answer.exit_code == 2
    assert said in answer.output


def test_it_explains_itself():
    answer = CliRunner().invoke(tidegate, ["status", "--help"])
    assert answer.exit_code == 0
    for option in ("--orphans", "--why", "--selector", "--watch", "--all-namespaces", "table|wide|json|yaml|name"):
        assert option in answer.output


def test_a_nodes_redirect_of_hook_calls_is_no_route_to_its_agent():
    async def story(stage):
        return (await status_of(stage.client, "namespace", "tidegate-system")).document

    document = play(story)
    assert {pod["name"]: pod["routed_by"] for pod in document["pods"]} == {
        "tidegate-agent-node-1": [], "tidegate-agent-node-2": [], "tidegate-agent-node-3": [],
        "tidegate-coordinator": [],
    }  # fmt: skip


def test_who_may_not_read_pods_still_sees_the_services_and_is_told_what_is_missing():
    from tidegate.kube.client import KubeClient
    from tidegate.kube.errors import ApiError
    from tidegate.kube.exchange import whole

    async def story(stage):
        async def careful(request):
            if request.path.endswith((f"/{NS}/pods", "/replicasets")):
                said = {"kind": "Status", "code": 403, "reason": "Forbidden", "message": "you may not list this"}
                return whole(403, json.dumps(said).encode())
            return await stage.lab.lab.exchange(request)

        client = KubeClient(careful, "lab")
        document = (await status_of(client, "svc", NS, "echo")).document
        with pytest.raises(ApiError) as refused:
            await status_of(client, "pod", NS, await first(stage))
        return document, refused.value

    document, refused = play(story)
    assert len(document["services"][0]["endpoints"]) == 3
    assert document["problems"][:2] == [
        "pods cannot be read: you may not list this", "replicasets cannot be read: you may not list this",
    ]  # fmt: skip
    assert (refused.code, refused.message) == (403, "pods cannot be read: you may not list this")


def test_a_cut_pod_is_told_by_whom_and_since_when_and_our_own_service_is_not_told_at_all(capsys):
    async def story(stage):
        name = await first(stage)
        mine = VerbOptions(timeout_seconds=60, seed=0, identity=Identity("ann@desk", "one"), reason="leaks")
        await cut_pod(stage.client, NS, name, mine)
        await asyncio.sleep(3)
        await shown()
        await shown(("svc", "tidegate-draining"))
        return name

    name = play(story, deployment(gate=False))
    told = capsys.readouterr().out
    of_namespace, of_ours = told.split("svc/tidegate-draining", 1)
    assert "tidegate-draining" not in of_namespace and "publishNotReady" not in of_namespace
    assert f"Pod demo/{name}" in of_namespace and "no Service selects it" not in of_namespace
    assert "held: cut by ann@desk since 20" in of_namespace and ": leaks" in of_namespace
    assert f"next: tidegate restore pod/{name} -n demo" in of_namespace
    assert "warning" not in of_ours
