"""What happened in a namespace as a story: one line per change, names made stable, times in milliseconds."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from tidegate.kube.api import DEPLOYMENTS, ENDPOINTSLICES, EVENTS, PODS, REPLICASETS, JsonObject, Selection, WatchEvent

from .controller_world import NAMESPACE, Cluster

REVISION = "deployment.kubernetes.io/revision"
_TOLD = (DEPLOYMENTS, REPLICASETS, PODS, ENDPOINTSLICES, EVENTS)


class Teller:
    """Changes as lines; generated names get a number in order of appearance, a ReplicaSet its revision."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._last: dict[tuple[str, str], str] = {}

    def line(self, event_type: str, obj: JsonObject) -> str:
        """One change as a line; "" when nothing that is told changed."""
        kind, name = obj["kind"], obj["metadata"]["name"]
        self._learn(obj)
        if kind == "Event":
            return self._stable(f"event      {_event(obj)}")
        text = "gone" if event_type == "DELETED" else _DESCRIPTIONS[kind](obj)
        if self._last.get((kind, name)) == text:
            return ""
        self._last[kind, name] = text
        return self._stable(f"{self._stable(f'{kind.lower()} {name}'):<10} {text}")

    def _learn(self, obj: JsonObject) -> None:
        kind, name = obj["kind"], obj["metadata"]["name"]
        if kind == "ReplicaSet" and name not in self._names:
            self._names[name] = f"@{obj['metadata']['annotations'][REVISION]}"
        elif kind == "Pod" and "statefulset.kubernetes.io/pod-name" in (obj["metadata"].get("labels") or {}):
            return  # its name is its own
        elif kind == "Pod" and name not in self._names:
            count = sum(1 for known in self._names.values() if known.startswith("pod-"))
            self._names[name] = f"pod-{count + 1}"
        elif kind == "EndpointSlice" and name not in self._names:
            count = sum(1 for known in self._names.values() if known.startswith("slice-"))
            self._names[name] = f"slice-{count + 1}"

    def _stable(self, text: str) -> str:
        for name in sorted(self._names, key=len, reverse=True):
            text = text.replace(name, self._names[name])
        return re.sub(r"pod pod-|endpointslice slice-|replicaset @", lambda hit: hit[0].split(" ")[1], text)


