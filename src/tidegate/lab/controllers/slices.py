"""What EndpointSlices a Service should have, as a pure question (staging/src/k8s.io/endpointslice reconciler.go).

Slices are changed as little as possible: an endpoint stays in the slice it is in, changed slices are filled
before unchanged ones, and a slice that would be deleted is re-used for one that would be created.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tidegate.kube.api import ENDPOINTSLICES, JsonObject
from tidegate.kube.reflector import key_of
from tidegate.lab.controllers.endpoint import (
    Identity,
    addresses,
    endpoint_of,
    identity,
    ports_of,
    should_be_listed,
)
from tidegate.lab.controllers.labels import labels_of
from tidegate.lab.controllers.owners import reference_to
from tidegate.lab.controllers.pods import is_terminating
from tidegate.lab.controllers.topology import distribution, needs_hints, with_hints, without_hints
from tidegate.lab.controllers.writes import Create, Remove, Replace, Write
from tidegate.lab.instants import stamp

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
SERVICE_NAME = "kubernetes.io/service-name"
HEADLESS = "service.kubernetes.io/headless"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
CONTROLLER = "endpointslice-controller.k8s.io"
ENDPOINTS_MAX = 100
_RESERVED = (MANAGED_BY, SERVICE_NAME, HEADLESS)

PortsKey = tuple[tuple[str, str, int, str], ...]


@dataclass(frozen=True, slots=True)
class View:
    """All that one pass may look at: the Service, the pods it selects, its slices and the nodes by name."""

    service: JsonObject
    pods: tuple[JsonObject, ...]
    slices: tuple[JsonObject, ...]
    nodes: Mapping[str, JsonObject]
    trigger: datetime | None


@dataclass
class _Changes:
    create: list[JsonObject] = field(default_factory=list)
    update: list[JsonObject] = field(default_factory=list)
    delete: list[JsonObject] = field(default_factory=list)


def plan(view: View) -> tuple[list[Write], list[str]]:
    """The writes, and the names of pods left out because their node is unknown (to be tried again)."""
    types = address_types(view.service)
    changes, lost = _Changes(), []
    changes.delete = [one for one in view.slices if one.get("addressType") not in types]
    for kind in types:
        lost += _reconcile_type(view, kind, changes)
    _hint(view, changes)
    _reuse(view.service, changes)
    writes: list[Write] = []
    if not is_terminating(view.service):
        writes += [Create(ENDPOINTSLICES, _triggered(one, view.trigger)) for one in changes.create]
    writes += [Replace(ENDPOINTSLICES, _triggered(one, view.trigger)) for one in changes.update]
    writes += [Remove(ENDPOINTSLICES, key_of(one)) for one in changes.delete]
    return writes, lost


def address_types(service: JsonObject) -> list[str]:
    """The families the Service has, else that of its ClusterIP, else both (headless)."""
    spec = service["spec"]
    families = [family for family in spec.get("ipFamilies") or () if family in ("IPv4", "IPv6")]
    if families:
        return families
    if has_cluster_ip(service):
        return [f"IPv{ipaddress.ip_address(spec['clusterIP']).version}"]
    return ["IPv4", "IPv6"]


def has_cluster_ip(service: JsonObject) -> bool:
    """False for headless Services."""
    return service["spec"].get("clusterIP") not in (None, "", "None")


def _ports_key(ports: Iterable[JsonObject]) -> PortsKey:
    return tuple(
        sorted(
            (
                port.get("name") or "",
                port.get("protocol") or "TCP",
                port.get("port") or 0,
                port.get("appProtocol") or "",
            )
            for port in ports
        )
    )


def _reconcile_type(view: View, kind: str, changes: _Changes) -> list[str]:
    """Slices of one address type: group pods by the ports they resolve to, then fit each group in its slices."""
    mine = [one for one in view.slices if one.get("addressType") == kind]
    existing: dict[PortsKey, list[JsonObject]] = {}
    for one in mine:
        if _is_of(one, view.service):
            existing.setdefault(_ports_key(one.get("ports") or ()), []).append(one)
        else:
            changes.delete.append(one)
    desired: dict[PortsKey, dict[Identity, JsonObject]] = {}
    ports: dict[PortsKey, list[JsonObject]] = {}
    lost = []
    for pod in view.pods:
        if not should_be_listed(pod):
            continue
        found = ports_of(view.service, pod)
        group = _ports_key(found)
        ports.setdefault(group, found)
        endpoints = desired.setdefault(group, {})
        node = view.nodes.get(pod["spec"].get("nodeName") or "")
        if node is None and not view.service["spec"].get("publishNotReadyAddresses"):
            lost.append(pod["metadata"]["name"])
        elif addresses(pod, kind):
            endpoint = endpoint_of(pod, node, view.service, kind)
            endpoints.setdefault(identity(endpoint), endpoint)
    before = len(changes.create), len(changes.delete)
    kept = 0
    for group, endpoints in desired.items():
        kept += _fit(view.service, existing.get(group, []), endpoints, changes, empty(view.service, kind, ports[group]))
    for group, slices in existing.items():
        if group not in desired:
            changes.delete += slices
    if not kept and len(changes.create) == before[0]:
        _keep_placeholder(view.service, kind, changes, before[1], len(mine))
    return lost


def _fit(
    service: JsonObject,
    existing: Sequence[JsonObject],
    desired: dict[Identity, JsonObject],
    changes: _Changes,
    blank: JsonObject,
) -> int:
    """Put the desired endpoints of one port group into its slices; answers how many slices stay."""
    remaining = dict(desired)
    changed: list[JsonObject] = []
    unchanged: list[JsonObject] = []
    for one in existing:
        old = one.get("endpoints") or []
        new = [remaining.pop(identity(endpoint)) for endpoint in old if identity(endpoint) in remaining]
        is_other = new != [without_hints(endpoint) for endpoint in old]
        if is_other and not new:
            changes.delete.append(one)
            continue
        labels = slice_labels(service)
        if is_other or {**labels_of(one)} != labels:
            meta = {**one["metadata"], "labels": labels}
            changed.append({**one, "metadata": meta, "endpoints": list(new if is_other else old)})
        else:
            unchanged.append(one)
    waiting = [remaining[key] for key in sorted(remaining)]
    for one in sorted(changed, key=lambda each: -len(each["endpoints"])):
        room = ENDPOINTS_MAX - len(one["endpoints"])
        one["endpoints"] += waiting[:room]
        waiting = waiting[room:]
    while waiting:
        target = _to_fill(unchanged, len(waiting))
        if target is not None:
            unchanged.remove(target)
            changed.append({**target, "endpoints": [*(target.get("endpoints") or []), *waiting]})
            waiting = []
        else:
            changes.create.append({**blank, "endpoints": waiting[:ENDPOINTS_MAX]})
            waiting = waiting[ENDPOINTS_MAX:]
    changes.update += changed
    return len(changed) + len(unchanged)


def _to_fill(unchanged: Sequence[JsonObject], count: int) -> JsonObject | None:
    """The slice that ``count`` more endpoints would fill the most, if one has room for all of them."""
    fitting = [one for one in unchanged if len(one.get("endpoints") or ()) + count <= ENDPOINTS_MAX]
    return max(fitting, key=lambda one: len(one.get("endpoints") or ()), default=None)


def _keep_placeholder(service: JsonObject, kind: str, changes: _Changes, since: int, count: int) -> None:
    """A Service without endpoints keeps one empty slice, so that consumers can tell "none" from "not yet"."""
    leaving = changes.delete[since:] if count else []
    if len(leaving) == 1 and _is_placeholder(leaving[0], service):
        del changes.delete[since:]
    else:
        changes.create.append(empty(service, kind, []))


def _is_placeholder(one: JsonObject, service: JsonObject) -> bool:
    is_empty = not one.get("endpoints") and not one.get("ports")
    return is_empty and labels_of(one) == slice_labels(service)


def _hint(view: View, changes: _Changes) -> None:
    """Give every slice its topology hints; one that needs nothing else is updated for them alone."""
    wanted = distribution(view.service)
    planned = {one["metadata"]["name"] for one in (*changes.update, *changes.delete)}
    changes.update += [
        one for one in view.slices if one["metadata"]["name"] not in planned and needs_hints(one, wanted)
    ]
    changes.create = [with_hints(one, wanted) for one in changes.create]
    changes.update = [with_hints(one, wanted) for one in changes.update]


def _reuse(service: JsonObject, changes: _Changes) -> None:
    """Turn a deletion and a creation into an update of the same slice."""
    for leaving in list(changes.delete):
        if not changes.create:
            return
        new = changes.create[-1]
        if leaving.get("addressType") != new["addressType"] or not _is_of(leaving, service):
            continue
        changes.create.pop()
        changes.delete.remove(leaving)
        meta = {**leaving["metadata"], "labels": new["metadata"]["labels"]}
        changes.update.append({**new, "metadata": meta})


def empty(service: JsonObject, kind: str, ports: list[JsonObject]) -> JsonObject:
    """A new slice without endpoints."""
    meta = service["metadata"]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": f"{meta['name']}-",
            "namespace": meta["namespace"],
            "labels": slice_labels(service),
            "ownerReferences": [reference_to(service)],
        },
        "addressType": kind,
        "endpoints": [],
        "ports": ports,
    }


def slice_labels(service: JsonObject) -> dict[str, str]:
    """The Service's labels, the headless mark, and whose slice it is."""
    labels = {key: value for key, value in labels_of(service).items() if key not in _RESERVED}
    if not has_cluster_ip(service):
        labels[HEADLESS] = ""
    return labels | {SERVICE_NAME: service["metadata"]["name"], MANAGED_BY: CONTROLLER}


def _is_of(one: JsonObject, service: JsonObject) -> bool:
    uid = service["metadata"]["uid"]
    refs = one["metadata"].get("ownerReferences") or ()
    return any(ref["uid"] == uid and ref["kind"] == "Service" for ref in refs)


def _triggered(one: JsonObject, trigger: datetime | None) -> JsonObject:
    """The slice with what set it off: the pod's or Service's own time, or none (a label cut has none)."""
    annotations = dict(one["metadata"].get("annotations") or {})
    annotations.pop(TRIGGER_TIME, None)
    if trigger is not None:
        annotations[TRIGGER_TIME] = stamp(trigger)
    meta = {key: value for key, value in one["metadata"].items() if key != "annotations"}
    if annotations:
        meta["annotations"] = annotations
    return {**one, "metadata": meta}
