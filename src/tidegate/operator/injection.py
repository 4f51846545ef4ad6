"""What the webhook answers: a review of a new pod in, the patch that gives it its gate and warnings out. Pure.

No pod is ever refused, and nothing is changed but the pod: a review of a dry run is answered as any other. Which pods
come here at all is the configuration's business (``agent/manifests.py``): selectors on namespaces and pods.

A patch that does not apply fails the creation whatever the failure policy says (k8s apiserver
plugin/webhook/mutating/dispatcher.go: only a call that failed is ignored). So it is made of ``add`` and ``replace``
below what was seen in this very review, and of nothing else but the removal of an annotation that is there.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from tidegate.agent.operator_objects import LEFT_ALONE
from tidegate.drain.gating import (
    DEFAULT_GRACE_SECONDS,
    GATE_TOKEN,
    GRACE_SECONDS,
    declares_port,
    gate_hook,
    is_gate,
    is_plain_sleep,
)
from tidegate.model.names import GATE, GATE_OFF, REPLACE_SLEEP, UNGATED

JsonObject = dict[str, Any]

REVIEW = "admission.k8s.io/v1"
REVIEW_BYTES_MAX = 4 * 1024 * 1024
"""The API server takes objects of 3 MiB at most (k8s apiserver server/config.go, MaxRequestBodyBytes); a review holds
one, and is JSON where that may have been shorter. More is not looked at."""
MIRROR = "kubernetes.io/config.mirror"
"""On what a kubelet shows of a static pod: nothing that is changed here would reach the pod."""
WARNING_LENGTH_MAX = 256
"""The API server cuts longer ones when there are many (endpoints/filters/warning.go)."""
_WARNINGS_MAX = 8
_TOKEN = re.compile(r"[0-9a-f]{32}")
_REASON_LENGTH_MAX = 512


@dataclass(frozen=True, slots=True)
class Injection:
    """``patch``: JSON patch of the pod, empty where nothing is to be changed. ``gated``: containers that get the gate
    by it; ``ungated``: why some have none, "" where all do or where the pod is none of ours."""

    patch: tuple[JsonObject, ...] = ()
    warnings: tuple[str, ...] = ()
    gated: tuple[str, ...] = ()
    ungated: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """An AdmissionReview as JSON. ``outcome`` is gated, partly, ungated, untouched or malformed."""

    body: bytes
    outcome: str


class _Asked(msgspec.Struct, frozen=True):
    uid: str = ""


class _Head(msgspec.Struct, frozen=True):
    """As much of a review as an answer needs."""

    request: _Asked = _Asked()


# --- one review ---


def answer(body: bytes, replaces_sleep: bool = False) -> Answer:
    """The answer to an AdmissionReview of admission.k8s.io/v1: always allowed. Never raises.

    ``replaces_sleep``: its namespace asks for that. What is no review is answered too; the API server finds no uid of
    its own in that answer, and goes on without a gate (``failurePolicy: Ignore``).
    """
    try:
        if len(body) > REVIEW_BYTES_MAX:
            uid = msgspec.json.decode(body, type=_Head).request.uid
            return _allowed(uid, _left_alone(f"the review is larger than {REVIEW_BYTES_MAX} bytes"), "malformed")
        review = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _allowed("", _left_alone("the review is not JSON of its kind"), "malformed")
    uid = _uid(review)
    try:
        found = _reviewed(review, replaces_sleep)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        return _allowed(uid, _left_alone(f"the review is not understood ({type(error).__name__})"), "malformed")
    if found is None:
        return _allowed(uid, Injection(), "untouched")
    outcome = "gated" if not found.ungated else "partly" if found.gated else "ungated"
    return _allowed(uid, found, outcome)


def _reviewed(review: JsonObject, replaces_sleep: bool) -> Injection | None:
    """None for what is none of ours: another kind, another operation, a namespace or a pod that is left alone."""
    if review["apiVersion"] != REVIEW:
        raise ValueError("another version")
    request = review["request"]
    kind, operation = request["kind"], request["operation"]
    if (kind.get("group") or "", kind["kind"]) != ("", "Pod") or operation != "CREATE" or request.get("subResource"):
        return None
    if request.get("namespace") in LEFT_ALONE:
        return None
    # A digest: the same review gets the same answer, and a review's uid is random (version 4).
    token = hashlib.sha256(f"gate {request['uid']}".encode()).hexdigest()[:32]
    return inject(request["object"], token, replaces_sleep)


def _uid(review: Any) -> str:
    request = review.get("request") if isinstance(review, dict) else None
    uid = request.get("uid") if isinstance(request, dict) else None
    return uid if isinstance(uid, str) else ""


def _left_alone(why: str) -> Injection:
    return Injection(warnings=(f"tidegate: this pod gets no gate: {why}",))


def _allowed(uid: str, found: Injection, outcome: str) -> Answer:
    response: JsonObject = {"uid": uid, "allowed": True}
    if found.patch:
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(msgspec.json.encode(found.patch)).decode()}
    if found.warnings:
        response["warnings"] = [one[:WARNING_LENGTH_MAX] for one in found.warnings[:_WARNINGS_MAX]]
    document = {"apiVersion": REVIEW, "kind": "AdmissionReview", "response": response}
    return Answer(msgspec.json.encode(document), outcome)


# --- one pod ---


def inject(pod: JsonObject, fresh_token: str, replaces_sleep: bool = False) -> Injection | None:
    """The gate for every serving container of ``pod``: its containers and native sidecars, no other init container.

    ``fresh_token``: 32 hexadecimal digits, for a pod on its node's network that has none yet. None for a pod that is
    left alone: one that opted out, a mirror of a static pod. A pod that has its gate gets an empty patch. Raises
    ``KeyError``, ``TypeError``, ``ValueError`` or ``AttributeError`` for what is no pod.
    """
    metadata, spec = pod["metadata"], pod["spec"]
    annotations = metadata.get("annotations") or {}
    labels = metadata.get("labels") or {}
    if labels.get(GATE) == GATE_OFF or MIRROR in annotations:
        return None
    if why := _why_never(metadata, spec):
        is_job = _is_jobs(metadata)
        warnings = () if is_job else (f"tidegate: {_named(metadata)} gets no gate: {why}",)
        return Injection(tuple(_annotated(metadata, {}, why)), warnings, ungated=why)
    token = _token(annotations, fresh_token) if spec.get("hostNetwork") else ""
    is_replacing = replaces_sleep or "true" in (labels.get(REPLACE_SLEEP), annotations.get(REPLACE_SLEEP))
    found = list(_containers(spec))
    kept = {name: hook for _, name, hook in found if hook and not _gives_way(name, hook, token, is_replacing)}
    wanted = [(path, name) for path, name, hook in found if name not in kept and not is_gate(name, hook, token)]
    why = "; ".join(_why_kept(name, hook) for name, hook in kept.items())
    patch = [_hooked(spec, path, gate_hook(name, token)) for path, name in wanted]
    if len(kept) < len(found):
        patch += _with_grace(spec)
    patch += _annotated(metadata, {GATE_TOKEN: token} if token and len(kept) < len(found) else {}, why)
    steps = (f"tidegate: {_named(metadata)}: {_why_kept(name, hook)}; {_step(hook)}" for name, hook in kept.items())
    return Injection(tuple(patch), tuple(steps), tuple(name for _, name in wanted), why)


def _token(annotations: Mapping[str, Any], fresh_token: str) -> str:
    """The one it has, where a holder takes it for one."""
    found = str(annotations.get(GATE_TOKEN) or "")
    return found if _TOKEN.fullmatch(found) else fresh_token


def _why_never(metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    """Why a pod as a whole gets none."""
    if not spec["containers"]:
        raise ValueError("a pod without containers")
    if _is_jobs(metadata):
        return "a Job's pod ends by itself"
    system = (spec.get("os") or {}).get("name") or (spec.get("nodeSelector") or {}).get("kubernetes.io/os") or "linux"
    if system != "linux":
        return f"its node runs {system}, where there is no holder to keep the gate"
    if spec.get("hostNetwork") and not declares_port(spec):
        return "it uses its node's network and declares no port: nothing tells its traffic"
    return ""


def _is_jobs(metadata: Mapping[str, Any]) -> bool:
    owners = metadata.get("ownerReferences") or ()
    return any(one.get("controller") and one.get("kind") == "Job" for one in owners)


def _containers(spec: Mapping[str, Any]) -> Iterator[tuple[str, str, JsonObject]]:
    """(JSON pointer, name, preStop hook) of each that serves. All preStop hooks of a pod start at once (KEP-753)."""
    for part in ("containers", "initContainers"):
        for index, one in enumerate(spec.get(part) or ()):
            if part == "containers" or one.get("restartPolicy") == "Always":
                yield f"/spec/{part}/{index}", one["name"], (one.get("lifecycle") or {}).get("preStop") or {}


def _gives_way(name: str, hook: JsonObject, token: str, is_replacing: bool) -> bool:
    """Whether the gate may stand where ``hook`` does: it is one, or one of the other form, or a sleep that may go."""
    return (
        is_gate(name, hook, token) or (bool(token) and is_gate(name, hook)) or (is_replacing and is_plain_sleep(hook))
    )


def _why_kept(name: str, hook: JsonObject) -> str:
    what = "its preStop sleep" if is_plain_sleep(hook) else "a preStop hook of its own"
    return f"container {name} keeps {what} and has no gate"


def _step(hook: JsonObject) -> str:
    if is_plain_sleep(hook):
        return f"label its namespace or its template {REPLACE_SLEEP}=true, and the gate takes its place"
    return "let what the hook does happen on SIGTERM, and remove it"


def _hooked(spec: Mapping[str, Any], path: str, hook: JsonObject) -> JsonObject:
    """``add`` puts in what is not there and replaces what is (RFC 6902 §4.1), below a parent that is there."""
    part, index = path.split("/")[2:]
    if spec[part][int(index)].get("lifecycle"):
        return {"op": "add", "path": f"{path}/lifecycle/preStop", "value": hook}
    return {"op": "add", "path": f"{path}/lifecycle", "value": {"preStop": hook}}


def _with_grace(spec: Mapping[str, Any]) -> list[JsonObject]:
    """Raised where the gate could hold for too short; never lowered."""
    found = spec.get("terminationGracePeriodSeconds")
    if (DEFAULT_GRACE_SECONDS if found is None else int(found)) >= GRACE_SECONDS:
        return []
    return [{"op": "add", "path": "/spec/terminationGracePeriodSeconds", "value": GRACE_SECONDS}]


def _annotated(metadata: Mapping[str, Any], wanted: Mapping[str, str], why: str) -> Iterator[JsonObject]:
    """``UNGATED`` is there exactly where there is a reason: a template may have been copied from a pod."""
    found = metadata.get("annotations") or {}
    wanted = {**wanted, **({UNGATED: why[:_REASON_LENGTH_MAX]} if why else {})}
    missing = {key: value for key, value in wanted.items() if found.get(key) != value}
    if missing and not found:
        yield {"op": "add", "path": "/metadata/annotations", "value": missing}
    elif missing:
        for key, value in missing.items():
            yield {"op": "add", "path": f"/metadata/annotations/{_escaped(key)}", "value": value}
    if not why and UNGATED in found:
        yield {"op": "remove", "path": f"/metadata/annotations/{_escaped(UNGATED)}"}


def _escaped(key: str) -> str:
    """RFC 6901 §3."""
    return key.replace("~", "~0").replace("/", "~1")


def _named(metadata: Mapping[str, Any]) -> str:
    """A pod of a ReplicaSet has no name yet."""
    return f"pod {metadata.get('name') or metadata.get('generateName', '') + '*'}"
