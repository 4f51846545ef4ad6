"""Stories of access: what a user with few rights is answered, and what reviews say of them."""

from __future__ import annotations

from typing import Any

from tests.realcluster.objects import configmap, pod
from tests.realcluster.twin import MERGE, Side

ROLE = [
    {"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["pods", "pods/log"]},
    {"verbs": ["get", "list", "watch"], "apiGroups": ["apps"], "resources": ["deployments"]},
    {"verbs": ["create"], "apiGroups": [""], "resources": ["pods/eviction"]},
    {"verbs": ["*"], "apiGroups": [""], "resources": ["configmaps"]},
    {"verbs": ["get"], "apiGroups": ["*"], "resources": ["*/status"]},
]
"""What alice may do in a story's namespace."""

RBAC = "/apis/rbac.authorization.k8s.io/v1"
REVIEWS = "/apis/authorization.k8s.io/v1"


async def _bound(side: Side) -> None:
    rbac = f"{RBAC}/namespaces/{side.namespace}"
    await side.quietly("POST", f"{rbac}/roles", {"metadata": {"name": "alice"}, "rules": ROLE})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "alice"}
    subjects = [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "alice"}]
    binding = {"metadata": {"name": "alice"}, "roleRef": reference, "subjects": subjects}
    await side.quietly("POST", f"{rbac}/rolebindings", binding)
    for _ in range(50):  # the real authorizer reads its own copy
        if (await side.quietly("GET", "pods", user="alice")).status == 200:
            break


async def _may(side: Side, user: str = "alice", **attributes: str) -> Any:
    body = {"spec": {"resourceAttributes": attributes}}
    answer = await side.quietly("POST", f"{REVIEWS}/selfsubjectaccessreviews", body, user=user)
    return {"status": answer.status, "allowed": answer.body["status"]["allowed"]}


async def refusals(side: Side) -> None:
    """Requests without a rule, of every verb and place."""
    await _bound(side)
    await side.quietly("POST", "pods", pod("p"))
    for method, path, body in (
        ("GET", "pods/p", None),
        ("PATCH", "pods/p", {"metadata": {"labels": {"app": "x"}}}),
        ("DELETE", "pods/p", None),
        ("DELETE", "pods", None),
        ("POST", "pods", pod("q")),
        ("PUT", "pods/p/status", {}),
        ("GET", "pods/p/proxy/healthz", None),
        ("GET", "services", None),
        ("GET", "apps/deployments", None),
        ("PATCH", "apps/deployments/d/scale", {}),
        ("GET", "apps/nosuches", None),
        ("POST", "configmaps", configmap("m")),
        ("DELETE", "configmaps/m", None),
        ("GET", "/api/v1/pods", None),
        ("GET", "/api/v1/nodes", None),
        ("GET", "/api/v1/nodes/n", None),
        ("GET", f"/api/v1/namespaces/{side.namespace}", None),
        ("GET", f"/api/v1/namespaces/{side.namespace}/status", None),
        ("GET", "/api/v1/namespaces", None),
        ("GET", "/apis/apps/v1/deployments", None),
        ("GET", "/nowhere", None),
        ("POST", "/nowhere", {}),
        ("GET", "/apis/nosuch.example/v1/things", None),
    ):
        await side.ask(method, path, body, user="alice", **({"kind": MERGE} if method == "PATCH" else {}))
    await side.ask("GET", "services", user="alice", fieldSelector="metadata.name=web")
    await side.ask("GET", "services", user="alice", watch="true")
    await side.ask("POST", "pods/p/eviction", {"metadata": {"name": "p"}}, user="alice")
    for path in ("/version", "/api", "/apis", "/api/v1", "/healthz"):
        side.tell(path, (await side.quietly("GET", path, user="alice")).status)
    side.tell("nobody", (await side.quietly("GET", "pods", user="nobody")).body)


async def reviews(side: Side) -> None:
    """What alice is told she may do."""
    await _bound(side)
    here = side.namespace
    for attributes in (
        {"verb": "get", "resource": "pods", "namespace": here},
        {"verb": "get", "resource": "pods", "namespace": here, "name": "p"},
        {"verb": "get", "resource": "pods"},
        {"verb": "get", "resource": "pods", "namespace": "default"},
        {"verb": "patch", "resource": "pods", "namespace": here},
        {"verb": "get", "resource": "pods", "subresource": "log", "namespace": here},
        {"verb": "create", "resource": "pods", "subresource": "eviction", "namespace": here},
        {"verb": "list", "group": "apps", "resource": "deployments", "namespace": here},
        {"verb": "list", "group": "apps", "resource": "replicasets", "namespace": here},
        {"verb": "list", "group": "*", "resource": "*", "namespace": here},
        {"verb": "*", "resource": "configmaps", "namespace": here},
        {"verb": "*", "resource": "pods", "namespace": here},
        {"verb": "create", "group": "authorization.k8s.io", "resource": "selfsubjectaccessreviews"},
    ):
        side.tell(str(attributes), await _may(side, **attributes))
        side.tell(f"{attributes} of nobody", await _may(side, user="nobody", **attributes))
    for path in ("/version", "/api/v1", "/metrics"):
        body = {"spec": {"nonResourceAttributes": {"verb": "get", "path": path}}}
        answer = await side.quietly("POST", f"{REVIEWS}/selfsubjectaccessreviews", body, user="alice")
        side.tell(path, answer.body["status"]["allowed"])
    body = {"spec": {"user": "alice", "resourceAttributes": {"verb": "patch", "resource": "pods", "namespace": here}}}
    side.tell("asked by another", (await side.quietly("POST", f"{REVIEWS}/subjectaccessreviews", body)).body["status"])
    rules = await side.quietly(
        "POST", f"{REVIEWS}/selfsubjectrulesreviews", {"spec": {"namespace": here}}, user="alice"
    )
    shown = rules.body["status"]["resourceRules"]
    side.tell("rules", [one for one in ROLE[:4] if one in shown])
    await side.ask("POST", f"{REVIEWS}/selfsubjectrulesreviews", {}, user="alice")


