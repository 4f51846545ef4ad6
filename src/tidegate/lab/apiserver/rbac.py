"""What Roles and bindings let somebody do (rbac.authorization.k8s.io/v1).

Follows pkg/registry/rbac/validation/rule.go, pkg/apis/rbac/v1/evaluation_helpers.go and the authorizer's own words. The
rules of a ClusterRole with an ``aggregationRule`` are worked out when they are asked for: no controller copies them.
The default ClusterRoles that people bind (cluster-admin, admin, edit, view) are there without an object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.rbac_defaults import ROLES
from tidegate.lab.apiserver.registry import Registry
from tidegate.lab.apiserver.schema import validation_selectors
from tidegate.lab.apiserver.store import Store

GROUP = "rbac.authorization.k8s.io"
ACCOUNT_PREFIX = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a request asks for: a verb on a resource, or on a path where ``resource`` is ""."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def full_resource(self) -> str:
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


@dataclass(frozen=True, slots=True)
class Grant:
    """The rules a binding gives, and which binding that is, in the authorizer's words; ``lack`` is a role that is not
    there."""

    rules: Sequence[JsonObject]
    source: str = ""
    lack: str = ""


class Bindings:
    """A server's RBAC objects."""

    def __init__(self, store: Store, registry: Registry) -> None:
        kinds = ("clusterroles", "clusterrolebindings", "roles", "rolebindings")
        found = (store.collection(registry.named(GROUP, plural)) for plural in kinds)
        self._cluster_roles, self._cluster_bindings, self._roles, self._bindings = found

    def verdict(self, user: str, groups: Sequence[str], asked: Attributes) -> tuple[bool, str]:
        """Whether somebody may, and why; in the second place of a no, which roles were not to be found."""
        lacks = []
        for grant in self.grants(user, groups, asked.namespace):
            if any(allows(rule, asked) for rule in grant.rules):
                return True, f"RBAC: allowed by {grant.source}"
            if grant.lack:
                lacks.append(grant.lack)
        listed = list(dict.fromkeys(lacks))
        if not listed:
            return False, ""
        return False, f"RBAC: {listed[0] if len(listed) == 1 else '[' + ', '.join(listed) + ']'}"

    def grants(self, user: str, groups: Sequence[str], namespace: str) -> Iterator[Grant]:
        """What is bound to somebody everywhere, then in a namespace."""
        for version in self._cluster_bindings.versions():
            yield from self._granted(version.object, "", user, groups)
        if namespace:
            for version in self._bindings.versions(namespace):
                yield from self._granted(version.object, namespace, user, groups)

    def _granted(self, binding: JsonObject, namespace: str, user: str, groups: Sequence[str]) -> Iterator[Grant]:
        subjects = binding.get("subjects") or ()
        subject = next((one for one in subjects if _is(one, user, groups, namespace)), None)
        if subject is None:
            return
        ref = binding["roleRef"]
        rules = self._rules(ref, namespace)
        if rules is None:
            resource = "role" if ref["kind"] == "Role" else "clusterrole"
            yield Grant((), lack=f'{resource}.{GROUP} "{ref["name"]}" not found')
            return
        name = binding["metadata"]["name"] + (f"/{namespace}" if namespace else "")
        kind = "RoleBinding" if namespace else "ClusterRoleBinding"
        to = subject["name"]
        if subject["kind"] == "ServiceAccount":
            to = f"{to}/{subject.get('namespace') or namespace}"
        yield Grant(rules, f'{kind} "{name}" of {ref["kind"]} "{ref["name"]}" to {subject["kind"]} "{to}"')

    def _rules(self, ref: JsonObject, namespace: str) -> Sequence[JsonObject] | None:
        if ref["kind"] == "Role":
            role = self._roles.get(namespace, ref["name"])
            return None if role is None else role.object.get("rules") or ()
        found = self._cluster_roles.get("", ref["name"])
        default = ROLES.get(ref["name"])
        if found is None and default is None:
            return None
        obj: JsonObject = found.object if found is not None else default or {}
        return [*(obj.get("rules") or ()), *self._aggregated(obj)]

    def _aggregated(self, role: JsonObject) -> Iterator[JsonObject]:
        selectors = (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or ()
        for version in self._cluster_roles.versions() if selectors else ():
            other = version.object
            labels = other["metadata"].get("labels") or {}
            if other is not role and any(validation_selectors.matches(one, labels) for one in selectors):
                yield from other.get("rules") or ()


def account_user(namespace: str, name: str) -> str:
    """The user name of a service account."""
    return f"{ACCOUNT_PREFIX}{namespace}:{name}"


def _is(subject: JsonObject, user: str, groups: Sequence[str], namespace: str) -> bool:
    if subject["kind"] == "User":
        return bool(subject["name"] == user)
    if subject["kind"] == "Group":
        return subject["name"] in groups
    where = subject.get("namespace") or namespace
    return bool(where) and account_user(where, subject["name"]) == user


def allows(rule: JsonObject, asked: Attributes) -> bool:
    """Whether one PolicyRule lets a request pass."""
    if not _has(rule.get("verbs"), asked.verb):
        return False
    if not asked.resource:
        return any(_is_path(url, asked.path) for url in rule.get("nonResourceURLs") or ())
    wanted = ("*", asked.full_resource, *((f"*/{asked.subresource}",) if asked.subresource else ()))
    resources, names = rule.get("resources") or (), rule.get("resourceNames") or ()
    is_resource = any(one in resources for one in wanted)
    return is_resource and _has(rule.get("apiGroups"), asked.group) and (not names or asked.name in names)


def _has(items: Sequence[str] | None, wanted: str) -> bool:
    return "*" in (items or ()) or wanted in (items or ())


def _is_path(url: str, path: str) -> bool:
    return url in ("*", path) or (url.endswith("*") and path.startswith(url.rstrip("*")))
