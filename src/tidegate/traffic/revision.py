"""Which revision a pod is: of which workload, which of its templates, and the version people call it by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tidegate.model.decode import Malformed
from tidegate.model.names import decode_drain
from tidegate.model.pod import Owner, Pod
from tidegate.model.workload import HASH_LABEL, Workload

CONTROLLER_HASH_LABEL = "controller-revision-hash"
"""On pods of StatefulSets and DaemonSets: the ControllerRevision they were made from."""
VERSION_LABELS = ("app.kubernetes.io/version", "version")
"""Where people write a version, the recommended label first."""


@dataclass(frozen=True, slots=True, order=True)
class Revision:
    """``workload`` is the topmost owner ("Deployment web"; empty for a bare pod), ``number`` its revision as the
    owner counts (a number, or a hash; empty where nothing tells). ``version`` is text for people and no identity."""

    workload: str
    number: str
    version: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What two pods of one revision share. Bare pods have nothing but their version."""
        return (self.workload, self.number) if self.workload else ("", self.version)

    def __str__(self) -> str:
        _, _, name = self.workload.partition(" ")
        return f"{name} r{self.number}" if self.number else name or "bare"


def owner_of(pod: Pod) -> Owner | None:
    """The pod's controller; for a pod that a verb released, the one its record names."""
    if pod.owner is not None:
        return pod.owner
    try:
        record = decode_drain(pod.annotations)
    except Malformed:
        return None
    parts = record.owner.split("/") if record is not None else []
    return Owner(*parts) if len(parts) == 3 else None


def revision_of(pod: Pod, workloads: Mapping[str, Workload]) -> Revision:
    """``workloads`` are by uid. An owner that is not among them is named as the pod names it."""
    labels, owner = labels_before(pod), owner_of(pod)
    version = next((labels[key] for key in VERSION_LABELS if labels.get(key)), "") or image_tag(pod.image)
    if owner is None:
        return Revision("", "", version)
    known = workloads.get(owner.uid)
    top = known.owner if known is not None and known.owner is not None else owner
    name = f"{top.kind} {top.name}"
    if owner.kind == "ReplicaSet":
        number = str(known.revision) if known is not None and known.revision else labels.get(HASH_LABEL, "")
        return Revision(name, number, version)
    return Revision(name, labels.get(CONTROLLER_HASH_LABEL, "").removeprefix(f"{owner.name}-"), version)


def labels_before(pod: Pod) -> dict[str, str]:
    """The pod's labels before a verb changed them."""
    try:
        record = decode_drain(pod.annotations)
    except Malformed:
        record = None
    return {**pod.labels, **record.labels} if record is not None else pod.labels


def image_tag(image: str) -> str:
    """``repo:5000/web:v2`` -> ``v2``; a digest shortened to 12 digits; ``latest`` where neither is written."""
    name = image.rpartition("/")[2]
    name, _, digest = name.partition("@")
    _, _, tag = name.partition(":")
    return tag or (digest.rpartition(":")[2][:12] if digest else "latest" if name else "")