def _rule(*verbs: str, **more: Any) -> dict[str, Any]:
    return {"verbs": list(verbs), "apiGroups": [""], "resources": ["pods"], **more}


async def _granted(side: Side, name: str, rules: list[Any], *, everywhere: bool = False) -> None:
    """A ClusterRole, bound to the service account ci, here or everywhere."""
    full = f"{side.namespace}-{name}"
    await side.quietly("POST", f"{RBAC}/clusterroles", {"metadata": {"name": full}, "rules": rules})
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": full}
    subjects = [{"kind": "ServiceAccount", "name": "ci", "namespace": side.namespace}]
    binding = {"metadata": {"name": full}, "roleRef": ref, "subjects": subjects}
    where = f"{RBAC}/clusterrolebindings" if everywhere else f"{RBAC}/namespaces/{side.namespace}/rolebindings"
    await side.quietly("POST", where, binding)


async def accounts(side: Side) -> None:
    """What is bound to a service account, by names and paths, and why a review says so; what the default roles give.

    Those that a controller puts together (admin, edit, view) are empty while it stands still: bound is what they are
    made of.
    """
    await side.quietly("POST", "serviceaccounts", {"metadata": {"name": "ci"}})
    user = f"system:serviceaccount:{side.namespace}:ci"
    await side.ask("GET", "pods", user=user)
    await _granted(side, "named", [_rule("get", "list", resourceNames=["p"])])
    await _granted(side, "below", [{**_rule("get"), "resources": ["pods/log", "*/status"]}])
    await _granted(side, "paths", [{"verbs": ["get"], "nonResourceURLs": ["/metrics", "/deep/*"]}], everywhere=True)
    for name in ("admin", "edit", "view"):
        ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"system:aggregate-to-{name}"}
        body = {"metadata": {"name": name}, "roleRef": ref, "subjects": [{"kind": "User", "name": name}]}
        await side.quietly("POST", f"{RBAC}/namespaces/{side.namespace}/rolebindings", body)
    for _ in range(50):  # the real authorizer reads its own copy
        if (await side.quietly("GET", "configmaps", user="view")).status == 200:
            break
    for path in (
        "pods/p",
        "pods/q",
        "pods",
        "pods/p/status",
        "pods/q/status",
        "pods/p/log",
        "/metrics/x",
        "/deep/x",
        "/deep",
    ):
        answer = await side.quietly("GET", path, user=user)
        side.tell(path, (answer.status, answer.body.get("message") if answer.status == 403 else ""))
    side.tell("one by name", (await side.quietly("GET", "pods", user=user, fieldSelector="metadata.name=p")).status)
    here = {"namespace": side.namespace}
    for asked in (
        {"verb": "get", "resource": "pods", "name": "p", **here},
        {"verb": "get", "resource": "pods", "name": "q", **here},
        {"verb": "get", "resource": "deployments", "group": "apps", "subresource": "status", **here},
        {"verb": "get", "resource": "pods", "subresource": "log", **here},
    ):
        body = {"spec": {"user": user, "resourceAttributes": asked}}
        side.tell(str(asked), (await side.quietly("POST", f"{REVIEWS}/subjectaccessreviews", body)).body["status"])
    body = {"spec": {"user": user, "nonResourceAttributes": {"verb": "get", "path": "/metrics"}}}
    side.tell("a path", (await side.quietly("POST", f"{REVIEWS}/subjectaccessreviews", body)).body["status"])
    for name in ("admin", "edit", "view", "nobody"):
        for method, path, sent in (
            ("GET", "pods", None),
            ("GET", "secrets", None),
            ("POST", "configmaps?", configmap("m")),
            ("GET", f"{RBAC}/namespaces/{side.namespace}/roles", None),
            ("GET", f"/apis/discovery.k8s.io/v1/namespaces/{side.namespace}/endpointslices", None),
            ("GET", f"/apis/coordination.k8s.io/v1/namespaces/{side.namespace}/leases", None),
            ("GET", "apps/deployments", None),
            ("GET", "/api/v1/nodes", None),
        ):
            answer = await side.quietly(
                method, path.rstrip("?"), sent, user=name, **({"dryRun": "All"} if sent else {})
            )
            side.tell(f"{name} {method} {path}", answer.status)


STORIES = (refusals, reviews, accounts)
