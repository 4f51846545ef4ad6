"""Pods of a StatefulSet: ordinals, names, what makes a pod a member, and the pod and claims of an ordinal.

Follows pkg/controller/statefulset/stateful_set_utils.go.
"""

from __future__ import annotations

import re
from datetime import datetime

from tidegate.kube.api import JsonObject
from tidegate.lab.controllers.fenceposts import replicas
from tidegate.lab.controllers.history import HASH_LABEL
from tidegate.lab.controllers.keeper import pod_from_template
from tidegate.lab.controllers.labels import labels_of
from tidegate.lab.controllers.pods import is_available, is_terminating

NAME_LABEL, INDEX_LABEL = "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index"
_NAME = re.compile(r"(.*)-([0-9]+)$")
_ORDINAL_MAX = 2**31 - 1


def parent_and_ordinal(pod: JsonObject) -> tuple[str, int]:
    """("web", 3) of ``web-3``; ("", -1) of a name without an ordinal."""
    found = _NAME.fullmatch(pod["metadata"]["name"])
    if found is None:
        return "", -1
    number = int(found[2])
    return found[1], number if number <= _ORDINAL_MAX else -1


def ordinal(pod: JsonObject) -> int:
    """The number in the pod's name; -1 without one."""
    return parent_and_ordinal(pod)[1]


def is_member(stateful: JsonObject, pod: JsonObject) -> bool:
    """By name: labels alone make no member."""
    return bool(parent_and_ordinal(pod)[0] == stateful["metadata"]["name"])


def start_ordinal(stateful: JsonObject) -> int:
    """spec.ordinals.start; 0 when absent."""
    return int((stateful["spec"].get("ordinals") or {}).get("start") or 0)


def is_in_range(stateful: JsonObject, pod: JsonObject) -> bool:
    """True for an ordinal that spec.replicas asks for."""
    start = start_ordinal(stateful)
    return start <= ordinal(pod) < start + replicas(stateful)


def revision_of(pod: JsonObject) -> str:
    """The name of the ControllerRevision the pod was made from; "" when it does not say."""
    return labels_of(pod).get(HASH_LABEL, "")


def is_unavailable(pod: JsonObject, patience: int, now: datetime) -> bool:
    """Not ready for ``patience`` seconds, or on its way out."""
    return is_terminating(pod) or not is_available(pod, patience, now)


def has_identity(pod: JsonObject) -> bool:
    """The label that headless lookups by name rely on says the pod's own name."""
    return bool(labels_of(pod).get(NAME_LABEL) == pod["metadata"]["name"])


def with_identity(pod: JsonObject) -> JsonObject:
    """The pod with the labels of its name and ordinal."""
    name = pod["metadata"]["name"]
    labels = {**labels_of(pod), NAME_LABEL: name, INDEX_LABEL: str(ordinal(pod))}
    return {**pod, "metadata": {**pod["metadata"], "labels": labels}}


def claims_of(stateful: JsonObject, number: int) -> dict[str, JsonObject]:
    """The PersistentVolumeClaims of one ordinal, by the name of their template."""
    meta, spec = stateful["metadata"], stateful["spec"]
    found = {}
    for template in spec.get("volumeClaimTemplates") or ():
        own = template["metadata"]
        labels = {**(own.get("labels") or {}), **(spec["selector"].get("matchLabels") or {})}
        name = f"{own['name']}-{meta['name']}-{number}"
        claim_meta = {**own, "name": name, "namespace": meta["namespace"], "labels": labels}
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": claim_meta}
        found[own["name"]] = {**claim, "spec": template["spec"]}
    return found


def has_storage(stateful: JsonObject, pod: JsonObject) -> bool:
    """The pod's volumes are the claims of its ordinal."""
    volumes = {one["name"]: one for one in pod["spec"].get("volumes") or ()}
    for name, claim in claims_of(stateful, ordinal(pod)).items():
        source = volumes.get(name, {}).get("persistentVolumeClaim") or {}
        if source.get("claimName") != claim["metadata"]["name"]:
            return False
    return True


def with_storage(stateful: JsonObject, pod: JsonObject) -> JsonObject:
    """The pod with the claims of its ordinal among its volumes."""
    claims = claims_of(stateful, ordinal(pod))
    own = [
        {"name": name, "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}
        for name, claim in claims.items()
    ]
    kept = [one for one in pod["spec"].get("volumes") or () if one["name"] not in claims]
    if not own and not kept:
        return pod
    return {**pod, "spec": {**pod["spec"], "volumes": [*own, *kept]}}


def new_pod(stateful: JsonObject, number: int, revision: str) -> JsonObject:
    """The pod of one ordinal from the set's template, named, with hostname and subdomain for its Service."""
    name = f"{stateful['metadata']['name']}-{number}"
    pod = pod_from_template(stateful, stateful["spec"]["template"])
    meta = {"name": name, **pod["metadata"]}
    meta["labels"] = {**(meta.get("labels") or {}), HASH_LABEL: revision}
    spec = {**pod["spec"], "hostname": name}
    spec.pop("subdomain", None)
    if stateful["spec"].get("serviceName"):
        spec["subdomain"] = stateful["spec"]["serviceName"]
    return with_storage(stateful, with_identity({**pod, "metadata": meta, "spec": spec}))