class Transcript:
    """Follows a cluster from its making on; ``text`` tells everything so far, ``tell`` adds a line of one's own."""

    def __init__(self, cluster: Cluster, *resources: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._begin = self._loop.time()
        self._seen: list[tuple[int, float, WatchEvent]] = []
        self._own: list[tuple[int, float, str]] = []
        for resource in resources or _TOLD:
            cluster.start(self._follow(cluster, resource))

    async def _follow(self, cluster: Cluster, resource: Any) -> None:
        # What stands is told at first, what was said is not.
        since = (await cluster.api.list(EVENTS)).resource_version if resource is EVENTS else "0"
        async for event in cluster.api.watch(resource, Selection(NAMESPACE), since):
            version = int(event.object["metadata"]["resourceVersion"])
            self._seen.append((version, self._loop.time(), event))

    def tell(self, text: str) -> None:
        """A line of the story's own, where it stands now."""
        version = max((entry[0] for entry in self._seen), default=0)
        self._own.append((version, self._loop.time(), text))

    @property
    def changes(self) -> list[WatchEvent]:
        """Everything that happened, in order of resourceVersion."""
        return [event for _, _, event in sorted(self._seen, key=lambda entry: entry[0])]

    def text(self) -> str:
        entries: list[tuple[int, int, float, Any]] = [(rv, 0, at, event) for rv, at, event in self._seen]
        entries += [(rv, 1, at, text) for rv, at, text in self._own]
        lines, teller = [], Teller()
        for _, _, at, what in sorted(entries, key=lambda entry: entry[:2]):
            when = f"{round((at - self._begin) * 1000):>6}  "
            told = f"== {what}" if isinstance(what, str) else teller.line(what.type, what.object)
            if told:
                lines.append(when + told)
        return "\n".join(lines) + "\n"


def _conditions(obj: JsonObject) -> str:
    found = obj.get("status", {}).get("conditions") or ()
    return " ".join(f"{one['type']}={one['status']}/{one['reason']}" for one in found)


def _counts(status: JsonObject, *fields: str) -> str:
    return " ".join(f"{field} {status[field + 'Replicas']}" for field in fields if status.get(field + "Replicas"))


def _deployment(obj: JsonObject) -> str:
    status, spec = obj.get("status") or {}, obj["spec"]
    observed = status.get("observedGeneration") == obj["metadata"]["generation"]
    paused = " paused" if spec.get("paused") else ""
    image = spec["template"]["spec"]["containers"][0]["image"]
    revision = (obj["metadata"].get("annotations") or {}).get(REVISION, "none")
    head = f"wants {spec['replicas']} of {image}{paused}, revision {revision}{'' if observed else ', not observed'}"
    counts = f"total {status.get('replicas', 0)} " + _counts(
        status, "updated", "ready", "available", "unavailable", "terminating"
    )
    return f"{head} | {counts.strip()} | {_conditions(obj)}".rstrip(" |")


def _replicaset(obj: JsonObject) -> str:
    status = obj.get("status") or {}
    has = f"has {status.get('replicas', 0)} " + _counts(status, "ready", "available", "terminating")
    failing = _conditions(obj)
    return f"size {obj['spec']['replicas']} | {has.strip()}" + (f" | {failing}" if failing else "")


def _statefulset(obj: JsonObject) -> str:
    status, spec = obj.get("status") or {}, obj["spec"]
    head = f"wants {spec['replicas']} of {spec['template']['spec']['containers'][0]['image']}"
    counts = _counts(status, "current", "updated", "ready", "available")
    is_rolling = status.get("currentRevision") != status.get("updateRevision")
    return f"{head} | total {status.get('replicas', 0)} {counts}".rstrip() + (" | rolling" if is_rolling else "")


def _daemonset(obj: JsonObject) -> str:
    status, image = obj.get("status") or {}, obj["spec"]["template"]["spec"]["containers"][0]["image"]
    fields = {"desiredNumberScheduled": "desired", "currentNumberScheduled": "current", "numberMisscheduled": "strayed"}
    fields |= {"updatedNumberScheduled": "updated", "numberReady": "ready", "numberAvailable": "available"}
    return f"of {image} | " + " ".join(f"{word} {status[name]}" for name, word in fields.items() if status.get(name))


def _job(obj: JsonObject) -> str:
    status, spec = obj.get("status") or {}, obj["spec"]
    noted = {kind: len(uids) for kind, uids in (status.get("uncountedTerminatedPods") or {}).items()}
    words = [f"{name} {status[name]}" for name in ("active", "ready", "terminating") if status.get(name)]
    words += [f"{name} {status[name]}" for name in ("succeeded", "failed") if status.get(name)]
    words += [f"{count} {kind} to count" for kind, count in noted.items()]
    head = f"wants {spec.get('completions')}, {spec['parallelism']} at once"
    return f"{head} | {' '.join(words) or 'nothing'} | {_conditions(obj)}".rstrip(" |")


def _revision(obj: JsonObject) -> str:
    return f"is number {obj['revision']}"


def _pod(obj: JsonObject) -> str:
    status = obj["status"]
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions") or ())
    words = [status.get("phase", "")]
    words += [f"on {obj['spec']['nodeName']}"] if obj["spec"].get("nodeName") else []
    words += ["ready"] if ready else []
    words += ["tracked"] if "batch.kubernetes.io/job-tracking" in obj["metadata"].get("finalizers", ()) else []
    words += ["leaving"] if obj["metadata"].get("deletionTimestamp") else []
    words += [] if obj["metadata"].get("ownerReferences") else ["orphan"]
    return " ".join(words)


def _slice(obj: JsonObject) -> str:
    said = []
    for endpoint in obj.get("endpoints") or ():
        held = endpoint["conditions"]
        words = [word for word in ("ready", "serving", "terminating") if held[word]]
        said.append(f"{endpoint['targetRef']['name']}({'+'.join(words) or 'not serving'})")
    return " ".join(said) or "empty"


def _event(obj: JsonObject) -> str:
    return f"{obj['reason']}: {obj['message']}" + (f" (x{obj['count']})" if (obj.get("count") or 1) > 1 else "")


_DESCRIPTIONS = {
    "Deployment": _deployment,
    "ReplicaSet": _replicaset,
    "StatefulSet": _statefulset,
    "DaemonSet": _daemonset,
    "Job": _job,
    "ControllerRevision": _revision,
    "Pod": _pod,
    "EndpointSlice": _slice,
    "Event": _event,
}
