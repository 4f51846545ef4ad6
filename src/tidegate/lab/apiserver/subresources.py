"""Subresources over the store: status, scale, finalize, ephemeral containers, binding, eviction, token."""

from __future__ import annotations

import json
from datetime import timedelta

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver import failures
from tidegate.lab.apiserver.eviction import SUCCESS, evict
from tidegate.lab.apiserver.kinds.pods import topology_labels
from tidegate.lab.apiserver.objects import clone, stamp
from tidegate.lab.apiserver.registry import Row
from tidegate.lab.apiserver.routes import Route
from tidegate.lab.apiserver.schema import strict
from tidegate.lab.apiserver.tokens import encoded_claims
from tidegate.lab.apiserver.verbs import Change, Options, Verbs
from tidegate.lab.apiserver.versions import Version, encode
from tidegate.lab.apiserver.webhooks.matching import CREATE, UPDATE, Asked

Place = tuple[str, str]
"""(namespace, name) of an object; the namespace of a cluster-scoped one is ""."""

TOKEN_SECONDS, TOKEN_SECONDS_LEAST = 3600, 600
OBJECTS = ("", "status", "ephemeralcontainers", "finalize", "resize")
"""Subresources whose body is the object itself."""


def read(verbs: Verbs, route: Route) -> Version:
    """GET of an object or of one of its stored subresources."""
    row, subresource = route.row, route.subresource
    version = verbs.get(row, *route.place)
    if subresource in OBJECTS:
        return version
    if subresource == "scale":
        if row.custom is not None:
            row.custom.check_scale(version.object)
        return Version(_scale(row, version.object), version.rv)
    raise failures.method_not_allowed()


def change(verbs: Verbs, route: Route, wanted: Change, options: Options) -> Version:
    """PUT or PATCH of an object or of one of its stored subresources."""
    row, place, subresource = route.row, route.place, route.subresource
    if options.admission is not None:
        options.admission.subresource = subresource
    if subresource in ("", "status"):
        return verbs.update(row, place, wanted, options, subresource)
    if subresource == "scale":
        return _rescale(verbs, row, place, wanted, options)
    if subresource in ("ephemeralcontainers", "resize"):
        return verbs.update(row, place, wanted, options)
    if subresource == "finalize":
        return _finalize(verbs, row, place, wanted, options)
    raise failures.method_not_allowed()


def create(verbs: Verbs, route: Route, obj: JsonObject, options: Options) -> Version:
    """POST to a subresource."""
    row, place, subresource = route.row, route.place, route.subresource
    if options.admission is not None:
        obj = _passed(route, obj, options)
    if subresource == "binding":
        return _bind(verbs, row, place, obj, options)
    if subresource == "eviction":
        return evict(verbs, row, place, obj, options)
    if subresource == "token":
        return _token(verbs, row, place, obj)
    raise failures.method_not_allowed()


def _passed(route: Route, obj: JsonObject, options: Options) -> JsonObject:
    """What is posted to a subresource, as the webhooks leave it."""
    assert options.admission is not None
    namespace, name = route.place
    if namespace:
        obj.setdefault("metadata", {})["namespace"] = namespace
    asked = Asked(
        route.row, CREATE, namespace, name, obj, subresource=route.subresource,
        options=options.shown("CreateOptions"), is_dry_run=options.dry_run,
    )  # fmt: skip
    found = options.admission.mutated(asked) or obj
    options.admission.check(asked.holding(found))
    return found


# -- scale


