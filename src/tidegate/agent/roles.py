"""What each part of an installation, and each verb of a command line, may ask of the API server: RBAC as plain data.

Nothing here has a ``*``. Who runs in the cluster has a service account; people get roles to bind, and no binding:
who may drain what is the cluster's own decision. `client/permissions.py` is what verbs ask for, and the tests hold
the two against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.drain import fence
from tidegate.drain.dnsfence import headless_slice_name
from tidegate.kube.api import DRAINS, OBSERVERS, RELEASES
from tidegate.model.dns import dns_fence_name
from tidegate.model.livefence import live_name
from tidegate.model.names import OPERATOR, SYSTEM_NAMESPACE, WEBHOOK, fence_name
from tidegate.observers import asking
from tidegate.observers.coordinator import LEASE_NAME
from tidegate.observers.discovery import SOURCES

Manifest = dict[str, Any]
Rule = dict[str, list[str]]

GROUP = "rbac.authorization.k8s.io"
AGENT, COORDINATOR = "tidegate-agent", "tidegate-coordinator"
RELEASE = "tidegate-release"
WEBHOOK_SECRET = "tidegate-webhook-tls"
"""With the webhook's certificate."""
LABELS: Mapping[str, str] = {"app.kubernetes.io/name": "tidegate"}
LOOK, VIEW, ASK, CUT, DRAIN, PREPARE, DRAIN_NODES, RELEASER = (
    f"tidegate-{name}" for name in ("look", "view", "ask", "cut", "drain", "prepare", "drain-nodes", "releaser")
)
WORKLOADS = ("deployments", "replicasets", "statefulsets", "daemonsets")
READ = ("get", "list", "watch")


@dataclass(frozen=True, slots=True)
class Piece:
    """One object of an installation, the part of it that it belongs to, and why it is as it is."""

    part: str
    manifest: Manifest
    why: str = ""


def rule(group: str, resources: tuple[str, ...], verbs: tuple[str, ...], names: tuple[str, ...] = ()) -> Rule:
    """One rule; ``names`` confines it to these objects (never possible for list, watch and create)."""
    made = {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}
    return {**made, "resourceNames": list(names)} if names else made


def agent(reads_node: bool = True) -> list[Piece]:
    """The node agents'. ``reads_node``: nobody has told them which networks their pods have."""
    cluster = [rule("", ("pods",), (*READ, "patch"))]
    cluster += [rule("", ("nodes",), ("get",))] if reads_node else []
    cluster += _judging()
    own = [
        rule("", ("services",), ("list", "watch")),
        rule("coordination.k8s.io", ("leases",), ("get",), (LEASE_NAME,)),
    ]
    why = "Which pod is leaving, and its result, written on it as an annotation."
    why += " The Node object says which networks its pods have." if reads_node else ""
    why += " Whose token a command line shows."
    return _in_cluster("agent", AGENT, (cluster, why), (own, "The fence's addresses; where the coordinator answers."))


def coordinator(install: str = "main") -> list[Piece]:
    """The coordinator's. Nobody else is given leave to write the fence."""
    cluster = [
        rule("", ("nodes", "services"), ("list", "watch")),
        rule("discovery.k8s.io", ("endpointslices",), ("list", "watch")),
        rule("", ("pods",), ("get",)),
        rule("apps", WORKLOADS, ("get",)),
        rule("batch", ("jobs",), ("get",)),
        *(rule(group, tuple(plurals), ("list",)) for group, plurals in _routing().items()),
        rule(RELEASES.group, ("observers",), ("list", "watch")),
        *_judging(),
    ]
    families = ("IPv4", "IPv6")
    slices = tuple(fence.slice_name(install, family) for family in families)
    slices += (*(headless_slice_name(install, family) for family in families), live_name(install))
    own = [
        rule("", ("services",), ("get", "patch"), (fence_name(install), dns_fence_name(install), live_name(install))),
        rule("discovery.k8s.io", ("endpointslices",), ("get", "update"), slices),
        rule("coordination.k8s.io", ("leases",), ("get", "update"), (LEASE_NAME,)),
        rule("", ("services",), ("create",)),
        rule("discovery.k8s.io", ("endpointslices",), ("create",)),
        rule("coordination.k8s.io", ("leases",), ("create",)),
        rule("", ("secrets",), ("get", "update"), ("tidegate-authority", "tidegate-agent-tls")),
        rule("", ("secrets",), ("create",)),
    ]
    return _in_cluster(
        "coordinator", COORDINATOR,
        (cluster, "Who is listed where, which nodes have a say, who replaces a pod; the kinds listed last may route\n"
                  "to pods beside the nodes, and what may not be listed makes a result `assumed`."),
        (own, "The fence, the Lease, the certificates. RBAC cannot confine `create` to a name: it stands by itself."),
    )  # fmt: skip


