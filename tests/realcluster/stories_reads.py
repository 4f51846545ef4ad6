"""Stories of reads: get, list, selectors, pages, tables, watches."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.realcluster.objects import budget, configmap, deployment, pod, service, slice_
from tests.realcluster.twin import MERGE, METADATA, TABLE, Side


async def _pods(side: Side) -> None:
    """Five pods: two nodes, three phases, two apps."""
    for number, (app, node, phase) in enumerate(
        [
            ("web", "n1", "Running"),
            ("web", "n2", "Running"),
            ("api", "n1", "Pending"),
            ("api", "", ""),
            ("web", "n1", "Failed"),
        ]
    ):
        made = pod(f"p{number}", **({"nodeName": node} if node else {}), tolerations=[{"operator": "Exists"}])
        made["metadata"]["labels"] = {"app": app, f"n{number}": "", "tier": str(number % 2)}
        await side.quietly("POST", "pods", made)
        if phase:
            ready = {"type": "Ready", "status": "True" if phase == "Running" else "False"}
            status = {"status": {"phase": phase, "podIP": f"10.1.0.{number}", "conditions": [ready]}}
            await side.quietly("PATCH", f"pods/p{number}/status", status, kind=MERGE)


async def selectors(side: Side) -> None:
    """Which objects a selector finds, and what is no selector."""
    await _pods(side)
    for text in (
        "app=web",
        "app==web",
        "app!=web",
        "app in (web,api),n0",
        "app notin (web)",
        "n0",
        "!n0",
        "tier=1,app=web",
        "app=",
        "tier>0",
        "tier<1",
        "nosuch",
        "app in ()",
        "app = web , tier = 0",
        "app=web,",
        "=web",
        "app web",
        "app in web",
        "a b=c",
        "app=x y",
        "app>x",
        "!",
        ",",
        "app=web,app=api",
        "UPPER.example/x=1",
        "-x=1",
        "app=-x",
    ):
        listed = await side.quietly("GET", "pods", labelSelector=text)
        side.tell(f"labels {text}", _names(listed.body))
    for text in (
        "spec.nodeName=n1",
        "spec.nodeName!=n1",
        "status.phase=Running",
        "status.phase!=Running,spec.nodeName=n1",
        "spec.nodeName=",
        "metadata.name=p1",
        "metadata.name=p1,metadata.name=p2",
        f"metadata.namespace={side.namespace}",
        "status.podIP=10.1.0.1",
        "spec.foo=x",
        "status.phase",
        "status.phase=",
        "metadata.labels.app=web",
        "spec.restartPolicy=Always",
        "spec.hostNetwork=false",
        "spec.serviceAccountName=default",
        "spec.schedulerName=default-scheduler",
        "status.nominatedNodeName=",
        "metadata.uid=x",
        "=",
        "metadata.name==p1",
    ):
        listed = await side.quietly("GET", "pods", fieldSelector=text)
        side.tell(f"fields {text.replace(side.namespace, 'NS')}", _names(listed.body))
    for kind, text in (
        ("apps/deployments", "metadata.name=x"),
        ("apps/deployments", "status.replicas=1"),
        ("services", "spec.type=ClusterIP"),
        ("services", "spec.clusterIP=None"),
        ("secrets", "type=Opaque"),
        ("configmaps", "data.x=1"),
        ("events", "involvedObject.name=x,reason=y"),
        ("apps/replicasets", "status.replicas=0"),
        ("discovery.k8s.io/endpointslices", "metadata.name=x"),
        ("/api/v1/nodes", "spec.unschedulable=true"),
        ("/api/v1/namespaces", "status.phase=Active,metadata.name=default"),
    ):
        listed = await side.quietly("GET", kind, fieldSelector=text)
        side.tell(f"fields of {kind}: {text}", _names(listed.body))


def _names(body: Any) -> Any:
    """The names of a list; a failure as it is."""
    return [item["metadata"]["name"] for item in body["items"] or []] if "items" in body else body


async def lists(side: Side) -> None:
    """Lists, pages and versions."""
    await side.ask("GET", "configmaps")
    for number in range(7):
        await side.quietly("POST", "configmaps", configmap(f"c{number}", x="1"))
    await side.ask("GET", "configmaps/c1")
    first = await side.ask("GET", "configmaps", limit=3)
    token, rv = first.body["metadata"]["continue"], first.rv
    await side.quietly("DELETE", "configmaps/c4")
    await side.quietly("POST", "configmaps", configmap("c45", x="1"))
    second = await side.quietly("GET", "configmaps", **{"limit": 3, "continue": token})
    side.tell("second page", [_names(second.body), second.rv == rv, second.body["metadata"].get("remainingItemCount")])
    token = second.body["metadata"]["continue"]
    third = await side.quietly("GET", "configmaps", **{"limit": 3, "continue": token})
    side.tell("third page", [_names(third.body), third.rv == rv, sorted(third.body["metadata"])])
    old = await side.quietly("GET", "configmaps", resourceVersion=rv, resourceVersionMatch="Exact")
    side.tell("exact", [_names(old.body), old.rv == rv])
    new = await side.quietly("GET", "configmaps", resourceVersion=rv, resourceVersionMatch="NotOlderThan")
    side.tell("not older", _names(new.body))
    new = await side.quietly("GET", "configmaps", resourceVersion=rv)
    side.tell("with a version", _names(new.body))
    new = await side.quietly("GET", "configmaps", resourceVersion="0")
    side.tell("any", sorted(_names(new.body)))
    selected = await side.quietly("GET", "configmaps", limit=2, labelSelector="!x")
    side.tell("limit and selector", [_names(selected.body), sorted(selected.body["metadata"])])
    await side.ask("GET", "configmaps", limit=3, **{"continue": "rubbish"})
    await side.ask("GET", "configmaps", limit="x")
    await side.ask("GET", "configmaps", limit=-1)
    await side.ask("GET", "configmaps", resourceVersion="x")
    await side.ask("GET", "configmaps", resourceVersion=rv, resourceVersionMatch="Nearly")
    await side.ask("GET", "configmaps", resourceVersionMatch="Exact")
    await side.ask("GET", "configmaps", resourceVersion="0", resourceVersionMatch="Exact")
    await side.ask("GET", "configmaps", resourceVersion="5", **{"continue": token})
    await side.ask("GET", "configmaps", sendInitialEvents="true")
    await side.ask("GET", "configmaps", fieldSelector="metadata.name=c2", labelSelector="!x")
    await side.ask("GET", "configmaps/c1", resourceVersion="0")
    await side.ask("GET", "configmaps/c1", accept="text/html")
    await side.ask("GET", "configmaps", accept="text/html, application/json;q=0.5")
    await side.ask("GET", "configmaps/c1", accept="application/cbor")
    everywhere = await side.quietly("GET", "/api/v1/configmaps", fieldSelector=f"metadata.namespace={side.namespace}")
    side.tell("all namespaces", _names(everywhere.body))
    await side.ask("GET", "/api/v1/namespaces/nosuch/configmaps")
    await side.ask("OPTIONS", "configmaps/c1")


async def tables(side: Side) -> None:
    """What kubectl get prints."""
    await _pods(side)
    await side.quietly("POST", "services", service("s"))
    await side.quietly(
        "POST", "services", service("h", clusterIP="None", ports=[{"name": "a", "port": 1}, {"name": "b", "port": 2}])
    )
    await side.quietly(
        "POST", "services", {"metadata": {"name": "e"}, "spec": {"type": "ExternalName", "externalName": "x.org"}}
    )
    await side.quietly("POST", "apps/deployments", deployment("d"))
    await side.quietly("POST", "discovery.k8s.io/endpointslices", slice_("es"))
    await side.quietly("POST", "policy/poddisruptionbudgets", budget("b"))
    await side.quietly("POST", "secrets", {"metadata": {"name": "x"}, "stringData": {"a": "1"}})
    for kind in (
        "pods",
        "services",
        "apps/deployments",
        "apps/replicasets",
        "configmaps",
        "secrets",
        "discovery.k8s.io/endpointslices",
        "policy/poddisruptionbudgets",
        "serviceaccounts",
        "endpoints",
    ):
        await side.ask("GET", kind, accept=TABLE)
    await side.ask("GET", "pods/p1", accept=TABLE)
    await side.ask("GET", "pods/p1", accept=TABLE, includeObject="Object")
    await side.ask("GET", "pods/p1", accept=TABLE, includeObject="None")
    await side.ask("GET", "pods/p1", accept=TABLE, includeObject="Everything")
    await side.ask("GET", "pods/nosuch", accept=TABLE)
    await side.ask("GET", "pods", accept=METADATA, limit=1)
    await side.ask("GET", "pods/p1", accept="application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")
    await side.ask("GET", "pods/p1", accept="application/json;as=Table;v=v9;g=meta.k8s.io")
    await side.ask("GET", "pods/p1", accept="application/json;as=Table;v=v9;g=meta.k8s.io,application/json")
    await side.ask("PATCH", "pods/p1", {"metadata": {"labels": {"x": "y"}}}, kind=MERGE, accept=TABLE)


def _events(lines: list[Any]) -> list[Any]:
    """Type, name and what changed of each line; a failure as it is."""
    told = []
    for line in lines:
        if line == "silence" or line["type"] == "ERROR":
            told.append(line)
            continue
        obj = line["object"]
        metadata = obj["metadata"]
        if line["type"] == "BOOKMARK":
            told.append({"type": "BOOKMARK", "object": {**obj, "metadata": {**metadata, "resourceVersion": "<now>"}}})
        else:
            shown = {key: metadata.get(key) for key in ("name", "resourceVersion", "labels")}
            told.append([line["type"], shown, obj.get("data")])
    return told


async def watches(side: Side) -> None:
    """From a version, in order; entering and leaving a selector; bookmarks; bad beginnings."""
    made = await side.quietly("POST", "configmaps", configmap("a", x="1"))
    start = made.rv
    await side.quietly("PATCH", "configmaps/a", {"metadata": {"labels": {"in": "1"}}}, kind=MERGE)
    await side.quietly("PATCH", "configmaps/a", {"data": {"x": "2"}}, kind=MERGE)
    await side.quietly("POST", "configmaps", configmap("b", x="1"))
    await side.quietly("PATCH", "configmaps/a", {"metadata": {"labels": {"in": None}}}, kind=MERGE)
    await side.quietly("PATCH", "configmaps/a", {"data": {"x": "3"}}, kind=MERGE)
    await side.quietly("PATCH", "configmaps/a", {"metadata": {"labels": {"in": "2"}}}, kind=MERGE)
    last = await side.quietly("DELETE", "configmaps/a")
    side.tell("deleted", {"status": last.status, "body": last.body})
    side.tell("all", _events(await side.watch("configmaps", 7, resourceVersion=start)))
    side.tell("selected", _events(await side.watch("configmaps", 5, resourceVersion=start, labelSelector="in")))
    side.tell("one value", _events(await side.watch("configmaps", 3, resourceVersion=start, labelSelector="in=1")))
    side.tell(
        "by name", _events(await side.watch("configmaps", 1, resourceVersion=start, fieldSelector="metadata.name=b"))
    )
    side.tell("state first", _events(await side.watch("configmaps", 1)))
    side.tell("any state first", _events(await side.watch("configmaps", 1, resourceVersion="0")))
    listing = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
    lines = await side.watch("configmaps", 2, allowWatchBookmarks="true", **listing)
    side.tell("watch-list", _events(lines))
    side.tell("watch-list without bookmarks", _events(await side.watch("configmaps", 1, **listing)))
    lines = await side.watch(
        "configmaps",
        1,
        allowWatchBookmarks="true",
        sendInitialEvents="false",
        resourceVersionMatch="NotOlderThan",
        timeoutSeconds=1,
    )
    side.tell("sendInitialEvents=false", _events(lines))
    for query in (
        {"sendInitialEvents": "true"},
        {"sendInitialEvents": "true", "resourceVersionMatch": "Exact"},
        {"resourceVersionMatch": "NotOlderThan"},
        {**listing, "continue": "x"},
        {"resourceVersion": "x"},
        {"labelSelector": "a b"},
        {"fieldSelector": "spec.x=y"},
    ):
        await side.ask("GET", "configmaps", watch="true", **{"timeoutSeconds": 1, **query})


async def live_watches(side: Side) -> None:
    """Pods leaving and entering while somebody watches, and their end."""
    await side.quietly("POST", "pods", pod("a", nodeName="n1", tolerations=[{"operator": "Exists"}]))
    start = (await side.quietly("GET", "pods")).rv
    loop = asyncio.get_running_loop()
    by_label = loop.create_task(side.watch("pods", 4, resourceVersion=start, labelSelector="app=web"))
    by_phase = loop.create_task(side.watch("pods", 4, resourceVersion=start, fieldSelector="status.phase=Running"))
    await asyncio.sleep(0.2)
    for path, body in (
        ("pods/a/status", {"status": {"phase": "Running"}}),
        ("pods/a", {"metadata": {"labels": {"app": "cut"}}}),
        ("pods/a", {"metadata": {"labels": {"app": "web"}}}),
        ("pods/a/status", {"status": {"phase": "Succeeded"}}),
    ):
        await side.quietly("PATCH", path, body, kind=MERGE)
    await side.quietly("DELETE", "pods/a", gracePeriodSeconds=0)
    for name, task in (("by label", by_label), ("by phase", by_phase)):
        lines = await task
        side.tell(
            name,
            [
                [line["type"], line["object"]["metadata"]["labels"], line["object"]["status"].get("phase")]
                for line in lines
            ],
        )


STORIES = (selectors, lists, tables, watches, live_watches)
