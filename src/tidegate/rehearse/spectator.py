"""What the API showed of a row's pods, with the instant each thing was first seen.

An outside view, taken through an ordinary watch: the judge must not ask the judged when they did something.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tidegate import vtime
from tidegate.kube.api import PODS, Api, JsonObject, Selection
from tidegate.kube.reflector import Reflector
from tidegate.model.decode import Malformed
from tidegate.model.names import DrainResult, Ending, decode_result


@dataclass(frozen=True, slots=True)
class PodSeen:
    """One pod, and when (wall seconds) the watch first showed each step of its life. None = not shown."""

    name: str
    uid: str
    version: str
    created_at: float
    node: str = ""
    ip: str = ""
    ready_at: float | None = None
    deleted_at: float | None = None
    gone_at: float | None = None
    result: DrainResult | None = None


def read_result(pod: JsonObject) -> DrainResult | None:
    """The drain result on a pod, if any. One that cannot be read vouches for nothing: ``bypassed``."""
    try:
        return decode_result(pod["metadata"].get("annotations") or {})
    except Malformed as error:
        return DrainResult(Ending.BYPASSED, f"the drain result on the pod is unreadable: {error}")


def is_ready(pod: JsonObject) -> bool:
    """The pod's Ready condition."""
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _first_seen(pod: JsonObject, at: float) -> PodSeen:
    metadata = pod["metadata"]
    _, _, tag = pod["spec"]["containers"][0]["image"].rpartition(":")
    return PodSeen(metadata["name"], metadata["uid"], tag, created_at=at)


def advance(seen: PodSeen, pod: JsonObject, at: float) -> PodSeen:
    """What is known of a pod after one more look at it. An instant once set stays."""
    metadata, status = pod["metadata"], pod.get("status", {})
    return replace(
        seen,
        node=pod["spec"].get("nodeName") or seen.node,
        ip=status.get("podIP") or seen.ip,
        ready_at=at if seen.ready_at is None and is_ready(pod) else seen.ready_at,
        deleted_at=at if seen.deleted_at is None and metadata.get("deletionTimestamp") else seen.deleted_at,
        result=read_result(pod) or seen.result,
    )


@dataclass(slots=True)
class Spectator:
    """Watches the pods of one namespace. ``await run()`` for as long as the row lasts."""

    api: Api
    namespace: str
    seen: dict[str, PodSeen] = field(default_factory=dict)
    """By uid, in the order they appeared."""
    changed: Callable[[], None] = lambda: None

    async def run(self) -> None:
        reflector = Reflector(self.api, PODS, Selection(namespace=self.namespace))
        reflector.subscribe(self._look)
        await reflector.run()

    def _look(self, old: JsonObject | None, new: JsonObject | None) -> None:
        at = vtime.now().timestamp()
        pod = new or old
        if pod is None:
            return
        uid = pod["metadata"]["uid"]
        if old is not None and new is not None and old["metadata"]["uid"] != uid:
            self._gone(old["metadata"]["uid"], at)
        self.seen[uid] = advance(self.seen.get(uid) or _first_seen(pod, at), pod, at)
        if new is None:
            self._gone(uid, at)
        self.changed()

    def _gone(self, uid: str, at: float) -> None:
        if uid in self.seen:
            self.seen[uid] = replace(self.seen[uid], gone_at=at)

    def pods(self, version: str = "") -> tuple[PodSeen, ...]:
        """Pods in order of appearance; of one version, if asked."""
        return tuple(pod for pod in self.seen.values() if version in ("", pod.version))