def operator() -> list[Piece]:
    """The operator's: what it reads everywhere, what a release may change, and its own Lease, Secret and webhook."""
    cluster = [
        rule(RELEASES.group, (RELEASES.plural,), (*READ, "patch")),
        rule(RELEASES.group, (OBSERVERS.plural,), ("list", "watch")),
        rule(RELEASES.group, (f"{RELEASES.plural}/status", f"{OBSERVERS.plural}/status"), ("patch",)),
        rule(RELEASES.group, (DRAINS.plural,), ("list", "create", "patch", "delete")),
        rule("", ("pods", "services"), READ),
        rule("", ("nodes",), ("list",)),
        rule("discovery.k8s.io", ("endpointslices",), ("list", "watch")),
        rule("apps", ("deployments", "replicasets"), READ),
        rule("apps", ("statefulsets", "daemonsets"), ("list",)),
        rule("batch", ("jobs",), ("list",)),
        *_guards(),
        rule("", ("events",), ("create", "patch")),
        rule("admissionregistration.k8s.io", ("mutatingwebhookconfigurations",), ("get", "patch"), (WEBHOOK,)),
    ]
    own = [
        rule("coordination.k8s.io", ("leases",), ("get", "update"), (OPERATOR,)),
        rule("coordination.k8s.io", ("leases",), ("get",), (LEASE_NAME,)),
        rule("coordination.k8s.io", ("leases",), ("create",)),
        rule("", ("secrets",), ("get", "update"), (WEBHOOK_SECRET,)),
        rule("", ("secrets",), ("create",)),
        rule("", ("pods/proxy",), ("get", "create")),
        rule("", ("serviceaccounts/token",), ("create",), (asking.ACCOUNT,)),
    ]
    made = _in_cluster(
        "operator", OPERATOR,
        (cluster, "Its own kinds; who is listed where; the guards of a drain. Of the webhook's configuration it writes "
                  "one field."),
        (own, "Which replica leads; the webhook's certificate; how agents and coordinator are asked."),
    )  # fmt: skip
    release = [rule("", ("pods",), ("patch", "delete")), *_released()]
    why = (
        "What a release changes, and what its drains do: bound cluster-wide for the operator. Delete that binding, and "
        "bind it by RoleBindings, to have releases in some namespaces only."
    )
    binding = {
        **_head("ClusterRoleBinding", RELEASE, False),
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": RELEASE},
        "subjects": [{"kind": "ServiceAccount", "name": OPERATOR, "namespace": SYSTEM_NAMESPACE}],
    }
    role = {**_head("ClusterRole", RELEASE, False), "rules": release}
    return [*made, Piece("operator", role, why), Piece("operator", binding)]


def callers(part: str = "agent") -> list[Piece]:
    """Whose tokens command lines show on the ports for them, and what such a token is for: nothing else."""
    rules = [rule(asking.GROUP, (asking.RESOURCE,), ("get", "create"))]
    subject = {"kind": "ServiceAccount", "name": asking.ACCOUNT, "namespace": SYSTEM_NAMESPACE}
    binding = {
        **_head("RoleBinding", asking.ACCOUNT, True),
        "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": asking.ACCOUNT},
        "subjects": [subject],
    }
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": asking.ACCOUNT, "namespace": SYSTEM_NAMESPACE, "labels": dict(LABELS)},
        "automountServiceAccountToken": False,
    }
    why = "What an agent and the coordinator ask about a command line's token; no object of this kind exists."
    role = {**_head("Role", asking.ACCOUNT, True), "rules": rules}
    return [Piece(part, account), Piece(part, role, why), Piece(part, binding)]


def _judging() -> list[Rule]:
    """Whose token is it, and what may they: as the role system:auth-delegator has it."""
    reviews = (asking.TOKENREVIEWS, asking.ACCESSREVIEWS)
    return [rule(one.group, (one.plural,), ("create",)) for one in reviews]


