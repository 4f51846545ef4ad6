"""Stories of ends: delete, finalizers, grace, eviction; and of subresources."""

from __future__ import annotations

from typing import Any

from tests.realcluster.objects import budget, configmap, deployment, pod, replicaset
from tests.realcluster.twin import JSON_PATCH, MERGE, STRATEGIC, Side

ANYWHERE = [{"operator": "Exists"}]


def options(**more: Any) -> dict[str, Any]:
    return {"kind": "DeleteOptions", "apiVersion": "v1", **more}


async def deletes(side: Side) -> None:
    """Preconditions, finalizers, propagation."""
    nobody = "00000000-0000-4000-8000-000000000000"
    made = await side.ask("POST", "configmaps", configmap("a"))
    await side.ask("DELETE", "configmaps/a", options(preconditions={"uid": nobody}))
    await side.ask("DELETE", "configmaps/a", options(preconditions={"resourceVersion": "1"}))
    await side.ask(
        "DELETE", "configmaps/a", options(preconditions={"uid": made.uid, "resourceVersion": made.rv}, dryRun=["All"])
    )
    await side.ask("DELETE", "configmaps/a", dryRun="All")
    await side.ask("GET", "configmaps/a")
    await side.ask("DELETE", "configmaps/a", options(propagationPolicy="Sideways"))
    await side.ask("DELETE", "configmaps/a", options(propagationPolicy="Orphan", orphanDependents=True))
    await side.ask("DELETE", "configmaps/a", propagationPolicy="Sideways")
    await side.ask("DELETE", "configmaps/a", options(preconditions={"uid": made.uid, "resourceVersion": made.rv}))
    await side.ask("DELETE", "configmaps/a")
    await side.quietly("POST", "configmaps", configmap("a"))
    await side.ask("DELETE", "configmaps/a", options(), dryRun="All")  # beside a body the query is not read: it is gone
    await side.ask("GET", "configmaps/a")
    await side.ask("POST", "configmaps", {"metadata": {"name": "f", "finalizers": ["a.b/c", "a.b/d"]}})
    await side.ask("DELETE", "configmaps/f")
    await side.ask("DELETE", "configmaps/f")
    await side.ask("PATCH", "configmaps/f", {"metadata": {"finalizers": ["a.b/c", "new.x/y"]}}, kind=MERGE)
    await side.ask("PATCH", "configmaps/f", {"data": {"x": "1"}}, kind=MERGE)
    await side.ask("PATCH", "configmaps/f", {"metadata": {"finalizers": ["a.b/c"]}}, kind=MERGE)
    await side.ask("PATCH", "configmaps/f", [{"op": "remove", "path": "/metadata/finalizers/0"}], kind=JSON_PATCH)
    await side.ask("GET", "configmaps/f")
    for policy in ("Foreground", "Orphan", "Background"):
        name = policy.lower()
        await side.ask("POST", "apps/deployments", deployment(name))
        await side.ask("DELETE", f"apps/deployments/{name}", options(propagationPolicy=policy))
        await side.ask("GET", f"apps/deployments/{name}")
    await side.ask("DELETE", "apps/deployments/foreground", options(propagationPolicy="Background"))
    for number in range(3):
        made = configmap(f"many{number}")
        made["metadata"]["labels"] = {"n": str(number)}
        await side.quietly("POST", "configmaps", made)
    await side.ask("DELETE", "configmaps", options(), labelSelector="n in (0,1)")
    listed = await side.quietly("GET", "configmaps", labelSelector="n")
    side.tell("left", [item["metadata"]["name"] for item in listed.body["items"]])
    await side.ask("DELETE", "configmaps/many2", {"kind": "Pod"})
    await side.ask("DELETE", "configmaps/many2", b"{no")
    await side.ask("DELETE", "configmaps/many2", options(gracePeriodSeconds="x"))
    await side.ask("DELETE", "configmaps/many2", gracePeriodSeconds="x")


