"""Stories of StatefulSets, DaemonSets and Jobs as objects: defaults, refusals, what may change, tables, scale."""

from __future__ import annotations

from typing import Any

from tests.realcluster.objects import deployment
from tests.realcluster.twin import MERGE, TABLE, Side


def stateful(name: str, **spec: Any) -> dict[str, Any]:
    return {**deployment(name, **spec), "kind": "StatefulSet"}


def daemon(name: str, **spec: Any) -> dict[str, Any]:
    made = {**deployment(name, **spec), "kind": "DaemonSet"}
    del made["spec"]["replicas"]
    return made


def job(name: str, **spec: Any) -> dict[str, Any]:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "app", "image": "app:1"}]}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template, **spec}}


async def stateful_sets(side: Side) -> None:
    """Created, refused, changed, scaled."""
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    nothing = {"metadata": {"name": "more"}}
    await side.ask("POST", "apps/statefulsets", stateful("plain"))
    await side.ask("POST", "apps/statefulsets", stateful("small", volumeClaimTemplates=[claim, nothing]))
    claim["spec"]["resources"] = {"requests": {"storage": "1Gi"}}
    await side.ask("POST", "apps/statefulsets", stateful("named", serviceName="web", volumeClaimTemplates=[claim]))
    rolling = {"rollingUpdate": {"partition": 1, "maxUnavailable": 2}}
    await side.ask("POST", "apps/statefulsets", stateful("rolling", updateStrategy=rolling, ordinals={"start": 3}))
    await side.ask("POST", "apps/statefulsets", stateful("manual", updateStrategy={"type": "OnDelete"}))
    for number, spec in enumerate(
        (
            {"podManagementPolicy": "Sometimes"},
            {"replicas": -1},
            {"selector": {"matchLabels": {"app": "other"}}},
            {"selector": {}},
            {"minReadySeconds": -1},
            {"updateStrategy": {"type": "Never"}},
            {"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}},
            {"updateStrategy": {"rollingUpdate": {"partition": -1}}},
            {"ordinals": {"start": -1}},
        )
    ):
        await side.ask("POST", "apps/statefulsets", stateful(f"bad-{number}", **spec))
    path = "apps/statefulsets/plain"
    for body in (
        {"spec": {"serviceName": "other"}},
        {"spec": {"podManagementPolicy": "Parallel"}},
        {"spec": {"selector": {"matchLabels": {"more": "x"}}}},
        {"spec": {"replicas": 5, "minReadySeconds": 3}},
        {"metadata": {"labels": {"x": "y"}, "annotations": {"a": "b"}}},
        {"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}},
    ):
        await side.ask("PATCH", path, body, kind=MERGE)
    await side.ask("GET", f"{path}/scale")
    await side.ask("PATCH", f"{path}/scale", {"spec": {"replicas": 1}}, kind=MERGE)
    counts = {"replicas": 1, "readyReplicas": 1, "currentRevision": "plain-1", "updateRevision": "plain-1"}
    await side.ask("PATCH", f"{path}/status", {"status": counts}, kind=MERGE)
    await side.ask("PATCH", f"{path}/status", {"status": {"readyReplicas": 2}}, kind=MERGE)
    await side.ask("GET", "apps/statefulsets", accept=TABLE)


async def daemon_sets(side: Side) -> None:
    """Created, refused, changed: the template generation counts templates only."""
    await side.ask("POST", "apps/daemonsets", daemon("plain"))
    forged = daemon("forged")
    forged["metadata"]["annotations"] = {"deprecated.daemonset.template.generation": "7", "a": "b"}
    await side.ask("POST", "apps/daemonsets", forged)
    surge = {"rollingUpdate": {"maxSurge": "20%", "maxUnavailable": 0}}
    await side.ask("POST", "apps/daemonsets", daemon("surge", updateStrategy=surge))
    for number, spec in enumerate(
        (
            {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}}},
            {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}}},
            {"selector": {"matchLabels": {"app": "other"}}},
        )
    ):
        await side.ask("POST", "apps/daemonsets", daemon(f"bad-{number}", **spec))
    path = "apps/daemonsets/plain"
    for body in (
        {"spec": {"minReadySeconds": 3}},
        {"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}},
        {"metadata": {"annotations": {"deprecated.daemonset.template.generation": "9"}}},
        {"metadata": {"labels": {"x": "y"}}},
        {"spec": {"selector": {"matchLabels": {"more": "x"}}}},
    ):
        await side.ask("PATCH", path, body, kind=MERGE)
    counts = {"numberReady": 1, "desiredNumberScheduled": 2, "currentNumberScheduled": 2, "numberMisscheduled": 0}
    await side.ask("PATCH", f"{path}/status", {"status": counts}, kind=MERGE)
    await side.ask("GET", "apps/daemonsets", accept=TABLE)


async def jobs(side: Side) -> None:
    """Created, refused, changed; what a status may say; deleted without a word."""
    jobs = f"/apis/batch/v1/namespaces/{side.namespace}/jobs"
    await side.ask("POST", jobs, job("plain"))
    await side.ask("POST", jobs, job("many", completions=3, parallelism=2))
    await side.ask("POST", jobs, job("numbered", completions=3, parallelism=3, completionMode="Indexed"))
    policy = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]}
    await side.ask("POST", jobs, job("careful", podFailurePolicy=policy))
    hand = job("by-hand", manualSelector=True, selector={"matchLabels": {"app": "web"}})
    hand["spec"]["template"]["metadata"] = {"labels": {"app": "web"}}
    await side.ask("POST", jobs, hand)
    labelled = job("labelled")
    labelled["metadata"]["labels"] = {"app": "mine"}
    labelled["spec"]["template"]["metadata"] = {"labels": {"job-name": "other"}}
    await side.ask("POST", jobs, labelled)
    always = job("always")
    always["spec"]["template"]["spec"]["restartPolicy"] = "Always"
    await side.ask("POST", jobs, always)
    await side.ask("POST", jobs, job("nameless-indexes", completionMode="Indexed", parallelism=1))
    await side.ask("POST", jobs, job("negative", backoffLimit=-1))
    for name, body in (
        ("plain", {"spec": {"parallelism": 2}}),
        ("plain", {"spec": {"completions": 2}}),
        ("numbered", {"spec": {"completions": 4}}),
        ("numbered", {"spec": {"completions": 4, "parallelism": 4}}),
        ("plain", {"spec": {"completionMode": "Indexed"}}),
        ("plain", {"spec": {"suspend": True}}),
        ("plain", {"spec": {"backoffLimit": 3, "ttlSecondsAfterFinished": 5}}),
        ("plain", {"metadata": {"labels": {"x": "y"}}}),
    ):
        await side.ask("PATCH", f"{jobs}/{name}", body, kind=MERGE)
    begun = {"startTime": "2026-01-01T00:00:00Z", "active": 1, "ready": 1, "terminating": 0}
    await side.ask("PATCH", f"{jobs}/many/status", {"status": begun}, kind=MERGE)
    await side.ask("PATCH", f"{jobs}/many/status", {"status": {"active": 0}}, kind=MERGE)
    await side.ask("GET", jobs, accept=TABLE)
    await side.ask("DELETE", f"{jobs}/many")
    await side.ask("DELETE", f"{jobs}/plain", {"propagationPolicy": "Background"})


STORIES = (stateful_sets, daemon_sets, jobs)