def users() -> list[Piece]:
    """Roles for people, to be bound as the cluster's owner likes."""
    workloads = [rule("apps", WORKLOADS, READ), rule("batch", ("jobs",), READ)]
    look = [
        rule("", ("nodes", "services"), ("list", "watch")),
        rule("discovery.k8s.io", ("endpointslices",), ("list", "watch")),
        rule("coordination.k8s.io", ("leases",), ("get",), (LEASE_NAME,)),  # is anything installed?
    ]
    view = [
        rule("", ("pods", "services"), READ),
        rule("discovery.k8s.io", ("endpointslices",), ("list", "watch")),
        rule("", ("events",), ("list", "watch")),
        *workloads,
    ]
    guards = _guards()
    cut = [rule("", ("pods", "services"), ("patch",)), *guards]
    drain = [rule("", ("pods",), ("patch", "delete")), rule("", ("services",), ("patch",)), *guards]
    prepare = [rule("", ("services",), ("create", "delete")), rule("apps", ("deployments", "replicasets"), ("patch",))]
    nodes = [rule("", ("nodes",), ("get", "patch")), rule("", ("pods",), ("list",))]
    release = [
        rule("", ("configmaps",), ("get", "list", "create", "patch")),
        rule(RELEASES.group, (RELEASES.plural,), ("get", "list", "create", "patch")),
        rule(RELEASES.group, (f"{RELEASES.plural}/status",), ("patch",)),
        *_released(),
    ]
    ask = [
        rule("coordination.k8s.io", ("leases",), ("get",)),
        rule("", ("pods",), ("list",)),
        rule("", ("pods/proxy",), ("get", "create")),
        rule("", ("serviceaccounts/token",), ("create",), (asking.ACCOUNT,)),
    ]
    everyone = f"For everyone who uses a verb, with {VIEW} and {ASK}."
    return [
        _role(LOOK, look, f"{everyone} Bind it cluster-wide."),
        _role(VIEW, view, "status, trace, observe, verify, doctor. Bind it in the namespaces that may be looked at."),
        _role(ASK, ask, "How agents and coordinator are asked: through the API server. Bind it here.", True),
        _role(CUT, cut, "cut, isolate: labels of pods, reservations on Services. Bind it where pods may be cut."),
        _role(DRAIN, drain, f"drain, restore: as {CUT}, and a pod may end. Bind it where pods may be drained."),
        _role(PREPARE, prepare, f"prepare, with {CUT}; also keeps cut pods scrapeable. Bind it where it is wanted."),
        _role(RELEASER, release, f"release, with {DRAIN}, where no operator does it. Bind it where releases are made."),
        _role(DRAIN_NODES, nodes, f"drain node/NAME, with {DRAIN} in every namespace; vouch. Bind it cluster-wide."),
    ]  # fmt: skip


VERB_ROLES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("status", "trace", "doctor", "verify"), (LOOK, VIEW, ASK)),
    **dict.fromkeys(("cut", "isolate"), (LOOK, VIEW, ASK, CUT)),
    **dict.fromkeys(("drain", "restore"), (LOOK, VIEW, ASK, DRAIN)),
    "vouch": (LOOK, ASK, DRAIN_NODES),
    "drain node": (LOOK, VIEW, ASK, DRAIN, DRAIN_NODES),
    "prepare": (LOOK, VIEW, ASK, CUT, PREPARE),
    **dict.fromkeys(
        ("release rolling", "release bluegreen", "release canary", "release rainbow"),
        (LOOK, VIEW, ASK, DRAIN, RELEASER),
    ),
}
"""Verb -> the roles that it takes."""
CLUSTER_WIDE = (LOOK, DRAIN_NODES)
"""Roles for people that mean the whole cluster; ``ASK`` is of our own namespace, the rest of the user's."""


def _released() -> list[Rule]:
    """What a release changes, whoever carries it, beside the pods that it drains."""
    return [
        rule("", ("services",), ("create", "patch", "delete")),
        rule("apps", ("deployments",), ("create", "patch", "delete")),
        rule("apps", ("replicasets",), ("patch",)),
        rule("autoscaling", ("horizontalpodautoscalers",), ("patch",)),
        rule("gateway.networking.k8s.io", ("httproutes",), ("get", "patch")),
        rule("traefik.io", ("traefikservices",), ("get", "patch")),
    ]


def _guards() -> list[Rule]:
    """What is looked at before a pod is cut."""
    return [
        rule("policy", ("poddisruptionbudgets",), ("list",)),
        rule("networking.k8s.io", ("networkpolicies",), ("list",)),
        rule("autoscaling", ("horizontalpodautoscalers",), ("list",)),
        rule("monitoring.coreos.com", ("podmonitors",), ("list",)),
    ]


def _routing() -> dict[str, list[str]]:
    """Group -> plurals of the kinds that may route to pods."""
    found: dict[str, list[str]] = {}
    for plural, (group, *_) in SOURCES.items():
        found.setdefault(group, []).append(plural.partition(".")[0])
    return found


def _in_cluster(part: str, name: str, cluster: tuple[list[Rule], str], own: tuple[list[Rule], str]) -> list[Piece]:
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": SYSTEM_NAMESPACE, "labels": dict(LABELS)},
    }
    pieces = [Piece(part, account)]
    for rules, why, is_namespaced in ((*cluster, False), (*own, True)):
        kind = "Role" if is_namespaced else "ClusterRole"
        reference = {"apiGroup": GROUP, "kind": kind, "name": name}
        subject = {"kind": "ServiceAccount", "name": name, "namespace": SYSTEM_NAMESPACE}
        binding = {**_head(f"{kind}Binding", name, is_namespaced), "roleRef": reference, "subjects": [subject]}
        pieces += [Piece(part, {**_head(kind, name, is_namespaced), "rules": rules}, why), Piece(part, binding)]
    return pieces


def _role(name: str, rules: list[Rule], why: str, is_namespaced: bool = False) -> Piece:
    kind = "Role" if is_namespaced else "ClusterRole"
    return Piece("users", {**_head(kind, name, is_namespaced), "rules": rules}, why)


def _head(kind: str, name: str, is_namespaced: bool) -> Manifest:
    where = {"namespace": SYSTEM_NAMESPACE} if is_namespaced else {}
    return {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": {"name": name, **where, "labels": dict(LABELS)}}