def scale_of(obj: JsonObject) -> JsonObject:
    """The autoscaling/v1 Scale of a workload."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": {"replicas": spec["replicas"]} if spec.get("replicas") else {},
        "status": {"replicas": status.get("replicas", 0), "selector": selector_text(spec.get("selector") or {})},
    }


def _scale(row: Row, obj: JsonObject) -> JsonObject:
    return scale_of(obj) if row.custom is None else row.custom.scale_of(obj)


def selector_text(selector: JsonObject) -> str:
    """A LabelSelector (or a plain map) in kubectl's grammar, terms sorted by key as Go prints them."""
    if "matchLabels" not in selector and "matchExpressions" not in selector:
        selector = {"matchLabels": selector}
    terms = {key: f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()}
    shapes = {"In": "{} in ({})", "NotIn": "{} notin ({})", "Exists": "{}", "DoesNotExist": "!{}"}
    for term in selector.get("matchExpressions") or []:
        values = ",".join(sorted(term.get("values") or []))
        terms[term["key"]] = shapes.get(term["operator"], "{}").format(term["key"], values)
    return ",".join(terms[key] for key in sorted(terms))


def _rescale(verbs: Verbs, row: Row, place: Place, wanted: Change, options: Options) -> Version:
    admission, options.admission = options.admission, None  # what is asked about is the Scale

    def replicas(old: JsonObject) -> JsonObject:
        scale = wanted(_scale(row, old))
        if admission is not None:
            asked = Asked(
                row, UPDATE, *place, scale, _scale(row, old), "scale", options.shown(), options.dry_run,
                int(old["metadata"]["resourceVersion"]),
            )  # fmt: skip
            scale = admission.mutated(asked) or scale
            admission.check(asked.holding(scale))
        if wrong := strict.mismatch("Scale", scale):
            raise failures.unusable_patch(encode(scale).decode(), wrong)
        version = (scale.get("metadata") or {}).get("resourceVersion")
        if version and version != old["metadata"]["resourceVersion"]:
            raise failures.conflict(row, place[1])
        obj: JsonObject = clone(old)
        count = (scale.get("spec") or {}).get("replicas") or 0
        if not isinstance(count, int) or (count < 0 and row.custom is None):
            why = f"spec.replicas: Invalid value: {count}: must be greater than or equal to 0"
            cause = {"reason": "FieldValueInvalid", "message": why.partition(": ")[2], "field": "spec.replicas"}
            details = {"name": place[1], "group": "autoscaling", "kind": "Scale", "causes": [cause]}
            raise failures.failure(422, "Invalid", f'Scale.autoscaling "{place[1]}" is invalid: {why}', details)
        if row.custom is not None:
            row.custom.rescale(obj, count)
        else:
            obj["spec"]["replicas"] = count
        return obj

    version = verbs.update(row, place, replicas, options)
    return Version(_scale(row, version.object), version.rv)


# -- namespaces


def _finalize(verbs: Verbs, row: Row, place: Place, wanted: Change, options: Options) -> Version:
    """The namespace controller's last word: only spec.finalizers may change; empty, it lets the namespace go."""
    old = verbs.get(row, *place)
    asked = wanted(old.object)
    obj = {**old.object, "metadata": dict(old.object["metadata"])}
    finalizers = (asked.get("spec") or {}).get("finalizers") or []
    obj["spec"] = {"finalizers": finalizers} if finalizers else {}
    if options.admission is not None:
        name = place[1]
        change = Asked(row, UPDATE, name, name, obj, old.object, "finalize", options.shown(), options.dry_run, old.rv)
        options.admission.mutated(change)  # what a patch would change is the finalizers' list alone
        options.admission.check(change)
    return verbs.settle(row, old, obj, options)


# -- pods


