"""Who asks, and may they? Bearer tokens, in front of everything the server answers.

Without a token, and with the lab's own, a caller may do everything. Everybody else may do what Roles and bindings say
(``rbac``), what Kubernetes lets everyone do who has signed in (the roles system:basic-user, system:discovery and
system:public-info-viewer), and, by a registered token, what its fixed rules say.

How a request becomes a question follows k8s.io/apiserver (pkg/endpoints/request/requestinfo.go), how a rule answers it
pkg/registry/rbac/rules and v1helpers of rbac, the refusal pkg/endpoints/handlers/responsewriters/errors.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tidegate import vtime
from tidegate.kube.api import JsonObject
from tidegate.kube.errors import ApiError
from tidegate.kube.exchange import Request
from tidegate.lab.apiserver import failures
from tidegate.lab.apiserver.rbac import ACCOUNT_PREFIX, Attributes, Bindings, account_user
from tidegate.lab.apiserver.registry import Registry
from tidegate.lab.apiserver.store import Collection, Store
from tidegate.lab.apiserver.tokens import decoded_claims

OWN_TOKEN = "lab"
"""What the lab's own kubeconfig has."""

VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "*")
EVERYONE = ("system:authenticated",)

_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,61}[a-z0-9])?")
_METHODS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_PUBLIC = ("/api", "/apis", "/healthz", "/livez", "/openapi", "/readyz", "/version")
"""What every user may GET, and all below it."""


class RuleError(ValueError):
    """A rule or a name that cannot be registered; the message says what would be accepted."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Verbs on resources of one API group; ``namespace`` "" is everywhere, as a ClusterRole bound to all."""

    verbs: tuple[str, ...]
    group: str
    resources: tuple[str, ...]
    namespace: str = ""

    def allows(self, asked: Attributes) -> bool:
        if self.namespace and self.namespace != asked.namespace:
            return False
        is_verb = "*" in self.verbs or asked.verb in self.verbs
        is_group = self.group in ("*", asked.group)
        wanted = ("*", asked.full_resource, *((f"*/{asked.subresource}",) if asked.subresource else ()))
        return is_verb and is_group and any(one in self.resources for one in wanted)

    def shown(self) -> JsonObject:
        """As a review shows it (authorization/v1 ResourceRule)."""
        return {"verbs": list(self.verbs), "apiGroups": [self.group], "resources": list(self.resources)}


@dataclass(frozen=True, slots=True)
class Subject:
    """Somebody known; ``rules`` None is who may do everything, else their own beside what is bound to them."""

    name: str
    groups: tuple[str, ...] = EVERYONE
    rules: tuple[Rule, ...] | None = None
    uid: str = ""

    def may_anyway(self, asked: Attributes) -> bool:
        """By fixed rules, whatever is bound to them."""
        if self.rules is None:
            return True
        if not asked.resource:
            return asked.verb == "get" and any(asked.path == p or asked.path.startswith(f"{p}/") for p in _PUBLIC)
        basic = BASIC if EVERYONE[0] in self.groups else ()
        return any(rule.allows(asked) for rule in (*self.rules, *basic))


BASIC = (
    Rule(("create",), "authorization.k8s.io", ("selfsubjectaccessreviews", "selfsubjectrulesreviews")),
    Rule(("create",), "authentication.k8s.io", ("selfsubjectreviews",)),
)
"""The role system:basic-user."""

PUBLIC_RULE: JsonObject = {"verbs": ["get"], "nonResourceURLs": [*_PUBLIC, *(f"{path}/*" for path in _PUBLIC)]}

MASTERS = "system:masters"
ADMIN = Subject("kubernetes-admin", (MASTERS, *EVERYONE))


