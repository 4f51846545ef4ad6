"""Reviews: questions about who may do what, answered by the rules that requests are held to."""

from __future__ import annotations

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver import failures
from tidegate.lab.apiserver.access import BASIC, PUBLIC_RULE, Access, Subject
from tidegate.lab.apiserver.rbac import Attributes
from tidegate.lab.apiserver.registry import REVIEW, Row
from tidegate.lab.apiserver.tokens import decoded_claims

_ALL: JsonObject = {
    "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    "incomplete": False,
}


def is_review(row: Row) -> bool:
    return row.verbs == REVIEW


def answer(row: Row, obj: JsonObject, access: Access, subject: Subject) -> JsonObject:
    """The review, asked by ``subject``, with its status."""
    metadata = obj.get("metadata") or {"creationTimestamp": None}
    spec = obj.get("spec") or {}
    return {
        "kind": row.kind,
        "apiVersion": row.resource.api_version,
        "metadata": metadata,
        "spec": spec,
        "status": _status(row.kind, spec, access, subject),
    }


def _status(kind: str, spec: JsonObject, access: Access, subject: Subject) -> JsonObject:
    if kind == "SelfSubjectReview":
        return {"userInfo": _user(subject)}
    if kind == "TokenReview":
        holder = access.holder(spec["token"]) if spec.get("token") else subject
        return _authenticated(spec, holder) if holder else {"user": {}}
    if kind == "SelfSubjectRulesReview":
        return _rules(spec.get("namespace") or "", access, subject)
    if kind != "SelfSubjectAccessReview" and (spec.get("user") or spec.get("groups")):
        subject = access.named(spec.get("user") or "", tuple(spec.get("groups") or ()))
    is_allowed, why = access.verdict(subject, _asked(spec))
    return {"allowed": is_allowed} | ({"reason": why} if why else {})


def _authenticated(spec: JsonObject, holder: Subject) -> JsonObject:
    """For the audiences that were asked about, where the token names any (authentication/v1 TokenReviewSpec)."""
    told: JsonObject = {"authenticated": True, "user": _user(holder)}
    wanted = list(spec.get("audiences") or ())
    if not wanted:
        return told
    own = (decoded_claims(str(spec.get("token") or "")) or {}).get("aud") or []
    audiences = [one for one in wanted if one in own]
    if not audiences:
        return {"user": {}, "error": f"[invalid bearer token, token audiences {own} is invalid for {wanted}]"}
    return {**told, "audiences": audiences}


def _user(subject: Subject) -> JsonObject:
    uid = {"uid": subject.uid} if subject.uid else {}
    return {"username": subject.name, **uid, "groups": list(subject.groups)}


def _rules(namespace: str, access: Access, subject: Subject) -> JsonObject:
    if not namespace:
        raise failures.bad_request("no namespace on request")
    if subject.rules is None:
        return _ALL
    own = [rule for rule in subject.rules if rule.namespace in ("", namespace)]
    grants = access.bindings.grants(subject.name, subject.groups, namespace)
    bound = [rule for grant in grants for rule in grant.rules]
    return {
        "resourceRules": [
            *(_shown(rule, _RESOURCES) for rule in bound if rule.get("resources")),
            *(rule.shown() for rule in (*own, *BASIC)),
        ],
        "nonResourceRules": [
            *(_shown(rule, _PATHS) for rule in bound if rule.get("nonResourceURLs")),
            PUBLIC_RULE,
        ],
        "incomplete": False,
    }


_RESOURCES = ("verbs", "apiGroups", "resources", "resourceNames")
_PATHS = ("verbs", "nonResourceURLs")


def _shown(rule: JsonObject, keys: tuple[str, ...]) -> JsonObject:
    return {key: rule[key] for key in keys if rule.get(key)}


def _asked(spec: JsonObject) -> Attributes:
    found, path = spec.get("resourceAttributes") or {}, spec.get("nonResourceAttributes") or {}
    if not found:
        return Attributes(path.get("verb") or "", path=path.get("path") or "")
    names = ("verb", "group", "resource", "subresource", "namespace", "name")
    return Attributes(**{name: found.get(name) or "" for name in names})