async def graceful(side: Side) -> None:
    """A pod's end: grace, who may shorten it, what is still allowed."""
    await side.ask("POST", "pods", pod("unbound"))
    await side.ask("DELETE", "pods/unbound")
    bound = {"nodeName": "n1", "tolerations": ANYWHERE}
    made = await side.ask("POST", "pods", pod("a", **bound, terminationGracePeriodSeconds=60))
    await side.ask(
        "DELETE", "pods/a", options(preconditions={"uid": made.uid, "resourceVersion": made.rv}, dryRun=["All"])
    )
    await side.ask("DELETE", "pods/a", options(preconditions={"uid": made.uid, "resourceVersion": made.rv}))
    await side.ask("DELETE", "pods/a")
    await side.ask("DELETE", "pods/a", options(gracePeriodSeconds=90))
    await side.ask("DELETE", "pods/a", options(gracePeriodSeconds=5))
    await side.ask("PATCH", "pods/a", {"metadata": {"labels": {"still": "changes"}}}, kind=MERGE)
    await side.ask("PATCH", "pods/a", {"metadata": {"deletionTimestamp": None}}, kind=MERGE)
    await side.ask("PATCH", "pods/a/status", {"status": {"phase": "Running"}}, kind=MERGE)
    await side.ask("DELETE", "pods/a", options(gracePeriodSeconds=0, preconditions={"uid": made.uid}))
    await side.ask("GET", "pods/a")
    await side.ask("POST", "pods", pod("b", **bound))
    await side.ask("DELETE", "pods/b", options(gracePeriodSeconds=-7))
    await side.ask("DELETE", "pods/b", gracePeriodSeconds=0)
    await side.ask("POST", "pods", pod("done", **bound))
    await side.ask("PATCH", "pods/done/status", {"status": {"phase": "Succeeded"}}, kind=MERGE)
    await side.ask("DELETE", "pods/done")
    held = pod("held", **bound)
    held["metadata"]["finalizers"] = ["a.b/c"]
    await side.ask("POST", "pods", held)
    await side.ask("DELETE", "pods/held")
    await side.ask("DELETE", "pods/held", gracePeriodSeconds=0)
    await side.ask("PATCH", "pods/held", {"metadata": {"finalizers": None}}, kind=MERGE)
    await side.ask("GET", "pods/held")


async def statuses(side: Side) -> None:
    """The status subresource: who may write what."""
    await side.ask("POST", "pods", pod("a", nodeName="n1", tolerations=ANYWHERE))
    conditions = [{"type": "Ready", "status": "True"}]
    body = {
        "metadata": {"labels": {"by": "status"}},
        "spec": {"nodeName": "n2"},
        "status": {"phase": "Running", "conditions": conditions},
    }
    await side.ask("PATCH", "pods/a/status", body, kind=STRATEGIC)
    more = {
        "status": {
            "conditions": [{"type": "Initialized", "status": "True"}],
            "podIP": "10.1.2.3",
            "podIPs": [{"ip": "10.1.2.3"}],
        }
    }
    await side.ask("PATCH", "pods/a/status", more, kind=STRATEGIC)
    await side.ask("PATCH", "pods/a/status", {"status": {"podIP": "10.1.2.4"}}, kind=STRATEGIC)
    await side.ask("PATCH", "pods/a/status", {"status": {"phase": "Nope"}}, kind=MERGE)
    await side.ask("PATCH", "pods/a", {"status": {"phase": "Failed"}}, kind=MERGE)
    await side.ask("GET", "pods/a/status")
    await side.ask("POST", "apps/deployments", deployment("d"))
    await side.ask(
        "PATCH",
        "apps/deployments/d/status",
        {"spec": {"replicas": 9}, "status": {"replicas": 2, "observedGeneration": 1}},
        kind=MERGE,
    )
    await side.ask("PATCH", "apps/deployments/d/status", {"status": {"replicas": -2}}, kind=MERGE)
    await side.ask("PATCH", "apps/deployments/d/status", {"status": {"readyReplicas": 5}}, kind=MERGE)
    await side.ask("PATCH", "apps/deployments/d", {"status": {"replicas": 7}}, kind=MERGE)
    await side.ask("POST", "apps/replicasets", replicaset("r"))
    await side.ask("PATCH", "apps/replicasets/r/status", {"status": {"replicas": 1, "readyReplicas": 2}}, kind=MERGE)


async def scales(side: Side) -> None:
    """The scale subresource."""
    await side.ask("POST", "apps/deployments", deployment("d"))
    scale = await side.ask("GET", "apps/deployments/d/scale")
    await side.ask("PATCH", "apps/deployments/d/scale", {"spec": {"replicas": 5}}, kind=MERGE)
    await side.ask("PUT", "apps/deployments/d/scale", scale.body)
    body = {**scale.body, "spec": {"replicas": 4}, "metadata": {"name": "d", "namespace": side.namespace}}
    await side.ask("PUT", "apps/deployments/d/scale", body)
    await side.ask("PATCH", "apps/deployments/d/scale", {"spec": {"replicas": -1}}, kind=MERGE)
    await side.ask("PATCH", "apps/deployments/d/scale", {"spec": {"replicas": "x"}}, kind=MERGE)
    await side.ask("PATCH", "apps/deployments/d/scale", {"spec": {"replicas": 6}}, kind=MERGE, dryRun="All")
    await side.ask("GET", "apps/deployments/d")
    await side.ask("GET", "apps/deployments/nosuch/scale")
    await side.ask("POST", "apps/deployments/d/scale", scale.body)
    await side.ask("DELETE", "apps/deployments/d/scale")


