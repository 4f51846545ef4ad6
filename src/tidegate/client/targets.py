"""Which pods a verb is about: by name, all of a workload, or the first so many that a selector selects."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.client.kinds import RESOURCES
from tidegate.engine.owners import KINDS
from tidegate.kube.api import PODS, REPLICASETS, Api, JsonObject, Selection
from tidegate.kube.errors import KubeError
from tidegate.model import pod, workload
from tidegate.model.names import decode_drain
from tidegate.model.pod import Pod


class TooFewPods(KubeError):
    """Fewer pods than asked for: never silently fewer. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Targets:
    """``names`` of pods, a ``workload`` (kind of ``client.kinds``, name), or a ``selector`` (kubectl's ``-l``).

    At most ``count`` of what is selected or owned, 0 for all.
    """

    namespace: str
    names: tuple[str, ...] = ()
    selector: str = ""
    count: int = 0
    workload: tuple[str, str] | None = None

    @property
    def subject(self) -> str:
        """What is not told by name, in words that stay the same from run to run; empty for names."""
        if self.workload is not None:
            return "/".join(self.workload)
        return f"-l {self.selector}" if self.selector else ""


async def pods_of(api: Api, targets: Targets) -> tuple[str, ...]:
    """Names of the pods, in order. Raises ``KubeError``: ``TooFewPods`` where there are fewer than ``count``."""
    if targets.names:
        return tuple(dict.fromkeys(targets.names))
    return tuple(one.name for one in enough(await candidates(api, targets), targets))


async def candidates(api: Api, targets: Targets) -> list[Pod]:
    """The pods that the selector selects or the workload owns, in order; a workload's drains under way among them.

    Raises ``KubeError``: 404 for a workload that is not there.
    """
    labels = targets.selector if targets.workload is None else ""
    found = [pod.decode(obj) for obj in (await api.list(PODS, Selection(targets.namespace, labels))).items]
    if targets.workload is not None:
        owners = await _owners(api, targets.namespace, targets.workload)
        found = [one for one in found if _owner_uid(one) in owners]
    return sorted((one for one in found if not one.is_terminating and not one.is_finished), key=_order)


def enough(found: list[Pod], targets: Targets) -> list[Pod]:
    """As many as were asked for. Raises ``TooFewPods``."""
    if len(found) < max(targets.count, 1):
        has = "are no pods" if not found else "is 1 pod" if len(found) == 1 else f"are {len(found)} pods"
        raise TooFewPods(f"there {has} of {targets.subject} to choose {targets.count or 'any'} from")
    return found[: targets.count or None]


async def _owners(api: Api, namespace: str, about: tuple[str, str]) -> frozenset[str]:
    """Uids of what owns the workload's pods: a Deployment's are owned by its ReplicaSets."""
    kind, name = about
    uid = str((await api.get(RESOURCES[kind], name, namespace))["metadata"]["uid"])
    if kind != "deploy":
        return frozenset((uid,))
    sets: list[JsonObject] = (await api.list(REPLICASETS, Selection(namespace))).items
    decoded = (workload.decode({"kind": KINDS["ReplicaSet"].kind, **obj}) for obj in sets)
    return frozenset(one.uid for one in decoded if one.owner is not None and one.owner.uid == uid)


def _owner_uid(one: Pod) -> str:
    """Its controller's; of a pod that a drain has taken from its controller, the one its record names."""
    if one.owner is not None:
        return one.owner.uid
    record = decode_drain(one.annotations)
    return record.owner.rpartition("/")[2] if record is not None and record.verb == "drain" else ""


def _order(one: Pod) -> tuple[bool, str]:
    """Those that serve nothing go first; then by name, so that a second run chooses the same."""
    return one.is_ready, one.name