class Access:
    """The lab's subjects by name. ``registry`` resolves the resources that rules name; ``store`` has the bindings."""

    def __init__(self, registry: Registry, store: Store) -> None:
        self._registry = registry
        self._subjects: dict[str, Subject] = {}
        self.bindings = Bindings(store, registry)
        self._accounts = store.collection(registry.named("", "serviceaccounts"))
        self._pods = store.collection(registry.named("", "pods"))

    def register(self, name: str, rules: Iterable[str], namespace: str = "") -> str:
        """Let ``name`` do what ``rules`` say, instead of what it may have been let do before; its token.

        A rule is "get,list:pods,pods/log,deployments.apps": verbs, then resources. ``namespace`` confines all of
        them. Raises ``RuleError``.
        """
        if not _NAME.fullmatch(name):
            raise RuleError(f'"{name}" cannot name a token: lower-case letters, digits, "-" and ".", at most 63')
        parsed = tuple(one for text in rules for one in self._parse(text, namespace))
        self._subjects[name] = Subject(name, rules=parsed)
        return token_of(name)

    def tokens(self) -> list[JsonObject]:
        """Every registered token and its rules, by name."""
        return [
            {"name": name, "token": token_of(name), "rules": [_text(rule) for rule in self._subjects[name].rules or ()]}
            for name in sorted(self._subjects)
        ]

    def named(self, user: str, groups: tuple[str, ...] = EVERYONE) -> Subject:
        """A user as others ask about them: one who was never registered has no rules of their own."""
        if user == ADMIN.name:
            return ADMIN
        if MASTERS in groups:
            return Subject(user, groups)
        known = self._subjects.get(user)
        return Subject(user, groups, known.rules if known is not None else ())

    def verdict(self, subject: Subject, asked: Attributes) -> tuple[bool, str]:
        """Whether a subject may, and why, in the authorizer's words."""
        if subject.may_anyway(asked):
            return True, ""
        return self.bindings.verdict(subject.name, subject.groups, asked)

    def subject(self, headers: Mapping[str, str]) -> Subject:
        """Who sends a request, or who they act as.

        Raises ``ApiError`` 401 for a token nobody was given, 403 for acting as another by rules that cannot say so.
        """
        kind, _, token = headers.get("authorization", "").partition(" ")
        found = self.holder(token.strip()) if kind.lower() == "bearer" and token else ADMIN
        if found is None:
            raise failures.failure(401, "Unauthorized", "Unauthorized")
        user = headers.get("impersonate-user", "")
        if user in ("", found.name):
            return found
        namespace, _, name = user.removeprefix(ACCOUNT_PREFIX).partition(":")
        is_account = user.startswith(ACCOUNT_PREFIX)
        wanted = Attributes("impersonate", resource="users", name=user)
        if is_account:
            wanted = Attributes("impersonate", resource="serviceaccounts", namespace=namespace, name=name)
        self._demand(found, wanted)
        asked_group = headers.get("impersonate-group", "")
        if asked_group:
            self._demand(found, Attributes("impersonate", resource="groups", name=asked_group))
            return self.named(user, (asked_group, *EVERYONE))
        return self.named(user, account_groups(namespace) if is_account else EVERYONE)

    def _demand(self, subject: Subject, asked: Attributes) -> None:
        is_allowed, why = self.verdict(subject, asked)
        if not is_allowed:
            raise refused(subject, asked, why)

    def holder(self, token: str) -> Subject | None:
        """Whose token it is."""
        if token == OWN_TOKEN:
            return ADMIN
        claims = decoded_claims(token)
        if claims is not None:
            return self._account(claims)
        name = token.removeprefix(f"{OWN_TOKEN}-")
        return self._subjects.get(name) if token == token_of(name) else None

    def _account(self, claims: dict[str, Any]) -> Subject | None:
        """The service account of a token: while it, and the pod the token was given to, are still there."""
        own = claims["kubernetes.io"]
        namespace, name, uid = own["namespace"], own["serviceaccount"]["name"], own["serviceaccount"]["uid"]
        if claims["exp"] <= vtime.now().timestamp() or not _is_there(self._accounts, namespace, name, uid):
            return None
        pod = own.get("pod")
        if pod and not _is_there(self._pods, namespace, pod["name"], pod["uid"]):
            return None
        return Subject(account_user(namespace, name), account_groups(namespace), (), uid)

    def admit(self, request: Request) -> Subject:
        """Who asks. Raises ``ApiError`` 401, or 403 when they may not."""
        subject = self.subject(request.headers)
        if subject.rules is not None:
            self._demand(subject, attributes(request))
        return subject

    # -- rules

    def _parse(self, text: str, namespace: str) -> list[Rule]:
        verbs_text, colon, resources_text = text.partition(":")
        verbs = tuple(filter(None, (one.strip() for one in verbs_text.split(","))))
        resources = list(filter(None, (one.strip() for one in resources_text.split(","))))
        if not colon or not verbs or not resources:
            raise RuleError(f'"{text}" is no rule; one is VERBS:RESOURCES, as "get,list,watch:pods,deployments.apps"')
        for verb in verbs:
            if verb not in VERBS:
                raise RuleError(f'"{verb}" is no verb; verbs are {", ".join(VERBS)}')
        by_group: dict[str, list[str]] = {}
        for resource in resources:
            group, plural = self._resolve(resource)
            by_group.setdefault(group, []).append(plural)
        return [Rule(verbs, group, tuple(names), namespace) for group, names in by_group.items()]

    def _resolve(self, text: str) -> tuple[str, str]:
        """("apps", "deployments/scale") of "deployments.apps/scale" and of "deployments/scale"; "*" is all of them."""
        full, _, subresource = text.partition("/")
        plural, dot, group = full.partition(".")
        tail = f"/{subresource}" if subresource else ""
        if plural == "*":
            if not dot or group in self._registry.groups():
                return group or "*", f"*{tail}"
        else:
            for row in self._registry.rows:
                is_it = row.resource.plural == plural and (not dot or row.resource.group == group)
                if is_it and (not subresource or row.subresource(subresource) is not None):
                    return row.resource.group, f"{plural}{tail}"
        raise RuleError(f'the lab serves no "{text}"; resources are named as "pods", "pods/log" or "deployments.apps"')