def _bind(verbs: Verbs, row: Row, place: Place, binding: JsonObject, options: Options) -> Version:
    """Assign a pod to a node (pkg/registry/core/pod/storage: assignPod). The answer is a Status."""
    node = (binding.get("target") or {}).get("name", "")
    old = verbs.get(row, *place)
    metadata, spec = old.object["metadata"], old.object["spec"]
    asked = binding.get("metadata") or {}
    if asked.get("uid") and asked["uid"] != metadata["uid"]:
        why = f"Precondition failed: UID in precondition: {asked['uid']}, UID in object meta: {metadata['uid']}"
        raise failures.conflict(row, place[1], why)
    if metadata.get("deletionTimestamp"):
        why = f"pod {place[1]} is being deleted, cannot be assigned to a host"
        raise failures.conflict(row, place[1], why, "binding")
    if spec.get("nodeName"):
        why = f'pod {place[1]} is already assigned to node "{spec["nodeName"]}"'
        raise failures.conflict(row, place[1], why, "binding")
    scheduled = {
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": stamp(verbs.world().now),
    }
    status = old.object.get("status") or {}
    conditions = [held for held in status.get("conditions") or [] if held.get("type") != "PodScheduled"]
    topology = topology_labels(node, verbs.world())
    labels = {**(metadata.get("labels") or {}), **(asked.get("labels") or {}), **topology}
    obj = {
        **old.object,
        "metadata": {**metadata, **({"labels": labels} if labels else {})},
        "spec": {**spec, "nodeName": node},
        "status": {**status, "conditions": [*conditions, scheduled]},
    }
    if not options.dry_run:
        verbs.store.replace(row, old, obj)
    return Version(SUCCESS, 0)


# -- service accounts


def _token(verbs: Verbs, row: Row, place: Place, request: JsonObject) -> Version:
    """A TokenRequest answered with a JWT-shaped token, of a pod's if it says so (BoundServiceAccountToken)."""
    account = verbs.get(row, *place).object
    spec = request.get("spec") or {}
    now = verbs.world().now
    seconds = int(spec.get("expirationSeconds") or TOKEN_SECONDS)
    if seconds < TOKEN_SECONDS_LEAST:
        why = "Invalid value: " + f"{seconds}: may not specify a duration less than 10 minutes"
        cause = {"reason": "FieldValueInvalid", "message": why, "field": "spec.expirationSeconds"}
        details = {"name": "", "group": "authentication.k8s.io", "kind": "TokenRequest", "causes": [cause]}
        message = f'TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: {why}'
        raise failures.failure(422, "Invalid", message, {key: value for key, value in details.items() if value})
    ends = now + timedelta(seconds=seconds)
    namespace, name = place
    own: JsonObject = {"namespace": namespace, "serviceaccount": {"name": name, "uid": account["metadata"]["uid"]}}
    if bound := spec.get("boundObjectRef"):
        own |= _bound(verbs, namespace, name, bound)
    claims = {
        "aud": spec.get("audiences") or ["https://kubernetes.default.svc"],
        "exp": int(ends.timestamp()),
        "iat": int(now.timestamp()),
        "sub": f"system:serviceaccount:{namespace}:{name}",
        "kubernetes.io": own,
    }
    answer = {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": stamp(now)},
        "spec": {
            "audiences": claims["aud"],
            "expirationSeconds": seconds,
            "boundObjectRef": spec.get("boundObjectRef"),
        },
        "status": {"token": encoded_claims(claims), "expirationTimestamp": stamp(ends)},
    }
    return Version(answer, 0)


def _bound(verbs: Verbs, namespace: str, account: str, ref: JsonObject) -> JsonObject:
    """The pod a token is given to: it is good while the pod is there (registry/core/serviceaccount/storage/token.go).

    What else can be named there (a Secret, a Node) binds nothing in a lab.
    """
    if ref.get("kind") != "Pod":
        return {}
    pods = verbs.registry.named("", "pods")
    pod = verbs.get(pods, namespace, ref.get("name") or "").object
    metadata = pod["metadata"]
    if pod["spec"].get("serviceAccountName") != account:
        why = f"cannot bind token for serviceaccount {json.dumps(account)} to pod running with different serviceaccount"
        raise failures.bad_request(f"{why} name.")
    if ref.get("uid") and ref["uid"] != metadata["uid"]:
        why = f"the UID in the bound object reference ({ref['uid']}) does not match the UID in record. "
        raise failures.unmet(pods, metadata["name"], f"{why}The object might have been deleted and then recreated")
    return {"pod": {"name": metadata["name"], "uid": metadata["uid"]}}