async def evictions(side: Side) -> None:
    """Eviction with and without a budget. No controller runs: the budget's status is written by hand."""
    bound = {"nodeName": "n1", "tolerations": ANYWHERE}
    for name in ("a", "b", "c", "d", "e"):
        await side.ask("POST", "pods", pod(name, **bound))
    ready = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    for name in ("a", "b", "d"):
        await side.quietly("PATCH", f"pods/{name}/status", ready, kind=MERGE)
    eviction: dict[str, Any] = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}}
    await side.ask("POST", "pods/a/eviction", {**eviction, "deleteOptions": {"dryRun": ["All"]}})
    await side.ask(
        "POST",
        "pods/a/eviction",
        {**eviction, "deleteOptions": {"preconditions": {"uid": "00000000-0000-4000-8000-000000000000"}}},
    )
    await side.ask("POST", "pods/a/eviction", eviction)
    made = await side.ask("POST", "policy/poddisruptionbudgets", budget("web"))
    await side.ask("POST", "pods/b/eviction", {"metadata": {"name": "b"}})
    status = {
        "disruptionsAllowed": 0,
        "currentHealthy": 2,
        "desiredHealthy": 2,
        "expectedPods": 5,
        "observedGeneration": 1,
    }
    await side.ask("PATCH", "policy/poddisruptionbudgets/web/status", {"status": status}, kind=MERGE)
    await side.ask("POST", "pods/b/eviction", {"metadata": {"name": "b"}})
    await side.ask("POST", "pods/c/eviction", {"metadata": {"name": "c"}})
    await side.ask("PATCH", "policy/poddisruptionbudgets/web/status", {"status": {"disruptionsAllowed": 1}}, kind=MERGE)
    await side.ask("POST", "pods/b/eviction", {**eviction, "metadata": {"name": "b"}, "apiVersion": "policy/v1beta1"})
    await side.ask("POST", "pods/b/eviction", {"metadata": {"name": "b"}})
    await side.ask("GET", "policy/poddisruptionbudgets/web")
    await side.ask("POST", "pods/d/eviction", {"metadata": {"name": "d"}})
    await side.ask("POST", "policy/poddisruptionbudgets", budget("second"))
    await side.ask("POST", "pods/d/eviction", {"metadata": {"name": "d"}})
    await side.ask("POST", "pods/nosuch/eviction", {"metadata": {"name": "nosuch"}})
    await side.ask("POST", "pods/d/eviction", {"metadata": {"name": "other"}})
    await side.ask("GET", "pods/d/eviction")
    await side.ask("PATCH", "policy/poddisruptionbudgets/web", {"spec": {"minAvailable": 2}}, kind=MERGE)
    assert made.status == 201


async def others(side: Side) -> None:
    """Binding, finalize, service account tokens, methods that are not there."""
    await side.ask("POST", "pods", pod("a"))
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "a"},
        "target": {"kind": "Node", "name": "n1"},
    }
    await side.ask("POST", "pods/a/binding", binding)
    await side.ask("GET", "pods/a")
    await side.ask("POST", "pods/a/binding", binding)
    await side.ask("POST", "pods/nosuch/binding", {**binding, "metadata": {"name": "nosuch"}})
    await side.ask("PATCH", "pods/a", {"spec": {"nodeName": "n2"}}, kind=MERGE)
    await side.ask("POST", "pods/a/status", {})
    await side.ask("DELETE", "pods/a/status")
    await side.ask("POST", "events", {"metadata": {"name": "e"}, "involvedObject": {"namespace": "elsewhere"}})
    event = {
        "metadata": {"name": "e"},
        "involvedObject": {"namespace": side.namespace, "kind": "Pod", "name": "a"},
        "reason": "R",
        "type": "Normal",
    }
    await side.ask("POST", "events", event)
    await side.ask("GET", f"/apis/events.k8s.io/v1/namespaces/{side.namespace}/events/e")


STORIES = (deletes, graceful, statuses, scales, evictions, others)
