"""Tables of nodes, namespaces, events, configuration, storage, roles, leases and the rest."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tidegate.lab.apiserver.schema.human import UNKNOWN, age, since
from tidegate.lab.apiserver.schema.tables_columns import NONE, UNSET, Json, Printer, count, dig

_ROLE = "node-role.kubernetes.io/"
_ACCESS = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def _name(obj: Json) -> str:
    return str(obj["metadata"].get("name") or "")


def _node(obj: Json, now: datetime) -> list[Any]:
    conditions = {c.get("type"): c.get("status") for c in dig(obj, "status", "conditions") or ()}
    ready = {None: "Unknown", "True": "Ready"}.get(conditions.get("Ready"), "NotReady")
    status = [ready]
    if dig(obj, "spec", "unschedulable"):
        status.append("SchedulingDisabled")
    system = dig(obj, "status", "nodeInfo") or {}
    return [
        _name(obj),
        ",".join(status),
        _roles(obj) or NONE,
        age(obj, now),
        system.get("kubeletVersion") or "",
        _address(obj, "InternalIP"),
        _address(obj, "ExternalIP"),
        *(system.get(key) or UNKNOWN for key in ("osImage", "kernelVersion", "containerRuntimeVersion")),
    ]


def _roles(obj: Json) -> str:
    found = set()
    for key, value in (obj["metadata"].get("labels") or {}).items():
        if key.startswith(_ROLE) and key != _ROLE:
            found.add(key.removeprefix(_ROLE))
        elif key == "kubernetes.io/role" and value:
            found.add(value)
    return ",".join(sorted(found))


def _address(obj: Json, kind: str) -> str:
    found = (a.get("address") for a in dig(obj, "status", "addresses") or () if a.get("type") == kind)
    return next(found, None) or NONE


def _namespace(obj: Json, now: datetime) -> list[Any]:
    return [_name(obj), dig(obj, "status", "phase") or "", age(obj, now)]


def _event(obj: Json, now: datetime) -> list[Any]:
    """Core and events.k8s.io events alike; the latter call the same fields otherwise."""
    first = obj.get("firstTimestamp") or obj.get("deprecatedFirstTimestamp") or obj.get("eventTime")
    last = obj.get("lastTimestamp") or obj.get("deprecatedLastTimestamp") or first
    total = obj.get("count") or obj.get("deprecatedCount") or 1
    series = obj.get("series")
    if series:
        last, total = series.get("lastObservedTime") or last, series.get("count") or total
    involved = obj.get("involvedObject") or obj.get("regarding") or {}
    target = str(involved.get("kind") or "").lower()
    if involved.get("name"):
        target += f"/{involved['name']}"
    return [
        since(last, now),
        obj.get("type") or "",
        obj.get("reason") or "",
        target,
        involved.get("fieldPath") or "",
        _event_source(obj),
        str(obj.get("message") or obj.get("note") or "").strip(),
        since(first, now),
        total,
        _name(obj),
    ]


def _event_source(obj: Json) -> str:
    source = obj.get("source") or obj.get("deprecatedSource") or {}
    component = source.get("component") or obj.get("reportingComponent") or obj.get("reportingController") or ""
    host = source.get("host") or obj.get("reportingInstance") or ""
    return f"{component}, {host}" if host else component


def _secret(obj: Json, now: datetime) -> list[Any]:
    return [_name(obj), obj.get("type") or "", len(obj.get("data") or ()), age(obj, now)]


def _config_map(obj: Json, now: datetime) -> list[Any]:
    return [_name(obj), len(obj.get("data") or ()) + len(obj.get("binaryData") or ()), age(obj, now)]


def _lease(obj: Json, now: datetime) -> list[Any]:
    return [_name(obj), dig(obj, "spec", "holderIdentity") or "", age(obj, now)]


def _access(modes: list[str] | None) -> str:
    order = list(_ACCESS)
    known = sorted(set(modes or ()), key=lambda mode: order.index(mode) if mode in order else len(order))
    return ",".join(_ACCESS.get(mode, mode) for mode in known)


def _volume(obj: Json, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    claim = spec.get("claimRef") or {}
    phase = dig(obj, "status", "phase") or ""
    return [
        _name(obj),
        (spec.get("capacity") or {}).get("storage") or "",
        _access(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy") or "",
        "Terminating" if obj["metadata"].get("deletionTimestamp") else phase,
        f"{claim.get('namespace')}/{claim.get('name')}" if claim.get("name") else "",
        spec.get("storageClassName") or "",
        spec.get("volumeAttributesClassName") or UNSET,
        dig(obj, "status", "reason") or "",
        age(obj, now),
        spec.get("volumeMode") or UNSET,
    ]


def _claim(obj: Json, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    is_bound = bool(spec.get("volumeName"))
    phase = dig(obj, "status", "phase") or ""
    return [
        _name(obj),
        "Terminating" if obj["metadata"].get("deletionTimestamp") else phase,
        spec.get("volumeName") or "",
        (dig(obj, "status", "capacity", "storage") or "") if is_bound else "",
        _access(dig(obj, "status", "accessModes")) if is_bound else "",
        spec.get("storageClassName") or "",
        spec.get("volumeAttributesClassName") or UNSET,
        age(obj, now),
        spec.get("volumeMode") or UNSET,
    ]


def _storage_class(obj: Json, now: datetime) -> list[Any]:
    mark = "storageclass.kubernetes.io/is-default-class"
    is_default = (obj["metadata"].get("annotations") or {}).get(mark) == "true"
    return [
        _name(obj) + (" (default)" if is_default else ""),
        obj.get("provisioner") or "",
        obj.get("reclaimPolicy") or "Delete",
        obj.get("volumeBindingMode") or "Immediate",
        "true" if obj.get("allowVolumeExpansion") else "false",
        age(obj, now),
    ]


def _created_at(obj: Json, now: datetime) -> list[Any]:
    return [_name(obj), obj["metadata"].get("creationTimestamp") or UNKNOWN]


def _role_binding(obj: Json, now: datetime) -> list[Any]:
    role, subjects = obj.get("roleRef") or {}, obj.get("subjects") or []
    cells = [_name(obj), f"{role.get('kind')}/{role.get('name')}", age(obj, now)]
    for kind in ("User", "Group"):
        cells.append(", ".join(s["name"] for s in subjects if s.get("kind") == kind))
    accounts = [s for s in subjects if s.get("kind") == "ServiceAccount"]
    return [*cells, ", ".join(f"{s.get('namespace')}/{s['name']}" for s in accounts)]


def _priority_class(obj: Json, now: datetime) -> list[Any]:
    return [
        _name(obj),
        count(obj, "value"),
        "true" if obj.get("globalDefault") else "false",
        age(obj, now),
        obj.get("preemptionPolicy") or "PreemptLowerPriority",
    ]


def _quota(obj: Json, now: datetime) -> list[Any]:
    used, limits = dig(obj, "status", "used") or {}, dig(obj, "status", "hard") or {}
    parts: dict[bool, list[str]] = {False: [], True: []}
    for key in sorted(limits):
        parts[key.startswith("limits")].append(f"{key}: {used.get(key, 0)}/{limits[key]}")
    return [_name(obj), ", ".join(parts[False]), ", ".join(parts[True]), age(obj, now)]


def _webhooks(obj: Json, now: datetime) -> list[Any]:
    return [_name(obj), len(obj.get("webhooks") or ()), age(obj, now)]


def _runtime_class(obj: Json, now: datetime) -> list[Any]:
    return [_name(obj), obj.get("handler") or "", age(obj, now)]


def _attachment(obj: Json, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    return [
        _name(obj),
        spec.get("attacher") or "",
        dig(spec, "source", "persistentVolumeName") or "",
        spec.get("nodeName") or "",
        "true" if dig(obj, "status", "attached") else "false",
        age(obj, now),
    ]


def _csi_node(obj: Json, now: datetime) -> list[Any]:
    return [_name(obj), len(dig(obj, "spec", "drivers") or ()), age(obj, now)]


_BINDING = "Name|Role|Age|*Users|*Groups|*ServiceAccounts"

PRINTERS = {
    "Node": Printer(
        "Name|Status|Roles|Age|Version|*Internal-IP|*External-IP|*OS-Image|*Kernel-Version|*Container-Runtime",
        _node,
    ),
    "Namespace": Printer("Name|Status|Age", _namespace),
    "Event": Printer("Last Seen|Type|Reason|Object|*Subobject|*Source|Message|*First Seen|*Count|*Name", _event),
    "Secret": Printer("Name|Type|Data|Age", _secret),
    "ConfigMap": Printer("Name|Data|Age", _config_map),
    "Lease": Printer("Name|Holder|Age", _lease),
    "PersistentVolume": Printer(
        "Name|Capacity|Access Modes|Reclaim Policy|Status|Claim|StorageClass|VolumeAttributesClass|Reason|Age|"
        "*VolumeMode",
        _volume,
    ),
    "PersistentVolumeClaim": Printer(
        "Name|Status|Volume|Capacity|Access Modes|StorageClass|VolumeAttributesClass|Age|*VolumeMode", _claim
    ),
    "StorageClass": Printer(
        "Name|Provisioner|ReclaimPolicy|VolumeBindingMode|AllowVolumeExpansion|Age", _storage_class
    ),
    "Role": Printer("Name|Created At", _created_at),
    "ClusterRole": Printer("Name|Created At", _created_at),
    "LimitRange": Printer("Name|Created At", _created_at),
    "CustomResourceDefinition": Printer("Name|@Created At", _created_at),
    "RoleBinding": Printer(_BINDING, _role_binding),
    "ClusterRoleBinding": Printer(_BINDING, _role_binding),
    "PriorityClass": Printer("Name|#Value|Global-Default|Age|PreemptionPolicy", _priority_class),
    "ResourceQuota": Printer("Name|Request|Limit|Age", _quota),
    "MutatingWebhookConfiguration": Printer("Name|#Webhooks|Age", _webhooks),
    "ValidatingWebhookConfiguration": Printer("Name|#Webhooks|Age", _webhooks),
    "RuntimeClass": Printer("Name|Handler|Age", _runtime_class),
    "VolumeAttachment": Printer("Name|Attacher|PV|Node|Attached|Age", _attachment),
    "CSINode": Printer("Name|#Drivers|Age", _csi_node),
}