def token_of(name: str) -> str:
    """Readable on purpose: a lab listens on this machine's loopback, in plain HTTP."""
    return f"{OWN_TOKEN}-{name}"


def _text(rule: Rule) -> str:
    """A rule as it can be given again."""
    tail = f".{rule.group}" if rule.group not in ("", "*") else ""
    named = [name.replace("/", f"{tail}/", 1) if "/" in name else f"{name}{tail}" for name in rule.resources]
    where = f" in {rule.namespace}" if rule.namespace else ""
    return f"{','.join(rule.verbs)}:{','.join(named)}{where}"


def attributes(request: Request) -> Attributes:
    """What a request asks for, from its path alone: a user learns nothing of what is not served."""
    parts = [part for part in request.path.split("/") if part]
    is_core = parts[:1] == ["api"]
    if len(parts) < (3 if is_core else 4) or parts[0] not in ("api", "apis"):
        return Attributes(request.method.lower(), path=request.path)
    group, rest = ("", parts[2:]) if is_core else (parts[1], parts[3:])
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and rest[2] not in ("status", "finalize"):
            rest = rest[2:]
    name = rest[1] if len(rest) > 1 else ""
    verb = _METHODS.get(request.method, "")
    if not name and verb == "get":
        verb = "watch" if request.param("watch") in ("1", "true", "True") else "list"
        selected = re.fullmatch(r"metadata\.name==?([^,]+)", request.param("fieldSelector"))
        name = selected[1] if selected else ""
    elif not name and verb == "delete":
        verb = "deletecollection"
    return Attributes(verb, group, rest[0], rest[2] if len(rest) > 2 else "", namespace, name, request.path)


def account_groups(namespace: str) -> tuple[str, ...]:
    """The groups of a service account."""
    return ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", *EVERYONE)


def _is_there(collection: Collection, namespace: str, name: str, uid: str) -> bool:
    version = collection.get(namespace, name)
    return version is not None and version.object["metadata"]["uid"] == uid


def refused(subject: Subject, asked: Attributes, reason: str = "") -> ApiError:
    """403 in the real server's words."""
    tail = f": {reason}" if reason else ""
    if not asked.resource:
        why = f'User "{subject.name}" cannot {asked.verb} path "{asked.path}"{tail}'
        return failures.failure(403, "Forbidden", f"forbidden: {why}", {})
    where = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
    what = f'{asked.verb} resource "{asked.full_resource}" in API group "{asked.group}" {where}'
    why = f'User "{subject.name}" cannot {what}{tail}'
    qualified = f"{asked.resource}.{asked.group}" if asked.group else asked.resource
    details = {"name": asked.name, "group": asked.group, "kind": asked.resource}
    named = f'{qualified} "{asked.name}"' if asked.name else qualified
    return failures.failure(
        403, "Forbidden", f"{named} is forbidden: {why}", {key: value for key, value in details.items() if value}
    )
