"""Reviews: questions about who may do what. The lab has one user who may do everything."""

from __future__ import annotations

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.registry import REVIEW, Row

USER: JsonObject = {"username": "kubernetes-admin", "groups": ["system:masters", "system:authenticated"]}

_ALL: JsonObject = {
    "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    "incomplete": False,
}

_STATUS: dict[str, JsonObject] = {
    "SelfSubjectReview": {"userInfo": USER},
    "TokenReview": {"authenticated": True, "user": USER},
    "SelfSubjectRulesReview": _ALL,
}


def is_review(row: Row) -> bool:
    return row.verbs == REVIEW


def answer(row: Row, obj: JsonObject) -> JsonObject:
    """The review with its status: allowed."""
    metadata = obj.get("metadata") or {"creationTimestamp": None}
    return {
        "kind": row.kind,
        "apiVersion": row.resource.api_version,
        "metadata": metadata,
        "spec": obj.get("spec") or {},
        "status": _STATUS.get(row.kind, {"allowed": True}),
    }
