"""Stories of evictions against budgets whose status is written by hand: every refusal, every condition."""

from __future__ import annotations

from typing import Any

from tests.realcluster.objects import budget, pod
from tests.realcluster.twin import MERGE, Side

BUDGETS = "policy/poddisruptionbudgets"
READY = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
UNREADY = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}}


async def _pods(side: Side, *names: str, status: dict[str, Any] = READY) -> None:
    for name in names:
        made = pod(name, nodeName="n1", tolerations=[{"operator": "Exists"}])
        await side.quietly("POST", "pods", made)
        await side.quietly("PATCH", f"pods/{name}/status", status, kind=MERGE)


async def _status(side: Side, **status: Any) -> None:
    wanted = {"observedGeneration": 1, "expectedPods": 3, **status}
    await side.quietly("PATCH", f"{BUDGETS}/web/status", {"status": wanted}, kind=MERGE)


async def _evict(side: Side, name: str, **more: Any) -> None:
    await side.ask("POST", f"pods/{name}/eviction", {"metadata": {"name": name}, **more})


async def refused_evictions(side: Side) -> None:
    """Why a budget allows nothing, in each of its reasons."""
    await _pods(side, "a")
    await side.quietly("POST", BUDGETS, budget("web"))
    await _evict(side, "a")
    verdict = {"type": "DisruptionAllowed", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    for reason, message, healthy, desired in (
        ("InsufficientPods", "", 1, 1),
        ("InsufficientPods", "", 3, 1),
        ("SyncFailed", 'found no controllers for pod "x"', 0, 0),
        ("SyncFailed", 'found no controllers for pod "x"', 3, 1),
        ("Frozen", "by hand", 3, 1),
        ("Frozen", "by hand", 1, 1),
    ):
        conditions = [{**verdict, "reason": reason, "message": message}]
        await _status(side, disruptionsAllowed=0, currentHealthy=healthy, desiredHealthy=desired, conditions=conditions)
        await _evict(side, "a")
    await _status(side, disruptionsAllowed=0, currentHealthy=3, desiredHealthy=1, conditions=None)
    await _evict(side, "a")
    await _evict(side, "a", deleteOptions={"dryRun": ["All"]})
    await side.ask("GET", "pods/a")


async def allowed_evictions(side: Side) -> None:
    """What an eviction leaves on the pod and on the budget; unready pods; preconditions; dry run."""
    await _pods(side, "a", "b", "c")
    await _pods(side, "unready", status=UNREADY)
    await side.quietly("POST", BUDGETS, budget("web"))
    await _status(side, disruptionsAllowed=2, currentHealthy=3, desiredHealthy=1)
    await _evict(side, "a", deleteOptions={"dryRun": ["All"]})
    await side.ask("GET", "pods/a")
    await side.ask("GET", f"{BUDGETS}/web")
    live = await side.quietly("GET", "pods/a")
    stale = {"preconditions": {"resourceVersion": "1"}}
    answer = await side.quietly("POST", "pods/a/eviction", {"metadata": {"name": "a"}, "deleteOptions": stale})
    side.tell("stale version", (answer.status, answer.body["reason"]))
    await side.ask("GET", "pods/a")
    exact = {"preconditions": {"resourceVersion": live.rv, "uid": live.uid}}
    await side.quietly("POST", "pods/a/eviction", {"metadata": {"name": "a"}, "deleteOptions": exact})
    evicted = (await side.quietly("GET", "pods/a")).body
    side.tell("evicted", [evicted["status"], "deletionTimestamp" in evicted["metadata"]])
    spent = (await side.quietly("GET", f"{BUDGETS}/web")).body["status"]
    side.tell("spent", {**spent, "disruptedPods": sorted(spent["disruptedPods"])})
    await _evict(side, "a")
    await _evict(side, "unready", deleteOptions={"gracePeriodSeconds": 5})
    gone = (await side.quietly("GET", "pods/unready")).body
    side.tell("unready", [gone["status"], gone["metadata"]["deletionGracePeriodSeconds"]])
    await _status(side, disruptionsAllowed=0, currentHealthy=0, desiredHealthy=1)
    await _pods(side, "sick", status=UNREADY)
    await _evict(side, "sick")
    await side.quietly("PATCH", f"{BUDGETS}/web", {"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}}, kind=MERGE)
    await _status(side, disruptionsAllowed=0, currentHealthy=0, desiredHealthy=1, observedGeneration=2)
    await _evict(side, "b")
    await _evict(side, "sick")
    await side.quietly("POST", BUDGETS, budget("other"))
    await _evict(side, "b")
    await _evict(side, "nosuch")


STORIES = (refused_evictions, allowed_evictions)
